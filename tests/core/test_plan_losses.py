"""What every layer takes of the loss of a plan adds up to the loss, and red is what breaks the budget."""

from dataclasses import replace

import pytest

from quantstudio.core.effective_plan import resolve
from quantstudio.core.precision import FP32, STATIC_INT4
from quantstudio.core.predict.losses import PlanLosses, plan_losses
from quantstudio.core.predict.model import Judged, MeasuredPlan
from quantstudio.core.predict.table import PredictionTable, fit_prediction
from quantstudio.core.recipe import Recipe, uniform_recipe
from tests.benchmarks.what_if import curve, layer, sensitivity

LAYERS = tuple(layer(index) for index in range(14))
JUDGED = Judged(0.92, 10_000)


def table(times=1.0):
    rows = {
        name: replace(row, by_precision={key: times * kl for key, kl in row.by_precision.items()})
        for name, row in sensitivity(LAYERS).items()
    }
    return PredictionTable(LAYERS, sensitivity=rows, curve=curve())


def test_that_the_parts_add_up_to_what_the_plan_is_predicted_to_lose():
    known = table()
    model = fit_prediction(known, (), JUDGED)
    for recipe in (uniform_recipe("static-int8"), uniform_recipe(STATIC_INT4)):
        plan = resolve(recipe, LAYERS)
        found = plan_losses(known, plan, model, 0.5)
        accuracy = known.predict(plan, model).accuracy
        assert found is not None
        assert accuracy is not None
        assert found.total == pytest.approx(100 * (0.92 - accuracy.value))
        assert sum(found.points(one.name) for one in LAYERS) == pytest.approx(found.total)


def test_that_nothing_breaks_a_budget_that_is_kept():
    known = table()
    model = fit_prediction(known, (), JUDGED)
    found = plan_losses(known, resolve(uniform_recipe("static-int8"), LAYERS), model, 0.5)
    assert found is not None
    assert found.total < 0.5
    assert not found.breaking
    assert max(found.level(one.name) for one in LAYERS) == 1


def test_that_without_what_breaks_the_budget_the_plan_keeps_it():
    known = table(times=4)
    model = fit_prediction(known, (), JUDGED)
    recipe = uniform_recipe(STATIC_INT4)
    found = plan_losses(known, resolve(recipe, LAYERS), model, 0.5)
    assert found is not None
    assert found.total > 0.5
    assert 0 < len(found.breaking) < len(LAYERS)
    order = sorted(found.breaking, key=lambda name: -found.shares[name])
    spared = plan_losses(known, resolve(recipe.assign(order, FP32), LAYERS), model, 0.5)
    assert spared is not None
    assert spared.total <= 0.5
    assert not spared.breaking
    fewer = plan_losses(known, resolve(recipe.assign(order[:-1], FP32), LAYERS), model, 0.5)
    assert fewer is not None
    assert fewer.total > 0.5


def test_that_a_measured_plan_marks_by_what_was_measured():
    known, plan = table(times=4), resolve(uniform_recipe(STATIC_INT4), LAYERS)
    measured = MeasuredPlan("p", plan, 10_000, kl=0.002, changed=0.01, accuracy=0.9191, base=0.92)
    found = plan_losses(known, plan, fit_prediction(known, [measured], JUDGED), 0.5)
    assert found is not None
    assert found.total == pytest.approx(0.09, abs=0.01)
    assert not found.breaking


def test_that_an_untouched_plan_loses_by_no_layer():
    known = table()
    found = plan_losses(known, resolve(Recipe(), LAYERS), fit_prediction(known, (), JUDGED), 0.5)
    assert found is not None
    assert found.total == 0.0
    assert not any(found.level(one.name) for one in LAYERS)
    bare = PredictionTable(LAYERS)
    assert plan_losses(bare, resolve(Recipe(), LAYERS), fit_prediction(bare, ()), 0.5) is None


def test_that_no_layer_is_red_while_the_plan_keeps_its_budget():
    """Fourteen layers once were, of a plan that lost 0.13 points in all."""
    kept = PlanLosses(0.4, 0.5, {"a": 0.5, "b": 0.45, "c": 0.05})
    assert [kept.level(name) for name in "abc"] == [1, 1, 0]
    assert sum(kept.points(name) for name in "abc") == pytest.approx(kept.total)
    broken = PlanLosses(0.8, 0.5, kept.shares, frozenset("a"))
    assert [broken.level(name) for name in "abc"] == [2, 1, 0]
