"""When a plan loses too much: as a whole, in a class beyond chance, or beyond what its samples can tell."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quantstudio.core.recipe import Recipe
from quantstudio.core.results import Interval
from quantstudio.core.search_results import ANY_CLASS_DROP, SearchBudget
from quantstudio.core.steps import Step
from quantstudio.engine.evaluation.uncertainty import paired_accuracy
from quantstudio.engine.search.measure import ClassDrop, Measurement
from quantstudio.engine.search.verdicts import Verdicts


def lost(points, low, *, samples=200, p_value=0.001, among=10):
    return ClassDrop("7", samples, Interval(points, low, points + 3), p_value, among)


def test_that_a_class_breaks_its_bound_only_beyond_what_its_samples_lose_by_chance():
    assert lost(6.0, 3.0).breaks(1.0)
    assert not lost(6.0, 3.0).breaks(6.0)
    assert not lost(6.0, -0.5).breaks(1.0)
    assert not lost(50.0, 20.0, samples=4).breaks(1.0)


def test_that_noise_in_one_of_many_classes_refuses_no_plan():
    assert lost(3.5, 0.2, p_value=0.03, among=1).breaks(1.0)
    assert not lost(3.5, 0.2, p_value=0.03, among=10).breaks(1.0)
    rng, refused = np.random.default_rng(0), 0
    for _ in range(40):  # plans that change answers of ten classes both ways, and lose nothing
        changed = rng.random((10, 200)) < 0.04
        base = rng.random((10, 200)) < 0.9
        flips = rng.random((10, 200)) < 0.5
        right = [np.where(c, f, b) for c, f, b in zip(changed, flips, base, strict=True)]
        was = [np.where(c, ~f, b) for c, f, b in zip(changed, flips, base, strict=True)]
        found = [paired_accuracy(a, b) for a, b in zip(was, right, strict=True)]
        refused += any(ClassDrop("", 200, p.drop, p.p_value or 0.0, 10).breaks(1.0) for p in found)
    assert refused <= 2 + 0.05 * 40


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        (SearchBudget(max_drop=0.5), False),
        (SearchBudget(max_drop=3.0), True),
        (SearchBudget(max_drop=3.0, max_class_drop=2.0), False),
        (SearchBudget(max_drop=0.5, max_class_drop=ANY_CLASS_DROP), True),
        (SearchBudget(average_bits=5), True),
    ],
)
def test_that_no_class_may_lose_more_than_twice_the_mean_by_default(budget, kept):
    measured = Measurement(
        1e-4, None, Interval(0.3, -0.2, 0.8), 2000, 0.01, (lost(6.0, 3.0), lost(0.0, -1.0))
    )
    bench: Any = SimpleNamespace(judge_classes=lambda _plan: measured)
    plan: Any = SimpleNamespace(test=None, by_class=None)
    assert Verdicts(bench, budget, None).keeps_classes(plan) is kept
    assert measured.worst is not None
    assert measured.worst.drop.value == 6.0


@pytest.mark.parametrize(("points", "is_above"), [(0.9, False), (1.24, True)])
def test_that_a_class_above_its_bound_by_chance_says_why_the_plan_holds(points, is_above):
    verdicts = Verdicts(SimpleNamespace(), SearchBudget(max_drop=0.3, max_class_drop=1.0), None)  # type: ignore[arg-type]
    said = verdicts.worst_class_note(lost(points, -1.16))
    assert f"Class 7 loses most: {points:.2f} points of its 200 samples" in said
    assert ("above the bound of 1, but by no more than chance" in said) is is_above


def test_that_a_plan_that_loses_too_much_is_named_with_its_figure():
    measured = Measurement(1e-4, None, Interval(0.3, -0.2, 0.8), 512, 0.01)
    of_class = replace(measured, classes=(lost(3.55, 1.0), lost(2.0, 0.5)))
    bench: Any = SimpleNamespace(judge_classes=lambda _plan: of_class)
    plan: Any = SimpleNamespace(measurement=measured, test=None, by_class=of_class)
    traded = Verdicts(bench, SearchBudget(max_class_drop=1.0), None).loss_reason(plan)
    assert traded == "class 7 loses 3.55 points of its 200 samples"
    noisy = Verdicts(bench, SearchBudget(), 1e-5)
    bench.law = lambda: None
    assert noisy.loss_reason(plan) == "too noisy"
    assert Verdicts(bench, SearchBudget(), None).loss_reason(plan) == ""


@pytest.mark.parametrize(
    ("steps", "judges_apart", "is_said"),
    [
        ((Step("gptq"),), False, True),
        ((Step("gptq"),), True, False),
        ((Step("gptq", is_on=False),), False, False),
        ((Step("equalize"),), False, False),
        ((), False, False),
    ],
)
def test_that_a_plan_judged_on_what_its_steps_saw_says_so(steps, judges_apart, is_said):
    bench: Any = SimpleNamespace(judges_apart=judges_apart)
    plan: Any = SimpleNamespace(recipe=Recipe(steps=steps))
    said = Verdicts(bench, SearchBudget(max_drop=0.5), None).flattery(plan)
    assert bool(said) is is_said
