"""What `auto` tries for a network: recipes that differ from one another there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from quantstudio.core.aim import Aim
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import (
    DYNAMIC_INT8,
    FP32,
    STATIC_INT8,
    WEIGHT_INT4,
    WEIGHT_INT8,
    LayerScheme,
)
from quantstudio.core.preset_recipes import preset_recipe
from quantstudio.core.recipe import ActivationScope, LayerRule, Recipe, is_legal
from quantstudio.engine.graph.graph import Graph

# Convolutions with fewer channels than a vector register holds run slower on integers than in float.
MIN_CHANNELS = 16
# Share of the parameters a candidate must quantize to be worth trying beside static INT8.
MIN_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Candidate:
    """One recipe `auto` tries."""

    name: str
    recipe: Recipe


def auto_candidates(graph: Graph, kept: Recipe, aim: Aim) -> tuple[Candidate, ...]:
    """What `auto` tries for a graph: only what differs from the others there.

    Args:
        graph: The model.
        kept: Recipe of which steps, seed, range settings and target are taken over.
        aim: What is looked for; weights alone are tried from the start where the smallest file is.
    """
    layers = [layer for layer in graph.layers if layer.quantizable]
    static, dynamic = (_able(layers, scheme, kept) for scheme in (STATIC_INT8, DYNAMIC_INT8))
    candidates: list[Candidate] = []
    if static:
        candidates += _static(graph, static, kept)
    # Where next to all weights belong to convolutions it would be FP32 under another name.
    if dynamic and (not static or _parameters(dynamic) >= MIN_SHARE * _parameters(layers)):
        candidates.append(Candidate("dynamic", preset_recipe(DYNAMIC_INT8, layers, kept)))
    if dynamic and any(layer.op_type == "Conv" for layer in static):
        recipe = preset_recipe(STATIC_INT8, layers, kept)
        recipe = recipe.with_rule(LayerRule(DYNAMIC_INT8, op_types=("Gemm", "MatMul")))
        candidates.append(Candidate("static convolutions, dynamic products", recipe))
    if aim is Aim.SMALL:
        candidates.append(small_weights(graph, kept))
        if _able(layers, WEIGHT_INT4, kept):
            candidates.append(Candidate("weights as INT4", preset_recipe(WEIGHT_INT4, layers, kept)))
    return tuple(candidates)


def small_weights(graph: Graph, kept: Recipe) -> Candidate:
    """Weights alone stored as integers."""
    return Candidate("weights as INT8", preset_recipe(WEIGHT_INT8, graph.layers, kept))


def _static(graph: Graph, static: Sequence[LayerInfo], kept: Recipe) -> list[Candidate]:
    whole = preset_recipe(STATIC_INT8, graph.layers, kept)
    found = [
        Candidate("static", whole),
        Candidate("static on weighted layers", replace(whole, activation_scope=ActivationScope.WEIGHTED)),
    ]
    narrow = _narrow_convolutions(graph)
    if narrow and len(narrow) < len(static):
        found.append(Candidate("static, narrow convolutions float", whole.assign(narrow, FP32)))
    return found


def _able(layers: Sequence[LayerInfo], scheme: LayerScheme, kept: Recipe) -> list[LayerInfo]:
    return [layer for layer in layers if is_legal(layer, scheme, kept.on_target)]


def _parameters(layers: Sequence[LayerInfo]) -> int:
    return sum(layer.parameters for layer in layers)


def _narrow_convolutions(graph: Graph) -> list[str]:
    """Convolutions that read the model's input or have few channels."""
    inputs = {tensor.name for tensor in graph.summary.inputs}
    return [
        layer.name
        for layer in graph.layers
        if layer.op_type == "Conv"
        and "static-int8" in layer.schemes
        and (layer.weight_shape[0] < MIN_CHANNELS or inputs.intersection(layer.inputs))
    ]
