"""Predictions are tied to what was measured: the nearest variant, plus the predicted difference."""

from dataclasses import replace

import numpy as np
import pytest

from quantstudio.core.effective_plan import resolve
from quantstudio.core.precision import FP32, STATIC_INT4, STATIC_INT8, Precision, at_weights
from quantstudio.core.predict.accuracy_law import accuracy_law
from quantstudio.core.predict.check import Figure, plan_point
from quantstudio.core.predict.model import Judged, MeasuredPlan
from quantstudio.core.predict.table import PredictionTable, fit_prediction
from quantstudio.core.recipe import BIASES_APART, PACKED_FILES, RangeOverride, Recipe, uniform_recipe
from tests.benchmarks.what_if import CLASSES, costs, curve, layer, sensitivity

LAYERS = tuple(layer(index) for index in range(12))
JUDGED = Judged(0.92, 10_000, latency_ms=20.0)
INT8 = uniform_recipe("static-int8")


@pytest.fixture(scope="module")
def table():
    return PredictionTable(
        LAYERS, costs=costs(LAYERS), sensitivity=sensitivity(LAYERS), curve=curve(), classes=CLASSES
    )


def plan_of(recipe):
    return resolve(recipe, LAYERS)


def measured(recipe, *, kl=0.01, lost=0.004, ratio=0.5, noise=0.0, name="one"):
    return MeasuredPlan(
        name, plan_of(recipe), 10_000, kl=kl, changed=0.03, accuracy=0.92 - lost, base=0.92,
        latency_ratio=ratio, latency_noise=noise, size_bytes=123_456,
    )  # fmt: skip


def test_that_a_plan_equal_to_a_measured_one_is_predicted_as_it_was_measured(table):
    model = fit_prediction(table, [measured(INT8)], JUDGED)
    back = INT8.assign([LAYERS[3].name], FP32).assign([LAYERS[3].name], STATIC_INT8)
    found = table.predict(plan_of(back), model)
    assert found.kl == pytest.approx(0.01, rel=1e-3)
    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx(0.916, abs=1e-4)
    assert found.accuracy.high - found.accuracy.low < 0.001
    assert found.latency_ms == pytest.approx(0.5 * 20.0)


def test_that_the_same_kernels_take_the_same_time(table):
    model = fit_prediction(table, [measured(INT8, ratio=1 / 1.95)], JUDGED)
    four = uniform_recipe(STATIC_INT4)
    clip = Recipe(
        INT8.rules, weight_ranges=(RangeOverride(LAYERS[0].name, -0.1, 0.1),),
        activation_ranges=(RangeOverride(LAYERS[1].inputs[0], 0.0, 1.0),),
    )  # fmt: skip
    for recipe in (four, clip):
        assert table.predict(plan_of(recipe), model).latency_ms == pytest.approx(20.0 / 1.95)


def test_that_a_neighbour_is_the_measured_plan_and_the_predicted_difference(table):
    plain = fit_prediction(table, (), JUDGED)
    twice = 2 * table.predict(plan_of(INT8), plain).kl
    model = fit_prediction(table, [measured(INT8, kl=twice, ratio=0.7)], JUDGED)
    rows = sensitivity(LAYERS)
    edited = plan_of(INT8.assign([min(rows, key=lambda name: rows[name].kl)], FP32))
    raws = [table.raw(plan).latency_ratio for plan in (edited, plan_of(INT8))]
    found = table.predict(edited, model)
    assert found.latency_ms == pytest.approx(20.0 * 0.7 * raws[0] / raws[1], rel=0.08)
    assert abs(found.latency_ms / 20 - 0.7) < abs(table.predict(edited, plain).latency_ms / 20 - 0.7)
    assert found.kl == pytest.approx(twice, rel=0.2)


