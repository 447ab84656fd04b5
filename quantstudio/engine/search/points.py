"""Plans as the results show them: predicted and measured figures side by side."""

from __future__ import annotations

from collections.abc import Mapping

from quantstudio.core.packing import plan_bits
from quantstudio.core.precision import LayerScheme
from quantstudio.core.predict.kl_model import KlModel
from quantstudio.core.predict.model import PredictionModel
from quantstudio.core.predict.plans import plan_point, predicted_figures
from quantstudio.core.search_results import PlanFigures, PlanPoint
from quantstudio.engine.search.allocation import Quantity
from quantstudio.engine.search.request import Tried
from quantstudio.engine.search.workbench import Workbench


def tried_point(bench: Workbench, model: PredictionModel, one: Tried) -> PlanPoint:
    """A measured plan."""
    judged = one.test or one.measurement
    worst = (one.test or one.by_class or one.measurement).worst
    measured = PlanFigures(
        kl=one.measurement.kl,
        metric=judged.metric.value if judged.metric else None,
        metric_low=judged.metric.low if judged.metric else None,
        metric_high=judged.metric.high if judged.metric else None,
        drop=judged.drop.value if judged.drop else None,
        size_bytes=one.size_bytes,
        average_bits=plan_bits(bench.graph.layers, one.schemes).average,
        latency_ms=one.latency_ms,
        latency_ratio=one.latency_ratio,
        samples=judged.samples,
        worst_class=worst.name if worst else "",
        worst_class_drop=worst.drop.value if worst else None,
        worst_class_samples=worst.samples if worst else 0,
    )
    predicted = predicted_figures(bench.table, one.plan, model, size_bytes=one.size_bytes)
    return plan_point(one.recipe, predicted, measured, one.name)


def front_point(bench: Workbench, model: PredictionModel, schemes: Mapping[str, LayerScheme]) -> PlanPoint:
    """A plan of the front, with what was measured of it if it was built."""
    recipe = bench.recipe(schemes)
    known = bench.tried.get(recipe.digest)
    if known is not None:
        return tried_point(bench, model, known)
    size_bytes = round(bench.space.totals(schemes, KlModel())[Quantity.FILE_BYTES])
    return plan_point(
        recipe, predicted_figures(bench.table, bench.plan_of(recipe), model, size_bytes=size_bytes)
    )
