"""The recipe behind a preset of one precision: every layer in the best form it can have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import ActivationPrecision, LayerScheme, Precision, scheme_of
from quantstudio.core.recipe import EMISSION, LayerRule, Recipe, is_legal
from quantstudio.core.target import Target


def preset_recipe(scheme: LayerScheme, layers: Iterable[LayerInfo], start: Recipe | None = None) -> Recipe:
    """Every layer in a scheme, and layers with weights that cannot have it in the next best they can have.

    An embedding or a recurrent layer has no static form, and would stay float beside integers: it gets ranges
    at run time where a kernel takes those, else its weights alone are stored as integers. Where no layer can
    have the scheme itself nothing takes its place, and a build refuses it.

    Args:
        scheme: What is asked of every layer.
        layers: Of the model the recipe is for.
        start: Recipe of which everything but the rules and the form of the file is kept.
    """
    start = start or Recipe()
    made = replace(start, rules=(LayerRule(scheme),), emission=EMISSION)
    listed, target = list(layers), start.on_target
    if scheme.is_float or not any(is_legal(layer, scheme, target) for layer in listed):
        return made
    own = {layer.name: best_form(layer, scheme, target) for layer in listed if layer.weight_name}
    for op_type, members in _by_op_type(listed).items():
        forms = list(dict.fromkeys(own.get(layer.name, scheme) for layer in members))
        if len(forms) == 1 and forms[0] != scheme:
            made = made.with_rule(LayerRule(forms[0], op_types=(op_type,)))
            continue
        for form in (one for one in forms if one != scheme):
            made = made.assign([layer.name for layer in members if own.get(layer.name) == form], form)
    return made


def best_form(layer: LayerInfo, scheme: LayerScheme, target: Target) -> LayerScheme:
    """The scheme itself where a layer can have it, else the next best; the scheme where it can have none."""
    return next((one for one in _forms(scheme) if is_legal(layer, one, target)), scheme)


def _forms(scheme: LayerScheme) -> Sequence[LayerScheme]:
    """The scheme and what stands in for it, best first: integers that are multiplied, then stored ones."""
    if scheme.is_float:
        return (scheme,)
    forms = [scheme]
    if scheme.is_static:
        forms.append(scheme_of(scheme.weights, ActivationPrecision.INT8_DYNAMIC))
    stored = scheme_of(scheme.weights, ActivationPrecision.FP32)
    return (*forms, stored, scheme_of(Precision.INT8, ActivationPrecision.FP32))


def _by_op_type(layers: Iterable[LayerInfo]) -> dict[str, list[LayerInfo]]:
    found: dict[str, list[LayerInfo]] = defaultdict(list)
    for layer in layers:
        if layer.quantizable:
            found[layer.op_type].append(layer)
    return found