def test_that_the_nearer_of_two_measured_plans_decides(table):
    names = [one.name for one in LAYERS]
    half = INT8.assign(names[:6], FP32)
    model = fit_prediction(table, [measured(INT8, ratio=0.8), measured(half, ratio=0.8, name="half")], JUDGED)
    nearer = table.predict(plan_of(half.assign(names[:1], STATIC_INT8)), model)
    alone = fit_prediction(table, [measured(INT8, ratio=0.8)], JUDGED)
    farther = table.predict(plan_of(half.assign(names[:1], STATIC_INT8)), alone)
    assert abs(nearer.latency_ms / 20 - 0.8) < abs(farther.latency_ms / 20 - 0.8)


def test_that_a_time_measured_with_noise_misleads_its_neighbours_less(table):
    near = plan_of(INT8.assign([LAYERS[0].name], FP32))
    said = [
        table.predict(
            near, fit_prediction(table, [measured(INT8, ratio=0.9, noise=noise)], JUDGED)
        ).latency_ms
        for noise in (0.0, 0.05, 0.5)
    ]
    unmeasured = table.predict(near, fit_prediction(table, (), JUDGED)).latency_ms
    away = [abs(one - unmeasured) for one in said]
    assert away[0] > away[1] > away[2]
    assert away[2] < 0.1 * away[0]


def test_that_the_surer_one_of_two_times_of_the_same_kernels_counts(table):
    four = uniform_recipe(STATIC_INT4)
    known = [measured(INT8, ratio=0.9, noise=0.2), measured(four, ratio=0.5, noise=0.005, name="four")]
    assert table.predict(plan_of(INT8), fit_prediction(table, known, JUDGED)).latency_ms == pytest.approx(
        10.0, rel=0.03
    )


def random_plan(rng):
    recipe = INT8
    for precision in (Precision.INT6, Precision.INT4):
        chosen = [one.name for one in LAYERS if rng.uniform() < 0.3]
        recipe = recipe.assign(chosen, at_weights(STATIC_INT8, precision))
    return recipe


@pytest.mark.parametrize("seed", range(4))
def test_that_no_prediction_jumps_out_of_its_interval_when_another_variant_is_measured(table, seed):
    rng, known = np.random.default_rng(seed), list[MeasuredPlan]()
    asked = [plan_of(random_plan(rng)) for _ in range(5)]
    model = fit_prediction(table, known, JUDGED)
    for index in range(5):
        before = [table.predict(plan, model) for plan in asked]
        reach = [1.645 * model.expected_kl(table.raw(plan))[1] for plan in asked]
        recipe = random_plan(rng)
        own = table.predict(plan_of(recipe), model)
        low, value, high = own.accuracy.low, own.accuracy.value, own.accuracy.high
        found = value + rng.uniform(-0.6, 0.6) * min(high - value, value - low)
        off = rng.uniform(-0.6, 0.6) * model.expected_kl(table.raw(plan_of(recipe)))[1]
        known.append(measured(recipe, kl=own.kl * np.exp(off), lost=0.92 - found, name=f"variant {index}"))
        model = fit_prediction(table, known, JUDGED)
        for old, wide, plan in zip(before, reach, asked, strict=True):
            now = table.predict(plan, model)
            assert abs(np.log(now.kl / old.kl)) <= wide
            assert old.accuracy.low <= now.accuracy.value <= old.accuracy.high


def test_that_variants_which_lie_apart_from_each_other_widen_what_is_said_of_the_next(table):
    rng = np.random.default_rng(1)
    recipes = [random_plan(rng) for _ in range(9)]
    plain = fit_prediction(table, (), JUDGED)
    widths = []
    for apart in (0.2, 2.0):
        known = [
            measured(one, kl=table.predict(plan_of(one), plain).kl * np.exp(apart * (-1) ** i), name=f"{i}")
            for i, one in enumerate(recipes[:-1])
        ]
        model = fit_prediction(table, known, JUDGED)
        widths.append(model.expected_kl(table.raw(plan_of(recipes[-1])))[1])
    assert widths[1] > 2 * widths[0]


def test_that_intervals_narrow_towards_what_was_measured(table):
    model = fit_prediction(table, [measured(INT8)], JUDGED)
    rng, names, widths = np.random.default_rng(0), [one.name for one in LAYERS], []
    for count in (0, 1, 4, 12):
        chosen = rng.permutation(names)[:count].tolist()
        recipe = INT8.assign(chosen, at_weights(STATIC_INT8, Precision.INT6))
        widths.append(model.expected_kl(table.raw(plan_of(recipe)))[1])
    assert widths == sorted(widths)


