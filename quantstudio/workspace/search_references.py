"""What single-precision plans cost, measured or predicted: the ends of a budget, and what it would leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from quantstudio.core import figures
from quantstudio.core.packing import plan_bits, searched
from quantstudio.core.precision import (
    DYNAMIC_INT8,
    FP32,
    STATIC_INT8,
    WEIGHT_INT4,
    WEIGHT_INT8,
    LayerScheme,
    Precision,
    WeightFormat,
)
from quantstudio.core.predict.table import Prediction
from quantstudio.core.recipe import ActivationScope, LayerRule, Recipe, is_legal
from quantstudio.core.search_results import ActivationFamily, PlanFigures, Recover, SearchBudget
from quantstudio.workspace.known import Known
from quantstudio.workspace.recipe_edits import default_recipe

# Ternary and binary are no lines of their own, as a search leaves them out: a codebook of as many bits has
# free levels where theirs are fixed, in a file as large, and runs alike.
REFERENCES = (
    Precision.FP32,
    Precision.INT8,
    Precision.INT4,
    Precision.CODEBOOK3,
    Precision.CODEBOOK2,
    Precision.INT2,
)
FAMILY_TEXTS = {
    ActivationFamily.AUTO: "Best for this model",
    ActivationFamily.STATIC: "INT8, calibrated",
    ActivationFamily.WEIGHTED: "INT8 around weights only",
    ActivationFamily.DYNAMIC: "INT8, ranges at run time",
    ActivationFamily.WEIGHT_ONLY: "Float, weights only",
}


@dataclass(frozen=True, slots=True)
class Reference:
    """One plan with one precision everywhere; None where the table that says it is not there yet.

    Attributes:
        precision: Of the weights.
        size_bytes: File.
        average_bits: Mean bits per weight.
        share_above_8: Part of the layers above 8 bits.
        drop: Points lost.
        latency_ratio: Time over FP32 time.
        is_measured: Whether a search measured the drop; else it is predicted.
        is_recovered: Whether a search recovers it first: how much that wins back is not predicted.
    """

    precision: WeightFormat
    size_bytes: int | None
    average_bits: float
    share_above_8: float
    drop: float | None
    latency_ratio: float | None
    is_measured: bool = False
    is_recovered: bool = False

    @property
    def name(self) -> str:
        """As a search calls it: "INT8 everywhere"."""
        word = self.precision.label
        return word if self.precision == Precision.FP32 else f"{word} everywhere"

    @property
    def text(self) -> str:
        """Bytes of the file and points, "312 kB, −0.1 pp", as far as they are known."""
        parts = [] if self.size_bytes is None else [figures.size(self.size_bytes)]
        if self.drop is not None:
            parts.append(figures.points(-self.drop, 1))
        return ", ".join(parts) or figures.NOTHING


def references(
    known: Known, family: ActivationFamily, recover: Recover = Recover.NONE
) -> tuple[Reference, ...]:
    """The plans of `REFERENCES`, each everywhere; empty without a model.

    Args:
        known: What is known of the model.
        family: Activations in the plans.
        recover: What the search does to plans below 8 bits before it measures them. What they lose as they
            are rounded would contradict it, so it is not said of plans that are recovered.
    """
    if known.model is None:
        return ()
    return tuple(_recovered(_reference(known, precision, family), recover) for precision in REFERENCES)


def _recovered(one: Reference, recover: Recover) -> Reference:
    if recover is Recover.NONE or one.precision.bits >= Precision.INT8.bits:
        return one
    return replace(one, drop=one.drop if one.is_measured else None, is_recovered=True)


def broken_bounds(reference: Reference, budget: SearchBudget) -> tuple[str, ...]:
    """Words for the bounds a plan is predicted to break."""
    return tuple(
        words for value, bound, words in _bounded(reference, budget) if value is not None and value > bound
    )


def is_foreseen(reference: Reference, budget: SearchBudget) -> bool:
    """Whether everything that is bounded can be predicted."""
    return all(value is not None for value, _, _ in _bounded(reference, budget))


def _bounded(reference: Reference, budget: SearchBudget) -> list[tuple[float | None, float, str]]:
    checks: Sequence[tuple[float | None, float | None, str]] = (
        (reference.drop, budget.max_drop, "loses too much"),
        (reference.size_bytes, budget.max_size_bytes, "file too large"),
        (reference.latency_ratio, budget.max_latency_ratio, "too slow"),
        (reference.average_bits, budget.average_bits, "too many bits"),
        (reference.share_above_8, budget.max_share_above_8, "too many above 8 bits"),
    )
    return [(value, bound, words) for value, bound, words in checks if bound is not None]


def _reference(known: Known, precision: WeightFormat, family: ActivationFamily) -> Reference:
    recipe = _recipe(known, precision, family)
    bits = plan_bits(known.layers, recipe.schemes(known.layers))
    prediction = known.predicted(recipe)
    is_base = precision == Precision.FP32
    found = Reference(
        precision,
        _file_bytes(known, prediction, is_base=is_base),
        bits.average,
        bits.share_above_8,
        0.0 if is_base else _drop(known, prediction),
        1.0 if is_base else _ratio(known, prediction),
    )
    measured = None if is_base else _measured(known, found.name, family)
    if measured is None or measured.drop is None:
        return found
    ratio = measured.latency_ratio
    return replace(
        found,
        drop=measured.drop,
        latency_ratio=found.latency_ratio if ratio is None else ratio,
        is_measured=True,
    )


def _measured(known: Known, name: str, family: ActivationFamily) -> PlanFigures | None:
    """What the last search measured of a single precision: its own list shows that figure under that name."""
    result = known.search_result
    if result is None or family not in (ActivationFamily.AUTO, result.family):
        return None
    return next((one.measured for one in result.tried if one.name == name), None)


def _recipe(known: Known, precision: WeightFormat, family: ActivationFamily) -> Recipe:
    """As a search builds it: with steps, range settings and target of the plan that is edited."""
    kept = known.recipe.bare
    if precision == Precision.FP32:
        return kept
    eight = _eight_bits(known, family)
    scope = ActivationScope.WEIGHTED if family is ActivationFamily.WEIGHTED else ActivationScope.ALL
    start = replace(kept, rules=(LayerRule(eight),), activation_scope=scope)
    # What has no such form keeps float activations, as in a search.
    others = [layer for layer in searched(known.layers) if start.scheme_for(layer) == FP32]
    able = [one.name for one in others if is_legal(one, WEIGHT_INT8, kept.on_target)]
    start = start.assign(able, WEIGHT_INT8)
    if precision == Precision.INT8:
        return start
    fewer = WEIGHT_INT4 if (eight, precision) == (WEIGHT_INT8, Precision.INT4) else None
    names = [layer.name for layer in searched(known.layers) if start.scheme_for(layer) == eight]
    return start.assign(names, fewer or LayerScheme(precision, eight.activations))


def _eight_bits(known: Known, family: ActivationFamily) -> LayerScheme:
    match family:
        case ActivationFamily.DYNAMIC:
            return DYNAMIC_INT8
        case ActivationFamily.WEIGHT_ONLY:
            return WEIGHT_INT8
        case ActivationFamily.AUTO:
            return default_recipe(known.layers).rules[0].scheme
        case _:
            return STATIC_INT8


def _file_bytes(known: Known, prediction: Prediction | None, *, is_base: bool) -> int | None:
    if is_base:
        return known.model.file_bytes if known.model is not None else None
    return prediction.size_bytes if prediction is not None else None


def _drop(known: Known, prediction: Prediction | None) -> float | None:
    base = known.predicted(known.recipe.bare)
    if prediction is None or base is None or base.accuracy is None or prediction.unpriced:
        return None
    # Where only a bound is known, that much is lost at least.
    kept = prediction.accuracy.value if prediction.accuracy is not None else prediction.accuracy_at_most
    return None if kept is None else max(0.0, 100 * (base.accuracy.value - kept))


def _ratio(known: Known, prediction: Prediction | None) -> float | None:
    if prediction is None or prediction.latency_ms is None or not prediction.fp32_ms:
        return None
    return prediction.latency_ms / prediction.fp32_ms
