"""Weights of a plan: which layers own them, how many there are, and the bits they take on average."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import LayerScheme

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
