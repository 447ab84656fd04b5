"""Settings of the step that shares weights; no torch is loaded for them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from quantstudio.engine.pipeline.registry import setting


class TableFor(StrEnum):
    """What has a table of its own."""

    NETWORK = "network"
    TENSOR = "tensor"
    GROUP = "group"
    CHANNEL = "channel"


@dataclass(frozen=True, slots=True)
class ShareSettings:
    """How values are shared."""

    entries: int = setting(
        16,
        "Entries",
        "Values in a table; 16 take 4 bits a weight, 256 take 8.",
        low=2,
        high=256,
        unit="values",
    )
    per: TableFor = setting(
        TableFor.TENSOR,
        "A table for",
        """Each tensor, each output channel, each group of so many channels, or all tensors of the network
        together. Entries are floats of four bytes: many tables may take more than they gain.""",
    )
    group: int = setting(
        8,
        "Channels of a group",
        "Neighbouring channels that share a table. Tensors whose channels it does not divide have one.",
        low=2,
        high=4096,
        unit="channels",
    )
    layers: str = setting(
        "",
        "Layers",
        """Names of layers whose weights are shared, with commas between them; * and ? stand for any
        characters. Empty: every layer that gains from it.""",
    )
    sweeps: int = setting(
        3, "Refits", "How often tables are fitted to what a layer reads.", low=0, high=100, unit="times"
    )
    samples: int = setting(
        512, "Samples", "Samples of the data, where there is any, that go through.", low=2, unit="samples"
    )
