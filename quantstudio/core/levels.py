"""The levels that the weights of one output channel really have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantstudio.core.record import Record
from quantstudio.core.statistics import Histogram


@dataclass(frozen=True, slots=True)
class ChannelLevels(Record):
    """One output channel of a weight in a scheme.

    Attributes:
        layer: Layer.
        channel: Output channel, from 0.
        channels: How many there are.
        counts: Weights in equal bins from `low` to `high`.
        low: Smallest weight of the channel.
        high: Largest.
        levels: Values the weights can have, ascending; of a codebook those of its table.
        codes: The integer each level is stored as.
        taken: How many weights take each level.
        sqnr_db: Signal to noise of the channel's weights, dB; infinite where nothing is lost.
    """

    layer: str
    channel: int
    channels: int
    counts: tuple[int, ...]
    low: float
    high: float
    levels: tuple[float, ...]
    codes: tuple[int, ...]
    taken: tuple[int, ...]
    sqnr_db: float

    @property
    def histogram(self) -> Histogram:
        """The weights of the channel."""
        low, high = self.low, self.high
        reach = (high - low) or 1.0
        top = high if high > low else low + reach
        return Histogram(np.asarray(self.counts, np.int64), low, top, self.low, self.high)
