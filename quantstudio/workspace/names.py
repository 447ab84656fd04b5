"""What variants and steps are called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from quantstudio.core.effective_plan import LayerList
from quantstudio.core.layer_schemes import LayerSchemes
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import FP32, LayerScheme
from quantstudio.core.recipe import CalibrationSettings, RangeMethod, Recipe, is_legal
from quantstudio.core.schemes import scheme_labels
from quantstudio.core.steps import StepInfo

BETWEEN = " · "
GROUPS_NAMED = 3  # more kinds of precision than that make no name any more
UNCHANGED = "FP32 rebuilt"
_MIXED = " mixed"
# A name that says a precision, perhaps of a copy: "INT8", "INT8 mixed 2", "W4A8 copy".
_CLAIM = re.compile(r"(?P<label>.+?)(?P<mixed> mixed)?(?: copy)?(?: \d+)?")
_METHODS = {
    RangeMethod.MINMAX: "min–max",
    RangeMethod.PERCENTILE: "percentile",
    RangeMethod.MSE: "MSE",
    RangeMethod.ENTROPY: "entropy",
}


def variant_name(plan: str, taken: Collection[str] = ()) -> str:
    """The name of the plan it was built from; from the second build on with a number: "INT8 #2"."""
    if plan not in taken:
        return plan
    return next(free for i in range(2, len(taken) + 3) if (free := f"{plan} #{i}") not in taken)


def contents_text(recipe: Recipe, layers: Iterable[LayerInfo]) -> str:
    """What a recipe gives, beside the name: "INT8", "INT8 · 3 W4A8", "INT8 · 2 clipped · equalize".

    The precision of most layers, then what differs. Layers left in FP32 because they cannot have that
    precision do not count.
    """
    chosen = _chosen(recipe, layers)
    groups = _labels(chosen).most_common()
    parts = [label if i == 0 else f"{number} {label}" for i, (label, number) in enumerate(groups)]
    if len(parts) > GROUPS_NAMED:
        rest = sum(number for _, number in groups[GROUPS_NAMED:])
        parts = [*parts[:GROUPS_NAMED], f"{rest} others"]
    if all(scheme.is_float for scheme, _ in chosen) and len(parts) <= 1 and parts != ["FP16"]:
        parts = [UNCHANGED]
    if (
        any(scheme.is_static for scheme, _ in chosen)
        and recipe.calibration.method != CalibrationSettings().method
    ):
        parts.append(_METHODS[recipe.calibration.method])
    clipped = len(recipe.weight_ranges) + len(recipe.activation_ranges)
    if clipped:
        parts.append(f"{clipped} clipped")
    parts += [step.name for step in recipe.steps if step.is_on]
    return BETWEEN.join(parts)


def content_name(
    recipe: Recipe, layers: Iterable[LayerInfo], asked: Mapping[str, LayerScheme] | None = None
) -> str:
    """What a plan is called that nobody named: "INT8", or "INT8 mixed" where layers differ.

    Args:
        recipe: What it holds.
        layers: Of the model.
        asked: What the recipe asks for every layer, where that was worked out already.
    """
    groups = _labels(_chosen(recipe, layers, asked)).most_common()
    if not groups:
        return FP32.label
    return groups[0][0] if len(groups) == 1 else f"{groups[0][0]}{_MIXED}"


def following_name(
    name: str,
    recipe: Recipe,
    layers: Iterable[LayerInfo],
    taken: Collection[str] = (),
    asked: Mapping[str, LayerScheme] | None = None,
) -> str:
    """The name of a plan whose recipe is now this one: a name that says a precision says the one there is.

    Args:
        name: Of the plan; one that a person made up stays.
        recipe: What it holds now.
        layers: Of the model; a `LayerList` where many recipes are named for them.
        taken: Names of the other plans.
        asked: What the recipe asks for every layer, where that was worked out already.
    """
    found = _CLAIM.fullmatch(name)
    if found is None or found["label"] not in scheme_labels():
        return name
    listed = LayerList.of(layers)
    honest = content_name(recipe, listed, asked)
    if not listed.layers or honest == found["label"] + (found["mixed"] or ""):
        return name
    if honest not in taken:
        return honest
    return next(free for i in range(2, len(taken) + 3) if (free := f"{honest} {i}") not in taken)


def file_name(plan: str) -> str:
    """A plan's name as part of that of a file: "int8-mixed"."""
    return re.sub(r"[^a-z0-9.]+", "-", plan.lower()).strip("-.") or "quantized"


def base_name(layers: Sequence[LayerInfo]) -> str:
    """What the model as it was opened is called: "FP32", or what its file holds: "INT8 stored"."""
    stored = Counter(layer.stored_as for layer in layers if layer.stored_as)
    if not stored:
        return FP32.label
    floats = sum(bool(layer.weight_name) and not layer.stored_as for layer in layers)
    label = " and ".join(name for name, _ in stored.most_common())
    label = label if " " in next(iter(stored)) else f"{label} stored"
    return f"{label}, {floats} {FP32.label}" if floats else label


def _labels(chosen: Sequence[tuple[LayerScheme, int]]) -> Counter[str]:
    """How many layers a label stands for."""
    found = Counter[str]()
    for scheme, number in chosen:
        found[scheme.label] += number
    return found


def _chosen(
    recipe: Recipe, layers: Iterable[LayerInfo], asked: Mapping[str, LayerScheme] | None = None
) -> list[tuple[LayerScheme, int]]:
    """What layers get, and how many of them, in their order; names are made on every edit."""
    listed, target = LayerList.of(layers), recipe.on_target
    if asked is None:
        asked = recipe.asked_schemes(listed.layers)
    # Hundreds of layers are a handful of kinds, which ask for a handful of schemes.
    groups = listed.groups(LayerSchemes.of(asked))
    able = {kind: layer for kind, layer in listed.examples.items() if layer.schemes}
    chosen = [
        (layer, scheme if is_legal(layer, scheme, target) else FP32, number)
        for kind, scheme, number in groups
        if (layer := able.get(kind)) is not None
    ]
    integers = Counter[int]()
    for _, scheme, number in chosen:
        if not scheme.is_float:
            integers[id(scheme)] += number
    if not integers:
        return [(scheme, number) for _, scheme, number in chosen]
    most = integers.most_common(1)[0][0]
    usual = next(scheme for _, scheme, _ in chosen if id(scheme) == most)
    return [
        (scheme, number)
        for layer, scheme, number in chosen
        if scheme != FP32 or is_legal(layer, usual, target)
    ]


def step_labels(names: Sequence[str], known: Sequence[StepInfo]) -> tuple[str, ...]:
    """Steps as menus call them; by their names where nothing is known of them."""
    labels = {info.name: info.label for info in known}
    return tuple(labels.get(name, name) for name in names)
