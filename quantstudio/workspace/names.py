"""What variants and steps are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import FP32
from quantstudio.core.recipe import CalibrationSettings, RangeMethod, Recipe, is_legal
from quantstudio.core.steps import StepInfo

BETWEEN = " · "
GROUPS_NAMED = 3  # more kinds of precision than that make no name any more
UNCHANGED = "FP32 rebuilt"
_METHODS = {
    RangeMethod.MINMAX: "min–max",
    RangeMethod.PERCENTILE: "percentile",
    RangeMethod.MSE: "MSE",
    RangeMethod.ENTROPY: "entropy",
}


def variant_name(recipe: Recipe, layers: Sequence[LayerInfo], taken: Collection[str] = ()) -> str:
    """Precision of most layers, then what differs: "INT8", "INT8 · 3 W4A8", "INT8 · 2 clipped · equalize".

    Layers left in FP32 because they cannot have that precision do not count. A name in `taken` gets a number.
    """
    chosen = {layer: recipe.scheme_for(layer) for layer in layers if layer.schemes}
    integer = Counter(s for s in chosen.values() if not s.is_float).most_common(1)
    schemes = [
        scheme
        for layer, scheme in chosen.items()
        if not (integer and scheme == FP32 and not is_legal(layer, integer[0][0], recipe.on_target))
    ]
    groups = Counter(scheme.label for scheme in schemes).most_common()
    parts = [label if i == 0 else f"{number} {label}" for i, (label, number) in enumerate(groups)]
    if len(parts) > GROUPS_NAMED:
        rest = sum(number for _, number in groups[GROUPS_NAMED:])
        parts = [*parts[:GROUPS_NAMED], f"{rest} others"]
    if all(scheme.is_float for scheme in schemes) and len(parts) <= 1 and parts != ["FP16"]:
        parts = [UNCHANGED]
    if (
        any(scheme.is_static for scheme in schemes)
        and recipe.calibration.method != CalibrationSettings().method
    ):
        parts.append(_METHODS[recipe.calibration.method])
    clipped = len(recipe.weight_ranges) + len(recipe.activation_ranges)
    if clipped:
        parts.append(f"{clipped} clipped")
    parts += [step.name for step in recipe.steps if step.is_on]
    name = BETWEEN.join(parts)
    if name not in taken:
        return name
    return next(free for i in range(2, len(taken) + 3) if (free := f"{name} #{i}") not in taken)


def step_labels(names: Sequence[str], known: Sequence[StepInfo]) -> tuple[str, ...]:
    """Steps as menus call them; by their names where nothing is known of them."""
    labels = {info.name: info.label for info in known}
    return tuple(labels.get(name, name) for name in names)
