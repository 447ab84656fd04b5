"""Weight quantizers: symmetric integer grids of 1 to 8 bits in an int8 container."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import SMALLEST_SCALE, IntegerGrid
from quantstudio.core.errors import BuildError
from quantstudio.core.packing import group_axis
from quantstudio.core.precision import Granularity, Grid, LayerScheme, WeightFormat, WeightRange

FloatArray = NDArray[np.float32]

# Blocks of this many values stay in the level-2 cache through all candidates of the scale search (3x faster
# than whole tensors).
_BLOCK_ELEMENTS = 1 << 16
_CANDIDATES = 20
# Shortest clip range tried, as part of the largest magnitude: coarse grids gain from much harder clipping.
_SHORTEST_RANGE = {8: 0.5, 7: 0.5, 6: 0.45, 5: 0.4, 4: 0.35, 3: 0.25, 2: 0.1}
# Rows shorter than this are reduced across columns instead: numpy pays per row.
_SHORT_ROW = 128


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedWeight:
    """A weight on its integer grid.

    Attributes:
        values: Integers, int8, shape of the weight.
        scales: float32. Per tensor: shape []; per channel: shape [C]; per group: shape of the weight with
            `axis` shortened to the number of groups (the last group may be ragged).
        axis: Axis the scales run along (per channel: the channels, per group: the grouped axis); None per
            tensor.
        group_size: Weights a scale covers along `axis`; 0 unless per group.
        dequantized: `values` times their scales, float32, shape of the weight.
    """

    values: NDArray[np.int8]
    scales: FloatArray
    axis: int | None
    group_size: int
    dequantized: FloatArray


def quantize_weight(
    weight: FloatArray,
    scheme: LayerScheme,
    channel_axis: int | None,
    clip: tuple[float, float] | None = None,
    max_bits: int = 8,
) -> QuantizedWeight:
    """A weight rounded to the grid of a scheme.

    INT2 to INT8 use the narrow symmetric grid [-(2^(b-1)-1), 2^(b-1)-1], BINARY is sign(w) * mean|w|
    (Rastegari et al. 2016, arXiv:1603.05279, eq. 6). Groups run along the reduced axis of a matrix; where
    there is no single reduced axis (convolutions), PER_GROUP means PER_CHANNEL.

    Args:
        weight: Any shape, finite.
        scheme: Integer weights, granularity and range rule.
        channel_axis: Axis of the output channels; None quantizes the whole tensor with one scale.
        clip: Range set by hand, (low, high); values outside are clipped and no range is searched.
        max_bits: Bits the kernel may take: wider grids are narrowed to these (see `Target.weight_bits`).

    Raises:
        BuildError: the scheme's weights are not integer, or the weight holds NaN or infinity.
    """
    if not scheme.weights.is_integer:
        raise BuildError(f"{scheme.weights.name} weights have no integer grid")
    weight = np.asarray(weight, dtype=np.float32)
    if not np.isfinite(weight).all():
        raise BuildError("a weight holds NaN or infinity", hint="Keep its layer in FP32")
    clipped = weight if clip is None else np.clip(weight, np.float32(clip[0]), np.float32(clip[1]))
    limit = None if clip is None else max(abs(clip[0]), abs(clip[1]))
    granularity, axis = _granularity(clipped, scheme, channel_axis)
    grid = weight_grid(scheme.weights, max_bits)
    if granularity is Granularity.PER_GROUP:
        return _per_group(clipped, scheme, grid, axis, limit)
    if granularity is Granularity.PER_CHANNEL:
        rows = np.moveaxis(clipped, axis, 0).reshape(clipped.shape[axis], -1)
    else:
        rows = clipped.reshape(1, -1)
    scales = _scales(rows, scheme, grid, limit)
    shape = [1] * weight.ndim
    if granularity is Granularity.PER_CHANNEL:
        shape[axis] = -1
    spread = scales.reshape(shape)
    values = _round(clipped, spread, scheme.weights, grid)
    return QuantizedWeight(
        values=values,
        scales=scales if granularity is Granularity.PER_CHANNEL else scales.reshape(()),
        axis=axis if granularity is Granularity.PER_CHANNEL else None,
        group_size=0,
        dequantized=values * spread,
    )


def _granularity(
    weight: FloatArray, scheme: LayerScheme, channel_axis: int | None
) -> tuple[Granularity, int]:
    """The granularity that is possible for this shape, and the axis its scales run along."""
    if scheme.granularity is Granularity.PER_TENSOR or channel_axis is None or weight.ndim < 2:
        return Granularity.PER_TENSOR, 0
    if scheme.granularity is Granularity.PER_GROUP:
        axis = group_axis(weight.shape, channel_axis)
        if axis is not None:
            return Granularity.PER_GROUP, axis
    return Granularity.PER_CHANNEL, channel_axis % weight.ndim


def weight_grid(weights: WeightFormat, max_bits: int = 8) -> IntegerGrid:
    """The integers a format's weights take, no wider than a kernel may take them."""
    return IntegerGrid(min(weights.bits, max_bits), signed=True)


