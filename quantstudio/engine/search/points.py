"""Plans as the results show them: predicted and measured figures side by side."""

from __future__ import annotations

from collections.abc import Mapping

from quantstudio.core.precision import LayerScheme
from quantstudio.core.predict.kl_model import KlModel, parts_array
from quantstudio.core.search_results import PlanFigures, PlanPoint
from quantstudio.engine.search.allocation import Quantity
from quantstudio.engine.search.workbench import Tried, Workbench


def tried_point(bench: Workbench, predictor: KlModel, one: Tried) -> PlanPoint:
    """A measured plan."""
    totals = bench.space.totals(one.schemes, predictor)
    judged = one.test or one.measurement
    measured = PlanFigures(
        kl=one.measurement.kl,
        metric=judged.metric.value if judged.metric else None,
        metric_low=judged.metric.low if judged.metric else None,
        metric_high=judged.metric.high if judged.metric else None,
        drop=judged.drop.value if judged.drop else None,
        size_bytes=one.size_bytes,
        weight_bytes=round(totals[Quantity.WEIGHT_BYTES]),
        average_bits=totals[Quantity.AVERAGE_BITS],
        latency_ms=one.latency_ms,
        latency_ratio=one.latency_ratio,
        samples=judged.samples,
    )
    predicted = _predicted(bench, predictor, one.schemes, totals)
    return PlanPoint(
        size_bytes=one.size_bytes,
        latency_ms=one.latency_ms if one.latency_ms is not None else predicted.latency_ms,
        metric=measured.metric if measured.metric is not None else predicted.metric,
        predicted=predicted,
        recipe=one.recipe,
        measured=measured,
        name=one.name,
    )


def front_point(bench: Workbench, predictor: KlModel, schemes: Mapping[str, LayerScheme]) -> PlanPoint:
    """A plan of the front, with what was measured of it if it was built."""
    recipe = bench.recipe(schemes)
    known = bench.tried.get(recipe.digest)
    if known is not None:
        return tried_point(bench, predictor, known)
    predicted = _predicted(bench, predictor, schemes, bench.space.totals(schemes, predictor))
    return PlanPoint(predicted.size_bytes, predicted.latency_ms, predicted.metric, predicted, recipe)


def _predicted(
    bench: Workbench,
    predictor: KlModel,
    schemes: Mapping[str, LayerScheme],
    totals: Mapping[Quantity, float],
) -> PlanFigures:
    parts = bench.parts(schemes)
    kl, law = predictor.kl(parts), bench.law()
    expected = law.interval(kl, predictor.deviation(parts_array(parts))) if law is not None else None
    costs = bench.space.costs
    timed = costs is not None and costs.fp32_ms > 0
    is_float = all(scheme.is_float for scheme in schemes.values())
    ratio = max(totals[Quantity.LATENCY_RATIO], 0.0) * (1.0 if is_float else bench.latency_factor())
    return PlanFigures(
        kl=kl,
        metric=expected.value if expected else None,
        metric_low=expected.low if expected else None,
        metric_high=expected.high if expected else None,
        drop=100 * law.drop(kl) if law is not None else None,
        size_bytes=round(totals[Quantity.FILE_BYTES]),
        weight_bytes=round(totals[Quantity.WEIGHT_BYTES]),
        average_bits=totals[Quantity.AVERAGE_BITS],
        latency_ms=costs.fp32_ms * ratio if costs is not None and timed else None,
        latency_ratio=ratio if timed else None,
    )
