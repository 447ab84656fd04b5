"""Bytes of parameters with their weights packed to their bits: what a plan weighs wherever it is stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import Granularity, LayerScheme

FLOAT_BYTES = 4
# Two weight tensors in one node, of which the layer list names one.
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


@dataclass(frozen=True, slots=True)
class PackedPlan:
    """What a plan makes of the parameters.

    Attributes:
        weight_bytes: See `search_results.PlanFigures.weight_bytes`.
        average_bits: Mean bits per weight, over all weights that can be quantized.
        share_above_8: Part of the layers that can be quantized, 0 to 1, with more than 8 bits.
    """

    weight_bytes: int
    average_bits: float
    share_above_8: float


def searched(layers: Iterable[LayerInfo]) -> tuple[LayerInfo, ...]:
    """Layers whose weights a search chooses a precision for."""
    return tuple(layer for layer in layers if layer.quantizable and layer.weight_name)


def packed_plan(layers: Sequence[LayerInfo], schemes: Mapping[str, LayerScheme]) -> PackedPlan:
    """What schemes by layer make of a model's parameters."""
    chosen = searched(layers)
    owners = weight_owners(chosen)
    names = {layer.name for layer in chosen}
    total = sum(FLOAT_BYTES * layer.parameters for layer in layers if layer.name not in names)
    weights, bits, above = 0, 0, 0
    for layer in chosen:
        scheme = schemes[layer.name]
        owns = layer.name in owners
        total += packed_bytes(layer, scheme, owns_weight=owns)
        own = parameter_counts(layer, owns_weight=owns)[0]
        weights, bits = weights + own, bits + own * scheme.weights.bits
        above += scheme.weights.bits > 8
    return PackedPlan(total, bits / max(weights, 1), above / max(len(chosen), 1))


def weight_owners(layers: Iterable[LayerInfo]) -> frozenset[str]:
    """Layers at which a weight counts: of those that share one, the first."""
    first: dict[str, str] = {}
    for layer in layers:
        first.setdefault(layer.weight_name, layer.name)
    return frozenset(first.values())


def packed_bytes(layer: LayerInfo, scheme: LayerScheme, *, owns_weight: bool) -> int:
    """Bytes of a layer's parameters with weights packed to their bits."""
    weights, others = parameter_counts(layer, owns_weight=owns_weight)
    if not scheme.weights.is_integer:
        return (weights + others) * scheme.weights.bits // 8
    scales = _scales(layer, scheme) if owns_weight else 0
    return math.ceil(weights * scheme.weights.bits / 8) + FLOAT_BYTES * (scales + others)


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


def _scales(layer: LayerInfo, scheme: LayerScheme) -> int:
    if layer.channel_axis is None or scheme.granularity is Granularity.PER_TENSOR:
        return 1
    channels = layer.weight_shape[layer.channel_axis]
    axis = group_axis(layer.weight_shape, layer.channel_axis)
    if scheme.granularity is Granularity.PER_GROUP and axis is not None:
        return (
            math.prod(layer.weight_shape)
            // layer.weight_shape[axis]
            * (-(-layer.weight_shape[axis] // scheme.group_size))
        )
    return channels
