"""Channels of a network that have to be taken away together, as people and other programs read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantstudio.core.record import Record


@dataclass(frozen=True, slots=True)
class ChannelGroup(Record):
    """Units of a network that are alike: any of them can be taken away, each with all that hangs on it.

    Attributes:
        name: The first node that makes its channels; with a number where one makes several groups.
        units: How many there are.
        width: Channels of a layer that one unit holds: 1, or those of a head or of a convolution's group.
        makers: Nodes whose output channels these are.
        readers: Nodes whose weights read or scale them.
        reason: Why none can be taken away; empty where they can.
    """

    name: str
    units: int
    width: int
    makers: tuple[str, ...]
    readers: tuple[str, ...]
    reason: str = ""

    @property
    def is_prunable(self) -> bool:
        """Whether units of it can be taken away."""
        return not self.reason

    @property
    def channels(self) -> int:
        """Channels of all its units."""
        return self.units * self.width


@dataclass(frozen=True, slots=True)
class ChannelGroups(Record):
    """All groups of a network, in its order.

    Attributes:
        groups: One a set of layers whose channels hang together.
    """

    groups: tuple[ChannelGroup, ...]

    def _parts(self) -> Sequence[ChannelGroup]:
        return self.groups
