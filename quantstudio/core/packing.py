"""Bytes that the weights of a plan take in its file, which layers own them, and their bits on average."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from quantstudio.core.codebooks import UNPACKING_BYTES
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import Grid, LayerScheme, Precision, WeightFormat, integer_levels

# Two weight tensors in one node, of which the layer list names one.
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


@dataclass(frozen=True, slots=True)
class PlanBits:
    """What a plan makes of the weights that can be quantized.

    Attributes:
        average: Mean bits per weight.
        share_above_8: Part of the layers, 0 to 1, with more than 8 bits.
    """

    average: float
    share_above_8: float


class Word(NamedTuple):
    """So many digits in so many bytes."""

    digits: int
    bytes: int


# By radix: how a file holds what no type of ONNX has the width of (five ternary
# digits fit a byte: 3^5 = 243).
WORDS = {
    2: Word(8, 1),
    3: Word(5, 1),
    4: Word(4, 1),
    8: Word(8, 3),
    32: Word(8, 5),
    64: Word(4, 3),
    128: Word(8, 7),
}
NIBBLES, BYTES = 16, 256
# Bytes of the operators that unpack a weight, with their names: a cast; digits, more where a word takes
# several bytes or is not filled; a table they pick from, and what brings the picks into a kernel's shape.
_CAST_BYTES, _DIGIT_BYTES, _WIDE_BYTES, _FILL_BYTES, _TABLE_BYTES, _SHAPE_BYTES = 34, 175, 35, 75, 10, 75
# What packing of four bits must win before it is done; of others, `UNPACKING_BYTES`.
_LEAST_CAST = 60


@dataclass(frozen=True, slots=True)
class WeightCount:
    """What the bytes of a weight depend on besides its format.

    Attributes:
        weights: How many there are.
        channels: Output channels.
        is_matrix: Whether the weight has two axes, as its table and its picks have.
    """

    weights: int = 0
    channels: int = 0
    is_matrix: bool = True

    @classmethod
    def of(cls, layer: LayerInfo) -> WeightCount:
        """Of the weight a layer names."""
        shape, axis = layer.weight_shape, layer.channel_axis
        has_channels = axis is not None and len(shape) > 1
        return cls(math.prod(shape) if shape else 0, shape[axis or 0] if has_channels else 1, len(shape) == 2)


def packs(scheme: LayerScheme) -> bool:
    """Whether a file with such a layer is one of packed weights, in which every layer takes fewer bytes."""
    return scheme.weights.is_integer and scheme.weights != Precision.INT8


def code_bytes(weights: WeightFormat, count: WeightCount) -> int:
    """Bytes of the integers of a weight in the file, tables with them.

    INT8 takes a byte each; b bits take b / 8, in whole words; a codebook its indices and 2^b bytes a table.
    What would win less than the operators take that unpack it is not packed.
    """
    return packed_bytes(weights, count) or count.weights


def unpacking_bytes(weights: WeightFormat, count: WeightCount) -> int:
    """Bytes of the operators that bring a weight back to INT8 when the file is loaded; 0 where none do."""
    radix = _radix(weights)
    if radix is None or packed_bytes(weights, count) is None:
        return 0
    taken = _CAST_BYTES
    if radix != NIBBLES:
        digits, size = WORDS[radix]
        taken = _DIGIT_BYTES + _WIDE_BYTES * (size > 1) + _FILL_BYTES * (count.weights % digits > 0)
    tables = weights.tables_of(count.channels)
    if weights.shares_table and tables == 1:  # the picks are of any shape
        return taken + _TABLE_BYTES
    table = _TABLE_BYTES + _SHAPE_BYTES * (not count.is_matrix or tables < count.channels)
    return taken + (table if weights.has_codebook else 0)


def _radix(weights: WeightFormat) -> int | None:
    """Values a weight may take, where the file holds them packed."""
    if not weights.is_integer or weights == Precision.INT8:
        return None
    low, high = integer_levels(weights)
    found = 2 if weights.grid is Grid.SIGN else high - low + 1
    if weights.has_codebook:
        found = 1 << weights.bits
    return found if found == NIBBLES or found in WORDS else None


def packed_bytes(weights: WeightFormat, count: WeightCount) -> int | None:
    """Bytes of digits and tables; None where a weight is not packed, as that does not pay."""
    radix = _radix(weights)
    if radix is None:
        return None
    tables = radix * weights.tables_of(count.channels)
    least = _LEAST_CAST if radix == NIBBLES else UNPACKING_BYTES
    if math.ceil(count.weights * math.log2(radix) / 8) + tables + least >= count.weights:
        return None
    if radix == NIBBLES:
        return -(-count.weights // 2) + tables
    digits, size = WORDS[radix]
    return -(-count.weights // digits) * size + tables


def searched(layers: Iterable[LayerInfo]) -> tuple[LayerInfo, ...]:
    """Layers whose weights a search chooses a precision for."""
    return tuple(layer for layer in layers if layer.quantizable and layer.weight_name)


def plan_bits(layers: Iterable[LayerInfo], schemes: Mapping[str, LayerScheme]) -> PlanBits:
    """Mean bits of schemes by layer."""
    chosen = searched(layers)
    owners = weight_owners(chosen)
    weights, bits, above = 0, 0, 0
    for layer in chosen:
        scheme = schemes[layer.name]
        own = parameter_counts(layer, owns_weight=layer.name in owners)[0]
        weights, bits = weights + own, bits + own * scheme.weights.bits
        above += scheme.weights.bits > 8
    return PlanBits(bits / max(weights, 1), above / max(len(chosen), 1))


def weight_owners(layers: Iterable[LayerInfo]) -> frozenset[str]:
    """Layers at which a weight counts: of those that share one, the first."""
    first: dict[str, str] = {}
    for layer in layers:
        first.setdefault(layer.weight_name, layer.name)
    return frozenset(first.values())


def parameter_counts(layer: LayerInfo, *, owns_weight: bool) -> tuple[int, int]:
    """Weights and other parameters (biases) that count for a layer."""
    if not owns_weight:
        return 0, layer.parameters
    if layer.op_type in RECURRENT:
        return layer.parameters, 0
    weights = math.prod(layer.weight_shape)
    return weights, max(layer.parameters - weights, 0)


def group_axis(shape: tuple[int, ...], channel_axis: int | None) -> int | None:
    """The axis groups run along: the one a matrix product reduces; None where there is no single one."""
    if channel_axis is None or len(shape) < 2:
        return None
    channel_axis %= len(shape)
    if len(shape) == 2:
        return 1 - channel_axis
    return len(shape) - 2 if channel_axis == len(shape) - 1 else None
