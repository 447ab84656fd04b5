"""Affine integer maths on arrays and histograms, for the emitter, the analysis and the clip lines on screen.

Source of the affine map: Jacob et al. 2018, arXiv:1712.05877, eq. (1): real = scale * (q - zero_point).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Below this a float32 scale is denormal and 1/scale overflows; ONNX Runtime then returns NaN.
SMALLEST_SCALE = np.float32(np.finfo(np.float32).tiny * 2**8)


@dataclass(frozen=True, slots=True)
class IntegerGrid:
    """Integer values a tensor may take: signed narrow [-(2^(b-1)-1), 2^(b-1)-1], or unsigned [0, 2^b-1]."""

    bits: int
    signed: bool

    @property
    def low(self) -> int:
        """Smallest integer."""
        return -self.high if self.signed else 0

    @property
    def high(self) -> int:
        """Largest integer."""
        return max((1 << self.bits - 1) - 1, 1) if self.signed else (1 << self.bits) - 1

    @property
    def steps(self) -> int:
        """Number of steps between the smallest and the largest value."""
        return self.high - self.low


def affine_qparams(low: float, high: float, grid: IntegerGrid) -> tuple[np.float32, int]:
    """Scale and zero point that put [low, high], widened to contain 0, onto an integer grid.

    Zero must be exact: zero padding and ReLU depend on it.

    Args:
        low: Smallest real value to keep.
        high: Largest real value to keep.
        grid: Signed grids give a symmetric map (zero point 0), unsigned ones an asymmetric map.

    Returns:
        Scale (float32, > 0) and zero point within the grid.

    Raises:
        ValueError: a bound is not finite, or low > high.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"range [{low}, {high}] is not finite")
    if low > high:
        raise ValueError(f"range [{low}, {high}] is reversed")
    low, high = min(low, 0.0), max(high, 0.0)
    if grid.signed:
        return max(np.float32(max(-low, high) / grid.high), SMALLEST_SCALE), 0
    scale = max(np.float32((high - low) / grid.steps), SMALLEST_SCALE)
    zero_point = round(float(np.clip(-low / float(scale), 0, grid.steps))) + grid.low
    return scale, zero_point


@dataclass(frozen=True, slots=True)
class ClipEffect:
    """What a clip range does to a distribution.

    Attributes:
        clipped_share: Part of the values outside the representable range, 0 to 1.
        mean_squared_error: Mean of (x - x_quantized)^2.
        sqnr_db: Signal to quantization noise ratio in decibels; inf without error.
        scale: Step of the grid.
        zero_point: Zero point of the grid.
        grid_low: Smallest representable real value.
        grid_high: Largest representable real value.
    """

    clipped_share: float
    mean_squared_error: float
    sqnr_db: float
    scale: float
    zero_point: int
    grid_low: float
    grid_high: float


def clip_effect(
    counts: NDArray[np.int64], edges: NDArray[np.float64], low: float, high: float, grid: IntegerGrid
) -> ClipEffect:
    """Effect of quantizing a histogrammed distribution with a clip range.

    Args:
        counts: Values in each bin, shape [B].
        edges: Bin edges, shape [B + 1], ascending.
        low: Clip range, lower end.
        high: Clip range, upper end.
        grid: Integer grid.

    Returns:
        The effect, exact up to the width of a bin (each bin counts at its centre plus uniform spread).

    Raises:
        ValueError: the range is not finite or reversed.
    """
    scale, zero_point = affine_qparams(low, high, grid)
    step = float(scale)
    centres = (edges[1:] + edges[:-1]) / 2
    total = max(int(counts.sum()), 1)
    q = np.clip(np.rint(centres / step) + zero_point, grid.low, grid.high) - zero_point
    # A bin wider than the grid step holds values that round to several grid points: its error is that of
    # the rounding, step^2 / 12, not that of its centre.
    width = np.diff(edges)
    inside = np.abs(centres - q * step) <= step / 2
    error = np.where(inside & (width >= step), step**2 / 12, (centres - q * step) ** 2)
    noise = float((counts * error).sum()) / total
    signal = float((counts * centres**2).sum()) / total
    grid_low, grid_high = (grid.low - zero_point) * step, (grid.high - zero_point) * step
    outside = (centres < grid_low - step / 2) | (centres > grid_high + step / 2)
    return ClipEffect(
        clipped_share=float(counts[outside].sum()) / total,
        mean_squared_error=noise,
        sqnr_db=sqnr_db(signal, noise),
        scale=step,
        zero_point=zero_point,
        grid_low=grid_low,
        grid_high=grid_high,
    )


def sqnr_db(signal_power: float, noise_power: float) -> float:
    """Signal to quantization noise ratio in decibels; inf without noise, -inf for noise without signal."""
    if noise_power <= 0:
        return math.inf
    if signal_power <= 0:
        return -math.inf
    return 10 * math.log10(signal_power / noise_power)
