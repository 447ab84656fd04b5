"""Activation ranges read off a histogram, by every method and at any bit width, without another pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import IntegerGrid
from quantstudio.core.errors import CalibrationError
from quantstudio.core.recipe import CalibrationSettings, RangeMethod
from quantstudio.core.statistics import Histogram

MIN_BITS, MAX_BITS = 2, 16
# Shrinking by up to 2^10: a single outlier a thousand times the rest can still be clipped away.
_COARSE_RATIOS = np.concatenate([np.linspace(1.0, 0.4, 9), np.geomspace(0.32, 2.0**-10, 12)])
_FINE_STEPS = np.array([-1.0, -0.67, -0.33, 0.33, 0.67, 1.0])
# Above so many levels a level is narrower than a bin, and rounding errors are those of uniform values.
_MAX_EXACT_LEVELS = 1 << 9
_ENTROPY_CANDIDATES = 96

FloatArray = NDArray[np.float64]


def activation_range(
    histogram: Histogram, settings: CalibrationSettings, grid: IntegerGrid
) -> tuple[float, float]:
    """Range to put on an integer grid: finite, with 0 inside, never wider than what was seen and 0.

    MINMAX keeps everything. PERCENTILE keeps the given share of the values, half of the rest cut at either
    end. MSE has the least squared error of all ranges on this grid. ENTROPY has the least KL divergence
    between the clipped and the quantized distribution (the method of TensorRT); at 8 bits it clips too much
    on every network tried, so it is an option and never the default.

    Args:
        histogram: Distribution of the tensor.
        settings: Method and percentile.
        grid: Integer grid; signed ones are symmetric about 0.

    Returns:
        Low (at most 0) and high (at least 0). A tensor without negative values keeps low = 0.

    Raises:
        CalibrationError: the bit width is not 2 to 16, or the percentile not above 0 and up to 100.
    """
    if not MIN_BITS <= grid.bits <= MAX_BITS:
        raise CalibrationError(f"no activation range for {grid.bits} bits", hint="Choose 2 to 16 bits")
    full = (min(histogram.minimum, 0.0), max(histogram.maximum, 0.0))
    if histogram.is_constant or not histogram.counts.any():
        return full
    match settings.method:
        case RangeMethod.MINMAX:
            return full
        case RangeMethod.PERCENTILE:
            return _percentile_range(histogram, settings.percentile, full)
        case RangeMethod.MSE:
            return _least_squares_range(histogram, grid, full)
        case RangeMethod.ENTROPY:
            return _entropy_range(histogram, grid, full)
        case _:
            assert_never(settings.method)


def all_ranges(histogram: Histogram, bits: int) -> dict[RangeMethod, tuple[float, float]]:
    """The range by every method on the unsigned grid of a bit width, default percentile."""
    grid = IntegerGrid(bits, signed=False)
    return {
        method: activation_range(histogram, CalibrationSettings(method=method), grid)
        for method in RangeMethod
    }


def range_noise(histogram: Histogram, low: float, high: float, grid: IntegerGrid) -> tuple[float, float]:
    """Mean squared error that a range makes of a tensor: of what lies outside it, and of rounding the rest.

    Args:
        histogram: Distribution of the tensor.
        low: Smallest value kept, at most 0.
        high: Largest value kept, at least 0.
        grid: Integer grid; signed ones are symmetric about 0.
    """
    occupied = np.flatnonzero(histogram.counts)
    if not occupied.size:
        return 0.0, 0.0
    counts, centres = histogram.counts[occupied], histogram.centres[occupied]
    reach = max(-low, high)
    step = reach / grid.high if grid.signed else (high - low) / grid.steps
    ends = (-reach, reach) if grid.signed else (low, high)
    excess = centres - np.clip(centres, *ends)
    inside = float(counts[excess == 0].sum())
    total = float(counts.sum())
    return float((counts * excess**2).sum()) / total, inside / total * step**2 / 12


def _percentile_range(
    histogram: Histogram, percentile: float, full: tuple[float, float]
) -> tuple[float, float]:
    if not 0 < percentile <= 100:
        raise CalibrationError(
            f"percentile {percentile:g} is not a percentage", hint="Choose above 0 and up to 100"
        )
    total = histogram.total
    tail = (1 - percentile / 100) / 2 * total
    if tail < 1:  # finer than the samples resolve
        return full
    cumulative = np.concatenate([[0], np.cumsum(histogram.counts)])
    edges = histogram.edges
    low = float(np.interp(tail, *_strictly_rising(cumulative, edges)))
    high = float(np.interp(total - tail, *_strictly_rising(cumulative, edges)))
    return min(max(low, full[0]), 0.0), max(min(high, full[1]), 0.0)


def _strictly_rising(cumulative: NDArray[np.int64], edges: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Cumulative counts with their edges, without the runs that empty bins make."""
    occupied = np.diff(cumulative) > 0
    keep = np.concatenate([[False], occupied]) | np.concatenate([occupied, [False]])
    return cumulative[keep].astype(np.float64), edges[keep]


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """Running count, sum and sum of squares of a histogrammed distribution, values spread over their bins.

    Attributes:
        edges: Edges of the occupied part, shape [B + 1].
        density: Values per unit in each bin, shape [B].
        sums: Of x^0, x^1 and x^2 up to each edge, shape [3, B + 1].
    """

    edges: FloatArray
    density: FloatArray
    sums: FloatArray

    @classmethod
    def of(cls, histogram: Histogram) -> _Moments:
        occupied = np.flatnonzero(histogram.counts)
        first, last = int(occupied[0]), int(occupied[-1]) + 1
        counts = histogram.counts[first:last].astype(np.float64)
        edges = histogram.edges[first : last + 1]
        density = counts / (edges[1] - edges[0])
        powers = np.stack([edges, edges**2 / 2, edges**3 / 3])
        sums = np.concatenate([np.zeros((3, 1)), np.cumsum(np.diff(powers) * density, axis=1)], axis=1)
        return cls(edges, density, sums)

    def until(self, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Sums of x^0, x^1, x^2 over all values up to x, each of x's shape."""
        x = np.clip(x, self.edges[0], self.edges[-1])
        width = self.edges[1] - self.edges[0]
        bins = ((x - self.edges[0]) / width).astype(np.int64)
        np.minimum(bins, len(self.density) - 1, out=bins)
        left, density = self.edges[bins], self.density[bins]
        inside = x - left
        inside *= density
        square = inside * (x + left)
        zeroth = self.sums[0][bins] + inside
        first = self.sums[1][bins] + square / 2
        second = self.sums[2][bins] + (square * (x + left) - inside * x * left) / 3
        return zeroth, first, second


def _squared_errors(moments: _Moments, lows: FloatArray, highs: FloatArray, grid: IntegerGrid) -> FloatArray:
    """Sum of squared quantization errors for each range, shape [K]."""
    if grid.signed:
        steps = np.maximum(-lows, highs) / grid.high
        zeros = np.zeros_like(steps)
    else:
        steps = (highs - lows) / grid.steps
        zeros = np.rint(-lows / steps)
    steps, zeros = steps[:, None], zeros[:, None]
    if grid.steps > _MAX_EXACT_LEVELS:
        return _coarse_errors(moments, (grid.low - zeros) * steps, (grid.high - zeros) * steps, steps)
    levels = (np.arange(grid.low, grid.high + 1) - zeros) * steps
    ends = np.full((len(steps), 1), np.inf)
    middles = np.concatenate([-ends, (levels[:, :-1] + levels[:, 1:]) / 2, ends], axis=1)
    zeroth, first, second = (np.diff(s, axis=1) for s in moments.until(middles))
    return np.asarray((second - 2 * levels * first + levels**2 * zeroth).sum(axis=1))


def _coarse_errors(moments: _Moments, lows: FloatArray, highs: FloatArray, steps: FloatArray) -> FloatArray:
    """The same for grids finer than the bins: clipping is exact, rounding is that of uniform values."""
    everything = moments.sums[:, -1]
    below = moments.until(lows)
    above = [total - until for total, until in zip(everything, moments.until(highs), strict=True)]
    inside = everything[0] - below[0] - above[0]
    error = inside * steps**2 / 12
    for end, (zeroth, first, second) in ((lows, below), (highs, above)):
        error = error + second - 2 * end * first + end**2 * zeroth
    return np.asarray(error[:, 0])


def _least_squares_range(
    histogram: Histogram, grid: IntegerGrid, full: tuple[float, float]
) -> tuple[float, float]:
    moments = _Moments.of(histogram)
    errors = _squared_errors(moments, full[0] * _COARSE_RATIOS, full[1] * _COARSE_RATIOS, grid)
    best = _COARSE_RATIOS[int(np.argmin(errors))]
    low, high = float(full[0] * best), float(full[1] * best)
    least = float(errors.min())
    two_sided = full[0] < 0 < full[1]
    # First both ends together, then each over its whole extent (an outlier has one side), then ever finer
    # around the best. Only less error moves an end, so that nothing is cut for free.
    for spread in (None, 0.2, 0.06, 0.02) if two_sided else (0.2, 0.06, 0.02):
        if full[1] > 0:
            highs = _candidates(full[1], high, spread)
            high, least = _better(moments, np.full_like(highs, low), highs, grid, highs, (high, least))
        if full[0] < 0:
            lows = _candidates(full[0], low, spread)
            low, least = _better(moments, lows, np.full_like(lows, high), grid, lows, (low, least))
    return low, high


def _candidates(extreme: float, present: float, spread: float | None) -> FloatArray:
    """Places for one end of the range: over its whole extent, or within a part of where it is."""
    if spread is None:
        return extreme * _COARSE_RATIOS
    moved = present * (1 + spread * _FINE_STEPS)
    return np.asarray(np.clip(moved, min(extreme, 0.0), max(extreme, 0.0)))


def _better(
    moments: _Moments,
    lows: FloatArray,
    highs: FloatArray,
    grid: IntegerGrid,
    candidates: FloatArray,
    present: tuple[float, float],
) -> tuple[float, float]:
    """The candidate with the least error and that error; the present ones on a tie."""
    errors = _squared_errors(moments, lows, highs, grid)
    best = int(np.argmin(errors))
    return (float(candidates[best]), float(errors[best])) if errors[best] < present[1] else present


def _entropy_range(histogram: Histogram, grid: IntegerGrid, full: tuple[float, float]) -> tuple[float, float]:
    """Least KL divergence between the distribution clipped at T and its quantized form.

    Source: Migacz, 8-bit inference with TensorRT, GTC 2017. Signed or two-sided tensors are folded at 0.
    """
    half = len(histogram.counts) // 2
    folded = histogram.counts[half:].astype(np.float64) + histogram.counts[:half][::-1]
    # Exact zeros (ReLU, padding) are exact on every grid; their spike would outweigh all that clipping costs.
    folded[0] = min(folded[0], folded[1])
    if not folded.any():
        return full
    one_sided = full[0] == 0 or full[1] == 0
    levels = grid.high if grid.signed else (grid.steps + 1) // (1 if one_sided else 2)
    last = int(np.flatnonzero(folded)[-1]) + 1
    if levels >= last:
        return full
    candidates = np.unique(np.linspace(levels, last, _ENTROPY_CANDIDATES).astype(np.int64))[::-1]
    kept = int(candidates[np.argmin(_divergences(folded, candidates, levels))])
    if kept == last:
        return full
    threshold = kept * histogram.high / half
    return max(full[0], -threshold), min(full[1], threshold)


def _divergences(folded: FloatArray, candidates: NDArray[np.int64], levels: int) -> FloatArray:
    """KL divergence for each number of bins kept, shape [K]; running sums make each cost only its levels."""
    total = folded.sum()
    count = np.concatenate([[0.0], np.cumsum(folded)])
    occupied = np.concatenate([[0.0], np.cumsum(folded > 0)])
    entropy = np.concatenate([[0.0], np.cumsum(_x_log_x(folded))])
    cuts = np.rint(candidates[:, None] * np.linspace(0, 1, levels + 1)).astype(np.int64)
    group = np.diff(count[cuts], axis=1)
    # Each level spreads its values evenly over its occupied bins.
    quantized = group / np.maximum(np.diff(occupied[cuts], axis=1), 1)
    outliers = total - count[candidates]
    last = folded[candidates - 1]
    own = entropy[candidates] - _x_log_x(last) + _x_log_x(last + outliers)
    group[:, -1] += outliers
    # A level without values under the outliers: a small count stands for the zero the logarithm cannot take.
    cross = (group * np.log(np.maximum(quantized, 1e-4))).sum(axis=1)
    return np.asarray((own - cross) / total - np.log(total) + np.log(np.maximum(count[candidates], 1)))


def _x_log_x(x: FloatArray) -> FloatArray:
    return x * np.log(np.maximum(x, 1e-300))