def _per_group(
    weight: FloatArray, scheme: LayerScheme, grid: IntegerGrid, axis: int, limit: float | None
) -> QuantizedWeight:
    size = max(1, scheme.group_size)
    moved = np.moveaxis(weight, axis, -1)
    length = moved.shape[-1]
    groups = -(-length // size)
    # Zeros that fill the ragged last group change neither its largest magnitude nor its squared error.
    padded = np.zeros((*moved.shape[:-1], groups * size), dtype=np.float32)
    padded[..., :length] = moved
    rows = padded.reshape(-1, size)
    counts = None
    if groups * size != length and scheme.weights.grid is Grid.SIGN:
        counts = np.full(groups, size)
        counts[-1] = length - (groups - 1) * size
        counts = np.tile(counts, len(rows) // groups)
    scales = _scales(rows, scheme, grid, limit, counts)
    values = _round(rows, scales[:, None], scheme.weights, grid)
    real = (values * scales[:, None]).reshape(padded.shape)[..., :length]
    integers = values.reshape(padded.shape)[..., :length]
    return QuantizedWeight(
        values=np.ascontiguousarray(np.moveaxis(integers, -1, axis)),
        scales=np.ascontiguousarray(np.moveaxis(scales.reshape(*moved.shape[:-1], groups), -1, axis)),
        axis=axis,
        group_size=size,
        dequantized=np.ascontiguousarray(np.moveaxis(real, -1, axis)),
    )


def _scales(
    rows: FloatArray,
    scheme: LayerScheme,
    grid: IntegerGrid,
    limit: float | None,
    counts: NDArray[np.int64] | None = None,
) -> FloatArray:
    """One scale a row of shape [R, K]."""
    if not rows.size:
        return np.full(len(rows), SMALLEST_SCALE, dtype=np.float32)
    if scheme.weights.grid is Grid.SIGN:
        mean = np.abs(rows).sum(axis=1, dtype=np.float64) / (rows.shape[1] if counts is None else counts)
        return np.asarray(np.maximum(mean.astype(np.float32), SMALLEST_SCALE), dtype=np.float32)
    magnitude = np.maximum(rows.max(axis=1), -rows.min(axis=1)).astype(np.float32)
    if limit is not None:
        magnitude = np.minimum(magnitude, np.float32(limit))
    scales = np.maximum(magnitude / np.float32(grid.high), SMALLEST_SCALE)
    if scheme.weight_range is WeightRange.MSE and limit is None:
        return _least_squares_scales(rows, scales, grid.bits)
    return np.asarray(scales, dtype=np.float32)


def _round(
    weight: FloatArray, scales: FloatArray, weights: WeightFormat, grid: IntegerGrid
) -> NDArray[np.int8]:
    if weights.grid is Grid.SIGN:
        return np.where(weight < 0, np.int8(-1), np.int8(1))
    high = grid.high
    q = weight / scales
    np.rint(q, out=q)
    np.clip(q, -high, high, out=q)
    return np.asarray(q, dtype=np.int8)


def _least_squares_scales(rows: FloatArray, widest: FloatArray, bits: int) -> FloatArray:
    """The scale of each row with the least squared error among clip ranges, refined in closed form."""
    best = widest.copy()
    length = rows.shape[1]
    step = max(1, _BLOCK_ELEMENTS // length)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        best[part] = _search_block(rows[part], widest[part], bits)
    return best


def _search_block(rows: FloatArray, widest: FloatArray, bits: int) -> FloatArray:
    high = np.float32(IntegerGrid(bits, signed=True).high)
    # |w| has the same error as w on a symmetric grid and needs one clip instead of two.
    magnitude = np.abs(rows)
    axis = 1
    if rows.shape[1] < _SHORT_ROW:
        magnitude = np.ascontiguousarray(magnitude.T)
        axis = 0
    shape = (1, -1) if axis == 0 else (-1, 1)
    q, error = np.empty_like(magnitude), np.empty_like(magnitude)
    best, least = widest.copy(), np.full(len(widest), np.inf, dtype=np.float32)
    for ratio in np.linspace(1.0, _SHORTEST_RANGE[bits], _CANDIDATES, dtype=np.float32):
        scale = np.maximum(widest * ratio, SMALLEST_SCALE)
        np.multiply(magnitude, (1 / scale).reshape(shape), out=q)
        np.rint(q, out=q)
        np.minimum(q, high, out=q)
        # For fixed integers the best scale is <w, q> / <q, q>; rounding again with it can only gain.
        scale = _fitted_scale(magnitude, q, scale, axis)
        np.multiply(q, scale.reshape(shape), out=error)
        error -= magnitude
        total = _row_sums(error, error, axis)
        better = total < least
        best[better], least[better] = scale[better], total[better]
    return best


def _fitted_scale(magnitude: FloatArray, q: FloatArray, scale: FloatArray, axis: int) -> FloatArray:
    power = _row_sums(q, q, axis)
    fitted = np.divide(_row_sums(magnitude, q, axis), power, out=scale.copy(), where=power > 0)
    return np.maximum(fitted, SMALLEST_SCALE)


def _row_sums(a: FloatArray, b: FloatArray, axis: int) -> FloatArray:
    return np.asarray(np.einsum("ij,ij->i" if axis == 1 else "ij,ij->j", a, b))
