"""What a recipe will cost, predicted from tables measured once: within a screen frame, without a runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import LayerScheme, Precision, scheme_name
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import AccuracyCurve, Interval, LayerSensitivity


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What one layer takes in each scheme.

    Attributes:
        weight_bytes: Bytes of the layer's parameters with scales, by scheme name; exact.
        time_share: Part of the FP32 run spent in the layer, measured by profiling.
        time_ratio: Time against FP32 by scheme name, measured on this machine; 1.0 where not measured.
    """

    weight_bytes: Mapping[str, int] = field(default_factory=dict)
    time_share: float = 0.0
    time_ratio: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CostTable:
    """Costs of every layer of one graph on one machine.

    Attributes:
        layers: Cost by layer name.
        structure_bytes: File bytes that no scheme changes: graph, names, other initializers.
        overhead_bytes: Bytes of extra nodes and names a layer brings, by scheme name: a mean over layers.
        fp32_ms: Median FP32 latency in milliseconds; 0 where not measured.
        provider: Execution provider of the times.
    """

    layers: Mapping[str, LayerCost]
    structure_bytes: int
    overhead_bytes: Mapping[str, int] = field(default_factory=dict)
    fp32_ms: float = 0.0
    provider: str = ""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted cost of a recipe; None where the needed table is not there yet.

    Attributes:
        size_bytes: File size.
        weight_bytes: Bytes of all layer parameters with scales; exact.
        kl: Sum of the layers' KL divergences (nats).
        accuracy: Top-1 (or agreement with FP32 where unlabelled) with its interval, 0 to 1.
        latency_ms: Median latency.
        quantized: Layers with an integer scheme.
        unpriced: Layers in a scheme whose KL nobody has measured; their share is missing from `kl`.
    """

    size_bytes: int | None
    weight_bytes: int | None
    kl: float | None
    accuracy: Interval | None
    latency_ms: float | None
    quantized: int
    unpriced: int


def predict(
    layers: Sequence[LayerInfo],
    recipe: Recipe,
    *,
    costs: CostTable | None,
    sensitivity: Mapping[str, LayerSensitivity],
    curve: AccuracyCurve | None,
) -> Prediction:
    """The cost of a recipe from tables.

    Layer divergences add up (measured: joint / sum of KLs lies in 0.8 to 1.3 for random subsets of layers),
    so the KL of a recipe is the sum of its layers'.

    Args:
        layers: The model's layers.
        recipe: The recipe; patterns that ask for what a layer cannot have leave it FP32.
        costs: Bytes and times, or None before they are known.
        sensitivity: KL by layer and precision.
        curve: Accuracy against KL.
    """
    schemes = {layer.name: recipe.scheme_for(layer) for layer in layers}
    quantized = sum(not scheme.is_float for scheme in schemes.values())
    kl, unpriced = _total_kl(schemes, sensitivity)
    known = kl if sensitivity and unpriced == 0 else None
    weight_bytes = _weight_bytes(schemes, costs)
    return Prediction(
        size_bytes=None
        if weight_bytes is None or costs is None
        else weight_bytes + costs.structure_bytes + _overhead_bytes(schemes, costs),
        weight_bytes=weight_bytes,
        kl=known,
        accuracy=None if known is None or curve is None else accuracy_at(curve, known),
        latency_ms=_latency_ms(schemes, costs),
        quantized=quantized,
        unpriced=unpriced if sensitivity else quantized,
    )


def accuracy_at(curve: AccuracyCurve, kl: float) -> Interval:
    """Expected accuracy, 0 to 1, of a variant with that total KL; beyond the curve its last point."""
    x = np.asarray(curve.kl)

    def read(y: Sequence[float]) -> float:
        return float(np.interp(kl, x, np.asarray(y)))

    return Interval(read(curve.accuracy), read(curve.low), read(curve.high))


def layer_kl(scheme: LayerScheme, row: LayerSensitivity | None) -> float | None:
    """KL of one layer in a scheme; None if a part of it was never estimated."""
    if scheme.weights is Precision.FP32 and scheme.is_float:
        return 0.0
    if scheme.weights is Precision.FP16:
        return 0.0  # 11 significant bits: below what KL resolves in float32
    if row is None:
        return None
    total = 0.0
    if scheme.weights.is_integer:
        weights = row.by_precision.get(scheme.weights.value)
        if weights is None and "int8-activations" not in row.by_precision:
            return None
        # An activation x activation product has no weights: only its activations cost.
        total += weights or 0.0
    if not scheme.is_weight_only:
        activations = row.by_precision.get("int8-activations")
        if activations is None:
            return None
        total += activations
    return total


def _total_kl(
    schemes: Mapping[str, LayerScheme], sensitivity: Mapping[str, LayerSensitivity]
) -> tuple[float, int]:
    total, unpriced = 0.0, 0
    for name, scheme in schemes.items():
        kl = layer_kl(scheme, sensitivity.get(name))
        if kl is None:
            unpriced += 1
        else:
            total += kl
    return total, unpriced


def _weight_bytes(schemes: Mapping[str, LayerScheme], costs: CostTable | None) -> int | None:
    if costs is None:
        return None
    total = 0
    for name, scheme in schemes.items():
        row = costs.layers.get(name)
        if row is None:
            continue
        known = row.weight_bytes.get(scheme_name(scheme))
        if known is None:
            return None
        total += known
    return total


def _overhead_bytes(schemes: Mapping[str, LayerScheme], costs: CostTable) -> int:
    return sum(costs.overhead_bytes.get(scheme_name(scheme), 0) for scheme in schemes.values())


def _latency_ms(schemes: Mapping[str, LayerScheme], costs: CostTable | None) -> float | None:
    if costs is None or costs.fp32_ms <= 0:
        return None
    factor = 1.0
    for name, scheme in schemes.items():
        row = costs.layers.get(name)
        if row is None or scheme.is_float:
            continue
        ratio = row.time_ratio.get(scheme_name(scheme))
        if ratio is None:
            return None
        factor += row.time_share * (ratio - 1.0)
    return costs.fp32_ms * max(factor, 0.0)
