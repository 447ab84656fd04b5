"""Weight quantizers: integer grids and codebooks of 1 to 8 bits in an int8 container."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import SMALLEST_SCALE, IntegerGrid
from quantstudio.core.errors import BuildError
from quantstudio.core.packing import group_axis
from quantstudio.core.precision import Granularity, Grid, LayerScheme, Precision, WeightFormat, WeightRange
from quantstudio.core.precision import integer_levels as integer_levels
from quantstudio.engine.quantization.codebooks import codebook_rows
from quantstudio.engine.quantization.shared_tables import shared_rows
from quantstudio.engine.quantization.weight_scales import (
    FloatArray,
    Levels,
    affine_rows,
    full_range_scales,
    known_scales,
    least_squares_scales,
    ternary_scales,
)


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
        format: What was asked; its levels hold all values.
        zeros: Integer that stands for zero, int8, shape of `scales`; None where it is zero itself.
    """

    values: NDArray[np.int8]
    scales: FloatArray
    axis: int | None
    group_size: int
    dequantized: FloatArray
    format: WeightFormat = Precision.INT8
    zeros: NDArray[np.int8] | None = None


def quantize_weight(
    weight: FloatArray,
    scheme: LayerScheme,
    channel_axis: int | None,
    clip: tuple[float, float] | None = None,
    max_bits: int = 8,
    *,
    is_narrow: bool = False,
) -> QuantizedWeight:
    """A weight rounded to the grid of a scheme; what lies on it already is kept exactly.

    Uniform formats use the integers of `integer_levels`, BINARY is sign(w) * mean|w| (Rastegari et al. 2016,
    arXiv:1603.05279, eq. 6), TERNARY has the scale of least squared error, a codebook has 2^b integers a
    channel, or for the whole tensor (see `codebooks`), groups and tables 2^b integers for some channels or
    all (see `shared_tables`). PER_GROUP runs along the reduced axis of a matrix; where there is no single
    reduced axis (convolutions), and for codebooks, it means PER_CHANNEL.

    Args:
        weight: Any shape, finite.
        scheme: Integer weights, granularity and range rule.
        channel_axis: Axis of the output channels; None quantizes the whole tensor with one scale.
        clip: Range set by hand, (low, high); values outside are clipped and no range is searched.
        max_bits: Bits the kernel may take: wider grids are narrowed to these (see `Target.weight_bits`).
        is_narrow: As in files of the first two emissions: grids are symmetric, and what lies on a grid is
            rounded as any other.

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
    rounding = _Rounding(scheme, max_bits, is_narrow, limit)
    if granularity is Granularity.PER_GROUP:
        return _per_group(clipped, scheme, rounding, axis)
    if granularity is Granularity.PER_TENSOR:
        values, scales = rounding.rows(clipped.reshape(1, -1))
        values = values.reshape(weight.shape)
        real = values * scales.reshape([1] * weight.ndim)
        return QuantizedWeight(values, scales.reshape(()), None, 0, real, scheme.weights)
    moved = np.moveaxis(clipped, axis, 0)
    values, scales = rounding.rows(moved.reshape(moved.shape[0], -1))
    values = np.ascontiguousarray(np.moveaxis(values.reshape(moved.shape), 0, axis))
    shape = [1] * weight.ndim
    shape[axis] = -1
    return QuantizedWeight(values, scales, axis, 0, values * scales.reshape(shape), scheme.weights)


def _granularity(
    weight: FloatArray, scheme: LayerScheme, channel_axis: int | None
) -> tuple[Granularity, int]:
    """The granularity that is possible for this shape, and the axis its scales run along."""
    if scheme.granularity is Granularity.PER_TENSOR or channel_axis is None or weight.ndim < 2:
        return Granularity.PER_TENSOR, 0
    if scheme.granularity is Granularity.PER_GROUP and not scheme.weights.has_codebook:
        axis = group_axis(weight.shape, channel_axis)
        if axis is not None:
            return Granularity.PER_GROUP, axis
    return Granularity.PER_CHANNEL, channel_axis % weight.ndim


def narrow_levels(scheme: LayerScheme, max_bits: int = 8) -> Levels:
    """The symmetric levels of files of the first two emissions, no wider than a kernel may take them."""
    grid = IntegerGrid(min(scheme.weights.bits, max_bits), signed=True)
    return grid.low, grid.high


def _per_group(weight: FloatArray, scheme: LayerScheme, rounding: _Rounding, axis: int) -> QuantizedWeight:
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
    zeros = None
    if scheme.symmetric or not scheme.weights.has_range_rule:
        values, scales = rounding.rows(rows, counts)
        real = (values * scales[:, None]).reshape(padded.shape)[..., :length]
    else:
        values, scales, zeros = affine_rows(rows, scheme.weights.bits)
        codes = values.astype(np.float32) - zeros[:, None]
        real = (codes * scales[:, None]).reshape(padded.shape)[..., :length]

    def by_group(one: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(np.moveaxis(one.reshape(*moved.shape[:-1], groups), -1, axis))

    integers = values.reshape(padded.shape)[..., :length]
    return QuantizedWeight(
        values=np.ascontiguousarray(np.moveaxis(integers, -1, axis)),
        scales=by_group(scales),
        axis=axis,
        group_size=size,
        dequantized=np.ascontiguousarray(np.moveaxis(real, -1, axis)),
        zeros=None if zeros is None else by_group(zeros),
        format=scheme.weights,
    )


@dataclass(frozen=True, slots=True)
class _Rounding:
    """How rows are rounded that have a scale each.

    Attributes:
        scheme: Format and range rule.
        max_bits: Bits the kernel may take.
        is_narrow: As in the first two emissions.
        limit: Largest magnitude set by hand, or None.
    """

    scheme: LayerScheme
    max_bits: int
    is_narrow: bool
    limit: float | None

    def rows(
        self, rows: FloatArray, counts: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int8], FloatArray]:
        """Integers and scales of rows [R, K]; `counts` are the values of each that are no padding."""
        weights = self.scheme.weights
        if not rows.size:
            return np.zeros(rows.shape, np.int8), np.full(len(rows), SMALLEST_SCALE, np.float32)
        if weights.shares_table:
            high, tables = integer_levels(weights, self.max_bits)[1], weights.tables_of(len(rows))
            return shared_rows(rows, 1 << weights.bits, high, tables)
        if weights.has_codebook:
            return codebook_rows(rows, 1 << weights.bits, integer_levels(weights, self.max_bits)[1])
        if weights.grid is Grid.SIGN:
            mean = np.abs(rows).sum(axis=1, dtype=np.float64) / (rows.shape[1] if counts is None else counts)
            scales = np.maximum(mean.astype(np.float32), SMALLEST_SCALE)
            return np.where(rows < 0, np.int8(-1), np.int8(1)), scales
        levels = integer_levels(weights, self.max_bits)
        if self.is_narrow and weights.grid is Grid.UNIFORM:
            levels = narrow_levels(self.scheme, self.max_bits)
        scales = self._scales(rows, levels)
        q = rows / scales[:, None]
        np.rint(q, out=q)
        np.clip(q, *levels, out=q)
        return q.astype(np.int8), scales

    def _scales(self, rows: FloatArray, levels: Levels) -> FloatArray:
        if self.is_narrow or self.limit is not None:
            return self._own_scales(rows, levels)
        scales = known_scales(rows, levels)
        new = scales == 0
        if new.all():
            return self._own_scales(rows, levels)
        scales[new] = self._own_scales(rows[new], levels)
        return scales

    def _own_scales(self, rows: FloatArray, levels: Levels) -> FloatArray:
        if self.scheme.weights.grid is Grid.TERNARY and self.limit is None:
            return ternary_scales(rows)
        if self.scheme.weight_range is WeightRange.MSE and self.limit is None:
            return least_squares_scales(rows, levels)
        return full_range_scales(rows, levels, self.limit)
