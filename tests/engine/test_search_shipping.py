"""What a search prefers: the smaller file, then the faster one; INT8 where neither is to be had."""

from types import SimpleNamespace
from typing import Any

import pytest

from quantstudio.core.effective_plan import resolve
from quantstudio.core.precision import STATIC_INT4, STATIC_INT8, Precision, at_weights
from quantstudio.core.recipe import uniform_recipe
from quantstudio.engine.search.measure import Measurement
from quantstudio.engine.search.request import Tried
from quantstudio.engine.search.shipping import INT8_EVERYWHERE, Shipping
from tests.benchmarks.what_if import layer

LAYERS = tuple(layer(index) for index in range(2))
STATIC_INT2 = at_weights(STATIC_INT8, Precision.INT2)


def tried(name, scheme, size, *, kl=0.001, ratio=0.5):
    recipe = uniform_recipe(scheme)
    plan, measured = resolve(recipe, LAYERS), Measurement(kl, None, None, 512, 0.01)
    return Tried(recipe, plan, dict(plan.schemes), measured, size, name, latency_ratio=ratio)


def shipping(*plans):
    bench: Any = SimpleNamespace(tried={one.recipe.digest: one for one in plans}, time=lambda _plans: None)
    return Shipping(bench)


@pytest.fixture
def int8():
    return tried(INT8_EVERYWHERE, STATIC_INT8, 100_000)


def test_that_a_plan_of_the_same_file_and_speed_gives_way_to_int8(int8):
    """One of half the loss as well: a plan that wins nothing when it ships is not worth its own risk."""
    for size, kl in ((100_000, 0.004), (99_500, 0.002), (100_000, 0.0009)):
        four = tried("W4A8", STATIC_INT4, size, kl=kl)
        assert shipping(int8, four).ordered([int8, four])[0] is int8


def test_that_a_smaller_file_comes_before_int8_and_what_is_slower_than_fp32_comes_last(int8):
    four = tried("W4A8", STATIC_INT4, 60_000, kl=0.01)
    slow = tried("W2A8", STATIC_INT2, 30_000, ratio=1.3)
    assert shipping(int8, four, slow).ordered([int8, slow, four]) == [four, int8, slow]


def test_that_the_faster_of_two_files_of_one_size_is_taken(int8):
    fast = tried("W4A8", STATIC_INT4, 100_000, ratio=0.4)
    assert shipping(int8, fast).ordered([int8, fast]) == [fast, int8]


def test_that_where_nothing_is_won_int8_is_said_to_be_best_with_the_reason(int8):
    four = tried("W4A8", STATIC_INT4, 100_000, kl=0.004)
    (said,) = shipping(int8, four).notes(int8, {})
    assert said.startswith("INT8 everywhere is best here: ")
    assert "the file stays at 100" in said
    (alone,) = shipping(int8).notes(int8, {})
    assert "no plan that keeps the bounds has a smaller file or takes less time" in alone


def test_that_a_plan_says_what_it_wins_over_int8_or_that_it_wins_nothing(int8):
    four = tried("W4A8", STATIC_INT4, 60_000, ratio=0.4)
    (said,) = shipping(int8, four).notes(four, {})
    assert said.startswith("Against INT8 everywhere the plan is 40\u202f% smaller and 1.2")
    same = tried("W4A8", STATIC_INT4, 100_000)
    (said,) = shipping(int8, same).notes(same, {int8.recipe.digest: "class 0 loses 6.00 points"})
    assert said.startswith("The plan wins nothing over INT8 everywhere in what ships")
    assert "INT8 everywhere loses more than the bounds (class 0 loses 6.00 points)" in said


def test_that_a_better_plan_that_loses_too_much_is_named(int8):
    four = tried("W4A8", STATIC_INT4, 60_000, kl=0.05)
    said = shipping(int8, four).notes(int8, {four.recipe.digest: "3.10 points on 512 samples"})[-1]
    assert said.startswith("Smaller or faster, but they lose more than the bounds: W4A8 (60")
    assert "3.10 points on 512 samples" in said
