"""Steps run in order, once: what a finished step made is found again, whatever ended the run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pytest

from quantstudio.core.errors import DataError, JobCancelled, RecipeError
from quantstudio.core.events import CancelToken, NullReporter
from quantstudio.core.precision import STATIC_INT8, WEIGHT_INT8
from quantstudio.core.recipe import CalibrationSettings, uniform_recipe
from quantstudio.core.recovered import LayerRecovered, StepBegun, recovered_layers
from quantstudio.core.steps import Need, Step
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.graph.protos import as_array, as_tensor
from quantstudio.engine.model.derive import derived_graph, editable_copy
from quantstudio.engine.pipeline import registry
from quantstudio.engine.pipeline.context import StepOutcome
from quantstudio.engine.pipeline.discovery import find_steps
from quantstudio.engine.pipeline.registry import NoSettings, registered, setting, step
from quantstudio.engine.pipeline.runner import StepInputs, prepare
from quantstudio.engine.pipeline.store import StepStore
from tests.engine.quantization_cases import NetBuilder, opened, statistics_of

RECIPE = uniform_recipe(STATIC_INT8)


@dataclass(frozen=True, slots=True)
class Settings:
    factor: float = setting(2.0, "Factor", low=0.1, high=10)


class Samples:
    """As much of a data set as the runner looks at."""

    labels = None

    def __init__(self, digest="data"):
        self.digest = digest

    def __len__(self):
        return 4


def inputs(digest="data", statistics=None):
    return StepInputs(cast("Dataset", Samples(digest)), statistics)


@pytest.fixture(autouse=True)
def _steps_of_this_test_only(monkeypatch):
    find_steps()
    monkeypatch.setattr(registry, "_definitions", registered())


@pytest.fixture
def ran():
    """Names of the steps that were really run."""
    return []


@pytest.fixture
def graph(tmp_path):
    net = NetBuilder()
    x = net.gemm(net.op("Relu", net.gemm("x", "a", 3, 4), name="relu"), "b", 4, 2)
    return opened(net.model({"x": ["n", 3]}, [x]), tmp_path)


def scaling(ran, name="scale", needs=(), fails=(), version=1):
    """A step that multiplies the first weight."""

    def apply(graph, context, settings, *, reporter, cancel):
        cancel.raise_if_set()
        ran.append((name, settings.factor))
        if fails:
            raise fails[0]
        model = editable_copy(graph)
        for tensor in model.graph.initializer:
            if tensor.name == "a.w":
                tensor.CopyFrom(
                    as_tensor(
                        "a.w", np.multiply(as_array(tensor), np.float32(settings.factor), dtype=np.float32)
                    )
                )
        return StepOutcome(derived_graph(graph, model, "Scaled."), f"Times {settings.factor:g}.", {"n": 1})

    apply.__annotations__["settings"] = Settings
    apply.__qualname__ = name
    step(name=name, label=name.title(), explanation="Scales.", needs=needs, version=version)(apply)


def first_weight(graph):
    return next(as_array(t) for t in graph.proto.graph.initializer if t.name == "a.w")


def with_steps(*steps, recipe=RECIPE, **changes):
    return replace(recipe, steps=tuple(steps), **changes)


def test_that_steps_are_applied_in_order_and_told(graph, ran):
    class Told(NullReporter):
        messages: list[str] = []  # noqa: RUF012  one reporter in this test
        places: list[tuple[int, int, str]] = []  # noqa: RUF012

        def message(self, text, severity=None):
            self.messages.append(text)

        def progress(self, done, total, unit, label):
            self.places.append((done, total, label))

    scaling(ran)
    scaling(ran, "shrink")
    recipe = with_steps(
        Step("scale"), Step("scale", {"factor": 5}, is_on=False), Step("shrink", {"factor": 0.5})
    )
    done = prepare(graph, recipe, reporter=Told())
    assert ran == [("scale", 2.0), ("shrink", 0.5)]
    assert [(one.name, one.label, one.settings, one.summary) for one in done.steps] == [
        ("scale", "Scale", {"factor": 2.0}, "Times 2."),
        ("shrink", "Shrink", {"factor": 0.5}, "Times 0.5."),
    ]
    assert done.steps[-1].graph_digest == done.graph.digest
    np.testing.assert_array_equal(first_weight(done.graph), first_weight(graph))
    assert Told.messages == ["Scale: Times 2.", "Shrink: Times 0.5."]
    assert Told.places == [(0, 2, "Scale"), (1, 2, "Shrink"), (2, 2, "Steps done")]


def test_that_a_step_may_ask_what_the_network_was_before_it_was_rounded(graph, ran):
    seen = []

    def looking(graph, context, settings, *, reporter, cancel):
        seen.append((context.original, context.unrounded))
        return StepOutcome(graph, "Looked.")

    looking.__annotations__["settings"] = NoSettings
    step(name="looking", label="Look", explanation="", needs=(Need.PLAN, Need.FLOAT))(looking)
    scaling(ran)
    scaling(ran, "crush", needs=(Need.PLAN,))
    steps = (Step("scale"), Step("crush"), Step("looking"))
    prepare(graph, with_steps(*steps))
    ((original, unrounded),) = seen
    np.testing.assert_array_equal(first_weight(original), first_weight(graph))
    np.testing.assert_array_equal(first_weight(unrounded), 2 * first_weight(graph))
    # The step's own graph is the same, what it was before is not.
    prepare(graph, with_steps(Step("scale", {"factor": 4.0}), Step("crush", {"factor": 1.0}), steps[-1]))
    assert len(seen) == 2


def test_that_the_layers_a_step_tells_of_are_kept_with_it_and_told_again(graph):
    class Told(NullReporter):
        def __init__(self):
            self.parts = []

        def found(self, part):
            self.parts.append(part)

    def mending(graph, context, settings, *, reporter, cancel):
        reporter.found(LayerRecovered("a", 0.5, None, "error"))
        reporter.found(LayerRecovered("a", 0.5, 0.25, "error"))
        return StepOutcome(graph, "Mended.", {"n": 1})

    mending.__annotations__["settings"] = NoSettings
    step(name="mend", label="Mend", explanation="Mends.")(mending)
    recipe = with_steps(Step("mend", is_on=False), Step("mend"), Step("mend"))
    first, again = Told(), Told()
    done = prepare(graph, recipe, reporter=first)
    assert [(type(part), part.step) for part in first.parts] == [
        (StepBegun, 0), (LayerRecovered, 0), (LayerRecovered, 0),
        (StepBegun, 1), (LayerRecovered, 1),  # taken from the store
        (StepBegun, 2),
    ]  # fmt: skip
    assert recovered_layers(done.steps[0].details) == (LayerRecovered("a", 0.5, 0.25, "error"),)
    assert done.steps[0].details["n"] == 1
    stored = prepare(graph, recipe, reporter=again)
    assert [one.is_stored for one in stored.steps] == [True, True]
    assert again.parts == [
        part for at in (0, 1) for part in (StepBegun(at, "mend"), LayerRecovered("a", 0.5, 0.25, "error", at))
    ] + [StepBegun(2, "")]


def test_that_a_recipe_without_steps_leaves_the_graph_alone(graph):
    done = prepare(graph, RECIPE)
    assert done.graph is graph
    assert done.steps == ()
    assert done.plan.schemes["a"] == STATIC_INT8


def test_that_a_finished_step_is_not_run_again(graph, ran):
    scaling(ran)
    first = prepare(graph, with_steps(Step("scale")))
    again = prepare(graph, with_steps(Step("scale", {"factor": 2})))
    assert len(ran) == 1
    assert again.graph.digest == first.graph.digest
    assert [one.is_stored for one in (*first.steps, *again.steps)] == [False, True]
    assert again.steps[0] == replace(first.steps[0], is_stored=True)


def test_that_a_run_that_was_ended_goes_on_behind_the_last_finished_step(graph, ran):
    failures = [JobCancelled()]
    scaling(ran)
    scaling(ran, "shrink", fails=failures)
    recipe = with_steps(Step("scale"), Step("shrink", {"factor": 0.5}))
    with pytest.raises(JobCancelled):
        prepare(graph, recipe)
    failures.clear()
    done = prepare(graph, recipe)
    assert ran == [("scale", 2.0), ("shrink", 0.5), ("shrink", 0.5)]
    assert [one.is_stored for one in done.steps] == [True, False]


def test_that_a_set_token_stops_before_the_next_step(graph, ran):
    scaling(ran)
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        prepare(graph, with_steps(Step("scale")), cancel=token)
    assert ran == []


def test_that_a_stored_graph_that_was_altered_is_made_again(graph, ran):
    scaling(ran)
    done = prepare(graph, with_steps(Step("scale")))
    with open(done.graph.summary.graph_path, "ab") as file:  # noqa: PTH123
        file.write(b"more")
    again = prepare(graph, with_steps(Step("scale")))
    assert len(ran) == 2
    assert again.graph.digest == done.graph.digest


@pytest.mark.parametrize(
    ("needs", "change", "runs"),
    [
        pytest.param((), {"settings": 3.0}, 2, id="a setting"),
        pytest.param((), {"version": 2}, 2, id="the version of the step"),
        pytest.param((), {"data": "other"}, 1, id="data it does not need"),
        pytest.param((Need.DATA,), {"data": "other"}, 2, id="data it needs"),
        pytest.param((), {"seed": 1}, 1, id="a seed it does not draw from"),
        pytest.param((Need.SEED,), {"seed": 1}, 2, id="a seed it draws from"),
        pytest.param((), {"recipe": uniform_recipe(WEIGHT_INT8)}, 1, id="a plan it does not look at"),
        pytest.param((Need.PLAN,), {"recipe": uniform_recipe(WEIGHT_INT8)}, 2, id="a plan it looks at"),
        pytest.param((Need.PLAN,), {"later": True}, 1, id="a later step"),
        pytest.param((Need.DATA,), {"samples": 8}, 1, id="calibration samples it does not need"),
        pytest.param((Need.STATISTICS,), {"samples": 8}, 2, id="calibration samples it needs"),
    ],
)
def test_that_a_step_is_run_again_only_when_something_it_uses_changed(graph, ran, needs, change, runs):
    scaling(ran, needs=needs)
    prepare(graph, with_steps(Step("scale")), inputs())
    if "version" in change:
        scaling(ran, needs=needs, version=change["version"])
    recipe = change.get("recipe", RECIPE)
    if "samples" in change:
        recipe = replace(recipe, calibration=CalibrationSettings(samples=change["samples"]))
    steps = [Step("scale", {"factor": change.get("settings", 2.0)})]
    if "later" in change:
        scaling(ran, "shrink")
        steps.append(Step("shrink", {"factor": 0.5}))
    recipe = with_steps(*steps, recipe=recipe, seed=change.get("seed", 0))
    prepare(graph, recipe, inputs(change.get("data", "data")))
    assert [name for name, _ in ran].count("scale") == runs


def test_that_a_step_gets_the_statistics_of_the_graph_it_is_given(graph, ran):
    seen = []
    scaling(ran)

    def look(graph, context, settings, *, reporter, cancel):
        seen.append((context.statistics(graph).graph_digest, context.seed, context.target))
        return StepOutcome(graph, "Looked.")

    look.__annotations__["settings"] = registry.NoSettings
    step(name="look", label="Look", explanation="Looks.", needs=(Need.STATISTICS, Need.SEED))(look)
    given = statistics_of(graph, {"x": np.ones((2, 3), np.float32)})
    prepare(graph, with_steps(Step("look"), seed=7), inputs(statistics=given))
    assert seen == [(graph.digest, 7, RECIPE.target)]


def test_that_what_a_step_needs_is_asked_for_before_any_is_run(graph, ran):
    scaling(ran)
    scaling(ran, "learn", needs=(Need.DATA, Need.LABELS))
    recipe = with_steps(Step("scale"), Step("learn"))
    with pytest.raises(DataError, match="step learn: the step needs labelled data"):
        prepare(graph, recipe)
    with pytest.raises(DataError, match="step learn: the step needs labels, and the data has none"):
        prepare(graph, recipe, inputs())
    assert ran == []


def test_that_a_wrong_step_is_refused_before_any_is_run(graph, ran):
    scaling(ran)
    with pytest.raises(RecipeError, match="there is no step 'melt'"):
        prepare(graph, with_steps(Step("scale"), Step("melt")))
    with pytest.raises(RecipeError, match=r"99 is not a number from 0.1 to 10"):
        prepare(graph, with_steps(Step("scale"), Step("scale", {"factor": 99})))
    assert ran == []


def test_that_a_store_can_lie_anywhere(graph, ran, tmp_path):
    scaling(ran)
    recipe = with_steps(Step("scale"))
    prepare(graph, recipe, store=StepStore(tmp_path))
    prepare(graph, recipe, store=StepStore(tmp_path))
    assert len(ran) == 1
    assert len(list(tmp_path.glob("*.json"))) == 1