def test_that_times_are_on_the_scale_of_the_fp32_that_variants_are_held_against(table):
    prediction = table.predict(plan_of(INT8), fit_prediction(table, (), JUDGED))
    assert prediction.fp32_ms == 20.0
    assert prediction.latency_ms == pytest.approx(20.0 * table.raw(plan_of(INT8)).latency_ratio)
    unmeasured = table.predict(plan_of(INT8), fit_prediction(table, (), Judged(0.92, 10_000)))
    assert unmeasured.fp32_ms == 40.0


def test_that_no_drop_passes_the_chance_level(table):
    law = accuracy_law(curve(), base=0.92, samples=10_000, labelled=True, chance=0.1)
    for kl in (0.1, 1.0, 5.0, 10.0):
        found = law.interval(kl, 1.5)
        assert 0.1 <= found.low <= found.value <= found.high
        assert law.drop(kl, 3.0) <= 0.82 + 1e-9


def test_that_a_plan_that_may_collapse_has_a_bound_and_no_figure(table):
    ruin = uniform_recipe(at_weights(STATIC_INT8, Precision.INT2))
    model = fit_prediction(table, (), JUDGED)
    found = table.predict(plan_of(ruin), model)
    assert found.kl is not None
    assert found.accuracy is None
    assert found.worst_class is None
    assert found.accuracy_at_most is not None
    assert 0.1 < found.accuracy_at_most < 0.92
    assert plan_point(table, measured(ruin), model, Figure.ACCURACY) is None
    # A measured one is known, and so are its neighbours.
    known = fit_prediction(table, [measured(ruin, kl=1.5, lost=0.5)], JUDGED)
    found = table.predict(plan_of(ruin), known)
    assert found.accuracy is not None
    assert found.accuracy_at_most is None
    assert found.accuracy.value == pytest.approx(0.42, abs=0.03)


def test_that_a_ruined_plan_is_never_a_sure_figure_behind_measured_ones(table):
    plain, ruin = fit_prediction(table, (), JUDGED), at_weights(STATIC_INT8, Precision.INT2)
    known = []
    for index in range(5):
        recipe = INT8.assign([one.name for one in LAYERS[: index + 1]], STATIC_INT4)
        expected = table.predict(plan_of(recipe), plain).kl
        known.append(measured(recipe, kl=expected, lost=0.2 * expected, name=f"variant {index}"))
    found = table.predict(plan_of(uniform_recipe(ruin)), fit_prediction(table, known, JUDGED))
    assert found.kl < np.log(len(CLASSES))
    assert found.accuracy is None
    assert found.accuracy_at_most is not None
    assert found.accuracy_at_most > 0.11  # chance is one in ten


def test_that_a_size_is_that_of_a_measured_file_that_holds_the_same_or_says_it_is_no_such(table):
    names = [one.name for one in LAYERS]
    mixed = replace(INT8.assign(names[:3], FP32), emission=BIASES_APART)
    before = table.predict(plan_of(mixed), fit_prediction(table, (), JUDGED))
    assert not before.is_size_exact
    model = fit_prediction(table, [measured(mixed)], JUDGED)
    finer = replace(mixed.assign(names[5:], STATIC_INT4), emission=BIASES_APART)
    found = table.predict(plan_of(finer), model)
    # Before files were packed, four bits lay in the same containers; packed they are another file.
    assert (found.size_bytes, found.is_size_exact) == (123_456, True)
    packed = table.predict(plan_of(replace(finer, emission=PACKED_FILES)), model)
    assert packed.size_bytes != 123_456
    clipped = replace(mixed, weight_ranges=(RangeOverride(names[5], -0.1, 0.1),))
    assert table.predict(plan_of(clipped), model).size_bytes == 123_456
    other = table.predict(plan_of(INT8.assign(names[:2], FP32)), model)
    assert not other.is_size_exact
