"""Predicted against measured, each plan left out of what it is predicted from."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from quantstudio.core.costs import CostTable, LayerCost
from quantstudio.core.effective_plan import resolve
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import STATIC_INT8
from quantstudio.core.predict.check import Figure, PredictionPoint, Trust, prediction_points, trust
from quantstudio.core.predict.kl_model import ACTIVATIONS
from quantstudio.core.predict.model import Judged, MeasuredPlan, judged_base, measured_plan, searched_plan
from quantstudio.core.predict.table import PredictionTable, fit_prediction
from quantstudio.core.recipe import Recipe, uniform_recipe
from quantstudio.core.results import (
    AccuracyCurve,
    Agreement,
    ClassAccuracy,
    Interval,
    LatencyResult,
    LayerSensitivity,
    VariantResult,
)
from quantstudio.core.search_results import PlanFigures, PlanPoint

SCHEMES = ("fp32", "static-int8")
LAYERS = tuple(LayerInfo(f"l{i}", "Conv", schemes=SCHEMES) for i in range(6))
ROWS = {
    layer.name: LayerSensitivity(
        layer.name,
        0.001 * (i + 1),
        0,
        1,
        20.0,
        by_precision={"int8": 0.001 * (i + 1), ACTIVATIONS: 0.001},
        by_class=(0.0005 * (i + 1), 0.0015 * (i + 1)),
    )
    for i, layer in enumerate(LAYERS)
}
CURVE = AccuracyCurve(
    (0.0, 0.01, 1.0),
    (0.9, 0.89, 0.7),
    (0.9, 0.8, 0.6),
    (0.9, 0.9, 0.8),
    True,
    (0.0, 0.02, 0.2),
    (0.9, 0.9),
    500,
)
COSTS = CostTable(
    {layer.name: LayerCost({"fp32": 40, "static-int8": 10}, 1 / 6, {"static-int8": 0.5}) for layer in LAYERS},
    structure_bytes=5,
    fp32_ms=2.0,
)
TABLE = PredictionTable(LAYERS, costs=COSTS, sensitivity=ROWS, curve=CURVE, classes=("cat", "dog"))
JUDGED = Judged(0.9, 1000, classes={"cat": (0.9, 500), "dog": (0.9, 500)})


def plan_of(recipe):
    return resolve(recipe, LAYERS)


PLAN = plan_of(Recipe())


def plans():
    found = []
    for count in range(1, 7):
        recipe = Recipe().assign([layer.name for layer in LAYERS[:count]], STATIC_INT8)
        linear = sum(0.001 * (i + 2) for i in range(count))
        changed = 0.2 * math.sqrt(linear)
        found.append(
            MeasuredPlan(
                f"first {count}",
                plan_of(recipe),
                1000,
                kl=linear,
                changed=changed,
                accuracy=0.9 - 0.25 * changed,
                base=0.9,
                classes=(
                    ClassAccuracy("cat", 500, 0.9, 0.9, 0.8, 1.0),
                    ClassAccuracy("dog", 500, 0.9, 0.9 - 0.5 * changed, 0.8, 1.0),
                ),
                size_bytes=240 - 30 * count + 5,
                latency_ratio=1 - count / 12,
            )
        )
    return found


@pytest.mark.parametrize("figure", [Figure.KL, Figure.ACCURACY, Figure.WORST_CLASS, Figure.LATENCY])
def test_that_plans_that_follow_the_law_lie_inside(figure):
    points = prediction_points(TABLE, plans(), JUDGED, figure)
    assert [point.name for point in points] == [f"first {n}" for n in range(1, 7)]
    assert all(point.is_inside for point in points)
    assert all(point.low <= point.predicted <= point.high for point in points)


def test_that_sizes_are_exact():
    points = prediction_points(TABLE, plans(), JUDGED, Figure.SIZE)
    assert [point.predicted for point in points] == [point.measured for point in points]
    assert prediction_points(TABLE, plans(), JUDGED, Figure.MEMORY) == ()


def test_that_a_plan_is_predicted_without_itself():
    known = plans()
    wild = MeasuredPlan("wild", known[2].plan, 1000, kl=100 * (known[2].kl or 0), accuracy=0.2, base=0.9)
    points = prediction_points(TABLE, [*known, wild], JUDGED)
    assert not points[-1].is_inside
    assert points[-1].predicted == pytest.approx(
        prediction_points(TABLE, [*known, wild], JUDGED)[-1].predicted
    )
    apart = TABLE.predict(wild.plan).accuracy
    assert apart is not None
    assert points[-1].predicted > 0.8


def test_that_trust_counts_what_the_intervals_held():
    points = [PredictionPoint("a", 0.9, 0.8, 1.0, 0.85), PredictionPoint("b", 0.9, 0.88, 0.92, 0.8)]
    found = trust(points)
    assert (found.plans, found.inside, found.rate) == (2, 1, 0.9)
    assert found.error == pytest.approx(0.075)
    assert trust([]) == Trust(0, 0, 0.9, 0.0)


def result(**changes):
    values: dict[str, Any] = {
        "path": "a.onnx", "name": "a", "size_bytes": 100, "metrics": {"top1": 0.88}, "drop": None,
        "drop_method": "", "p_value": None, "per_class": (), "segments": (),
        "agreement": Agreement(0.95, 0.02, 20.0),
        "latency_ms": LatencyResult(1.5, 2, 2, 1.5, 600, 1, 1, 50, "cpu"), "speedup": Interval(2.0, 1.9, 2.1),
        "peak_memory_bytes": 70, "footprint": None, "provider": "CPUExecutionProvider", "samples": 1000,
    }  # fmt: skip
    return VariantResult(**(values | changes))


def test_that_a_measured_variant_becomes_evidence():
    base = result(metrics={"top1": 0.9}, per_class=(ClassAccuracy("cat", 500, 0.91, 0.91, 0.9, 0.92),))
    plan = measured_plan("a", PLAN, result(), base)
    assert (plan.kl, plan.accuracy, plan.base, plan.samples) == (0.02, 0.88, 0.9, 1000)
    assert plan.changed == pytest.approx(0.05)
    assert (plan.latency_ratio, plan.memory_bytes) == (0.5, 70)
    judged = judged_base(base)
    assert judged == Judged(0.9, 1000, True, {"cat": (0.91, 500)}, 70, 1.5)


def test_that_without_labels_agreement_is_the_figure():
    base = result(metrics={}, agreement=None)
    plan = measured_plan("a", PLAN, result(metrics={}, speedup=None, peak_memory_bytes=0), base)
    assert (plan.accuracy, plan.base, plan.latency_ratio, plan.memory_bytes) == (0.95, 1.0, None, None)
    assert not judged_base(base).labelled
    assert measured_plan("a", PLAN, result(metrics={}, agreement=None), base).accuracy is None


def test_that_a_ruined_variant_without_a_kl_is_left_out():
    ruined = MeasuredPlan(
        "nan", plan_of(Recipe().assign(["l0"], STATIC_INT8)), 1000, kl=math.nan, accuracy=None
    )
    assert prediction_points(TABLE, [ruined], JUDGED) == ()
    assert prediction_points(TABLE, [ruined], JUDGED, Figure.KL) == ()
    assert np.isfinite(prediction_points(TABLE, [*plans(), ruined], JUDGED)[0].predicted)


def searched(**changes):
    values: dict[str, Any] = {
        "kl": 0.6, "metric": 0.5, "metric_low": 0.4, "metric_high": 0.6, "drop": 40.0, "size_bytes": 90,
        "average_bits": 2.5, "latency_ms": 1.0, "latency_ratio": 0.4, "samples": 512,
    }  # fmt: skip
    figures = PlanFigures(**(values | changes))
    return PlanPoint(90, 1.0, figures.metric, figures, Recipe(), measured=figures)


def test_that_a_plan_a_search_measured_becomes_evidence():
    plan = searched_plan(searched(), PLAN, labelled=True)
    assert plan is not None
    assert (plan.name, plan.kl, plan.accuracy, plan.samples) == ("2.5 bits", 0.6, 0.5, 512)
    assert plan.base == pytest.approx(0.9)
    assert (plan.changed, plan.latency_ratio) == (None, None)
    alike = searched_plan(searched(drop=None), PLAN, labelled=False)
    assert alike is not None
    assert (alike.changed, alike.base) == (0.5, 1.0)
    assert searched_plan(replace(searched(), measured=None), PLAN, labelled=True) is None


def test_that_plans_of_a_search_move_the_prediction():
    ruined = plan_of(uniform_recipe("static-int8"))
    before = TABLE.predict(ruined, fit_prediction(TABLE, [], JUDGED)).accuracy
    plan = searched_plan(searched(), ruined, labelled=True)
    assert plan is not None
    after = TABLE.predict(ruined, fit_prediction(TABLE, [plan], JUDGED)).accuracy
    assert before is not None
    assert after is not None
    assert before.value > 0.85
    assert after.value < before.value - 0.02
