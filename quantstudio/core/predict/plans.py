"""Plans of a search in the words of the one prediction: what the search, the window and the report show."""

from __future__ import annotations

from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.packing import plan_bits
from quantstudio.core.predict.model import PredictionModel
from quantstudio.core.predict.table import PredictionTable
from quantstudio.core.recipe import Recipe
from quantstudio.core.search_results import PlanFigures, PlanPoint


def predicted_figures(
    table: PredictionTable, plan: EffectivePlan, model: PredictionModel, *, size_bytes: int | None = None
) -> PlanFigures:
    """What a plan is predicted to cost.

    Args:
        table: Tables of the network.
        plan: The plan.
        model: What measured plans taught.
        size_bytes: Bytes of its file, for tables without costs.
    """
    found = table.predict(plan, model)
    accuracy, most = found.accuracy, found.accuracy_at_most
    timed = found.latency_ms is not None and table.fp32_ms > 0
    return PlanFigures(
        kl=table.known_kl(plan, model) if found.kl is None else found.kl,
        metric=accuracy.value if accuracy else None,
        metric_low=accuracy.low if accuracy else None,
        metric_high=accuracy.high if accuracy else None,
        drop=100 * (model.law.base - accuracy.value) if accuracy and model.law else None,
        size_bytes=size_bytes if found.size_bytes is None else found.size_bytes,
        average_bits=plan_bits(table.layers, plan.schemes).average,
        latency_ms=found.latency_ms,
        latency_ratio=(found.latency_ms or 0.0) / table.measured_fp32_ms(model) if timed else None,
        left_out=found.left_out,
        drop_over=100 * (model.law.base - most) if most is not None and model.law else None,
    )


def plan_point(
    recipe: Recipe, predicted: PlanFigures, measured: PlanFigures | None = None, name: str = ""
) -> PlanPoint:
    """A plan with what is predicted of it, and what was measured where that is known."""
    known = measured or predicted
    return PlanPoint(
        size_bytes=known.size_bytes,
        latency_ms=predicted.latency_ms if known.latency_ms is None else known.latency_ms,
        metric=predicted.metric if known.metric is None else known.metric,
        predicted=predicted,
        recipe=recipe,
        measured=measured,
        name=name,
    )


def predicted_anew(
    point: PlanPoint, plan: EffectivePlan, table: PredictionTable, model: PredictionModel
) -> PlanPoint:
    """A plan of a search as what is known now predicts it."""
    size_bytes = point.predicted.size_bytes
    predicted = predicted_figures(table, plan, model, size_bytes=size_bytes)
    return plan_point(point.recipe, predicted, point.measured, point.name)
