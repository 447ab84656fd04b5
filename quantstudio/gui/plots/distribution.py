"""What the histogram plot draws, worked out without Qt: bars of the grid, axis limits, clip effect."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import ClipEffect, IntegerGrid, clip_effect
from quantstudio.core.channel_clip import channel_clip_effect
from quantstudio.core.statistics import Histogram

MAX_LEVELS = 4096
# A bin this much higher than all others is a spike (the zeros behind a ReLU): it may leave the plot.
SPIKE = 3.0
SPIKE_AIR = 1.3  # what is drawn of it, in heights of the rest
MIN_DRAWN_BINS = 32
MIN_OCCUPIED = 0.25
SQRT_RULE_SLACK = 1.5
LOG_FLOOR = 0.5  # half a count: the foot of the bars on a logarithmic axis


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """A distribution with the grid it is rounded to.

    Attributes:
        key: Layer, or activation tensor; what an edited range belongs to.
        kind: "weights" or "activations".
        histogram: The values.
        grid: Integer grid, or None while the layer is not on one.
        low: Clip range in force, lower end.
        high: Clip range in force, upper end.
        is_edited: Whether that range was set by hand.
        channels: Smallest and largest value per channel where each channel has its own scale, else None.
        is_grouped: Whether scales are finer than a channel, so that the error shown is an upper bound.
        note: Where the range comes from, for the reader.
        exact_db: SQNR over the values themselves, with that range; None where only the histogram tells.
        label: What people call the layer or tensor, where that is not its key.
        source: What the values are before they are rounded: "FP32", or what the file holds of them.
        has_bars: Whether bars on one grid show where values land; not where channels have few levels each.
        levels: Values there are, ascending, where they are known one by one; drawn instead of the grid.
        codes: The integer each of them is stored as.
    """

    key: str
    kind: str
    histogram: Histogram
    grid: IntegerGrid | None
    low: float
    high: float
    is_edited: bool = False
    channels: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    is_grouped: bool = False
    note: str = ""
    exact_db: float | None = None
    label: str = ""
    levels: tuple[float, ...] = ()
    codes: tuple[int, ...] = ()
    source: str = "FP32"
    has_bars: bool = True

    @property
    def title(self) -> str:
        """What people call it."""
        return self.label or self.key

    @property
    def is_symmetric(self) -> bool:
        """Whether both clip lines move together."""
        return self.grid is not None and self.grid.signed

    def limited(self, low: float, high: float, moved: str) -> tuple[float, float]:
        """A legal clip range near (low, high), after the line `moved` ("low" or "high") was dragged.

        Signed grids are symmetric; every grid contains 0 because zero must stay exact.
        """
        histogram = self.histogram
        reach = max(abs(histogram.minimum), abs(histogram.maximum)) or 1.0
        least = reach * 1e-3
        if self.is_symmetric:
            edge = abs(low if moved == "low" else high)
            edge = min(max(edge, least), reach)
            return -edge, edge
        low = min(max(low, min(histogram.minimum, 0.0)), 0.0)
        high = max(min(high, max(histogram.maximum, 0.0)), 0.0)
        if high - low < least:
            low, high = (low, low + least) if moved == "high" else (high - least, high)
        return min(low, 0.0), max(high, 0.0)

    def effect(self, low: float, high: float) -> ClipEffect | None:
        """What clipping to [low, high] does; None without a grid."""
        if self.grid is None:
            return None
        found = self._estimated(low, high, self.grid)
        if self.exact_db is None or (low, high) != (self.low, self.high):
            return found
        centres = (self.histogram.edges[1:] + self.histogram.edges[:-1]) / 2
        power = float((self.histogram.counts * centres**2).sum()) / max(int(self.histogram.counts.sum()), 1)
        noise = power * 10 ** (-self.exact_db / 10)
        return replace(found, sqnr_db=self.exact_db, mean_squared_error=noise)

    def has_bound(self, low: float, high: float) -> bool:
        """Whether the error with that range is a bound alone."""
        return self.is_grouped and (self.exact_db is None or (low, high) != (self.low, self.high))

    def _estimated(self, low: float, high: float, grid: IntegerGrid) -> ClipEffect:
        histogram = self.histogram
        if self.channels is not None and grid.signed:
            clip = max(-low, high)
            return channel_clip_effect(histogram.counts, histogram.edges, self.channels, clip, grid)
        return clip_effect(histogram.counts, histogram.edges, low, high, grid)


@dataclass(frozen=True, slots=True, eq=False)
class GridBars:
    """The quantized distribution: one bar a level.

    Attributes:
        centres: Real value of each level, shape [L].
        density: Values rounded to the level, in values per histogram bin, shape [L].
        step: Distance between levels.
    """

    centres: NDArray[np.float64]
    density: NDArray[np.float64]
    step: float


def grid_bars(
    histogram: Histogram, effect: ClipEffect, grid: IntegerGrid, bin_width: float | None = None
) -> GridBars:
    """How many values land on each level, on the scale of bins `bin_width` wide (the histogram's own)."""
    edges, counts = histogram.edges, histogram.counts
    width = float(edges[1] - edges[0]) if bin_width is None else bin_width
    step = effect.scale
    cumulative = np.concatenate(([0.0], np.cumsum(counts, dtype=np.float64)))
    levels = np.arange(grid.low, grid.high + 1, dtype=np.float64)[:MAX_LEVELS]
    centres = (levels - effect.zero_point) * step
    borders = np.concatenate(([-np.inf], (centres[1:] + centres[:-1]) / 2, [np.inf]))
    landed = np.diff(np.interp(borders, edges, cumulative))
    return GridBars(centres, landed * width / step, step)


def drawn_bins(histogram: Histogram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges and counts as they are drawn: neighbouring bins are joined where most are empty.

    A layer of a few hundred weights, or an input with seventeen grey levels, would be a comb of single values
    beside which the bars of the grid, which stand for many bins each, could not be seen. By the square-root
    rule, n values are drawn in about sqrt(n) bins; the ends stay exact.
    """
    counts, edges = histogram.counts.astype(np.float64), histogram.edges
    span = (histogram.maximum - histogram.minimum) / max(histogram.high - histogram.low, 1e-300)
    wanted = math.sqrt(counts.sum())
    while len(counts) > MIN_DRAWN_BINS and len(counts) % 2 == 0:
        within = max(1.0, len(counts) * span)
        is_sparse = np.count_nonzero(counts) / within < MIN_OCCUPIED
        if within <= SQRT_RULE_SLACK * wanted and not is_sparse:
            break
        counts = counts.reshape(-1, 2).sum(axis=1)
        edges = edges[::2]
    return edges, counts


def thinned(bars: GridBars, low: float, high: float, most: int) -> tuple[GridBars, int]:
    """At most `most` bars between low and high, and how many levels each stands for.

    Neighbouring levels are averaged, so the drawn area stays that of the distribution.
    """
    first = int(np.searchsorted(bars.centres, low, side="left"))
    last = int(np.searchsorted(bars.centres, high, side="right"))
    centres, density = bars.centres[first:last], bars.density[first:last]
    every = max(1, -(-len(centres) // max(most, 1)))
    if every == 1:
        return GridBars(centres, density, bars.step), 1
    usable = len(centres) // every * every
    centres = centres[:usable].reshape(-1, every).mean(axis=1)
    density = density[:usable].reshape(-1, every).mean(axis=1)
    return GridBars(centres, density, bars.step * every), every


def top_of(counts: NDArray[np.float64]) -> tuple[float, bool]:
    """Upper end of a linear axis, and whether a spike is cut off by it."""
    if not len(counts):
        return 1.0, False
    highest = np.partition(counts, max(0, len(counts) - 3))[-3:]
    spike, rest = float(highest.max()), float(highest.min())
    if rest > 0 and spike > SPIKE * rest:
        return rest * SPIKE_AIR, True
    return max(spike, 1e-12) * 1.08, False


def visible_range(histogram: Histogram) -> tuple[float, float]:
    """Ends of the value axis: the exact extremes with a little air."""
    low, high = histogram.minimum, histogram.maximum
    if low == high:
        reach = abs(low) * 0.5 or 1.0
        return low - reach, high + reach
    air = (high - low) * 0.02
    return low - air, high + air
