"""What each step wins: stages built and measured together, layers as they come, steps that help."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from quantstudio.core.codec import from_json, to_json
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.events import Event, JobEnded, Part, PartFound
from quantstudio.core.hints import HintAction
from quantstudio.core.recipe import Recipe
from quantstudio.core.recovered import RECOVERED, LayerRecovered, StepBegun
from quantstudio.core.results import QuantizeResult
from quantstudio.core.steps import Step
from quantstudio.workspace.values import Notification
from tests.workspace.canned import ANSWERS, succeeded
from tests.workspace.conftest import Desk

ROWS = (LayerRecovered("conv1", 0.4, None, "error"), LayerRecovered("conv1", 0.4, 0.1, "error"))


@pytest.fixture
def stepped(desk: Desk, data: DataSpec) -> Desk:
    """A plan that equalizes and corrects biases, with another step that is off."""
    desk.known.opening.set_data(data, None)
    desk.known.runs.describe_steps()
    desk.settle()
    for name in ("equalize", "bias", "bias"):
        desk.known.edits.add_step(name)
    desk.known.edits.switch_step(1, is_on=False)
    return desk


def told(params: dict[str, Any]) -> list[Event]:
    """A build that tells of its second step."""
    parts: list[Part] = [StepBegun(0, "equalize"), StepBegun(1, "bias")]
    parts += [replace(row, step=1) for row in ROWS]
    return [*map(PartFound, parts), PartFound(StepBegun(2, "")), *ANSWERS["quantize"](params)]


def test_that_the_stages_are_the_recipe_up_to_each_step_that_is_on(stepped: Desk) -> None:
    stages = stepped.known.improvement.stages
    assert [one.label for one in stages] == ["no steps", "Equalize layers", "Correct biases"]
    assert [len(one.recipe.steps) for one in stages] == [0, 1, 3]
    assert stages[-1].recipe is stepped.known.recipe
    assert [one.variant for one in stages] == [None, None, None]
    again = stepped.known.improvement.stages
    assert all(one.recipe is other.recipe for one, other in zip(stages, again, strict=True))


def test_that_measuring_each_step_builds_what_is_missing_and_measures_all_at_once(stepped: Desk) -> None:
    known = stepped.known
    known.runs.quantize()
    stepped.settle()
    known.improvement.measure_steps()
    waiting = known.improvement.job
    assert waiting is not None
    stepped.settle()
    tasks = [job.task.partition(":")[2] for job in stepped.runner.submitted]
    assert tasks.count("quantize") == 3
    assert tasks.count("compare") == 1
    assert known.improvement.is_measured
    assert stepped.known.improvement.job is None
    names = [one.variant.name for one in known.improvement.stages if one.variant is not None]
    plan = known.active_plan
    assert names == [f"{plan}, no steps", f"{plan}, up to Equalize layers", plan]
    known.edits.switch_step(2, is_on=False)
    assert [one.label for one in known.improvement.stages] == ["no steps", "Equalize layers"]
    assert known.improvement.is_measured


def test_that_layers_stream_in_and_are_of_the_steps_they_came_from(stepped: Desk) -> None:
    known, runner = stepped.known, stepped.runner
    runner.answers["quantize"] = told
    known.runs.quantize()
    stepped.settle()
    assert known.improvement.layers(0) == ()
    assert known.improvement.layers(1) == (replace(ROWS[1], step=1),)
    assert known.improvement.running_step is None
    known.edits.set_step(2, samples=7)
    assert known.improvement.layers(1) == ()
    known.edits.undo()
    assert known.improvement.layers(1) == (replace(ROWS[1], step=1),)


def test_that_layers_of_a_build_before_are_read_from_what_its_steps_did(stepped: Desk) -> None:
    def stored(params: dict[str, Any]) -> list[Event]:
        (ended,) = ANSWERS["quantize"](params)
        assert isinstance(ended, JobEnded)
        found = from_json(QuantizeResult, ended.result)
        first, *rest = found.build.steps
        first = replace(first, details={RECOVERED: [to_json(ROWS[1])]})
        return [succeeded(replace(found, build=replace(found.build, steps=(first, *rest))))]

    stepped.runner.answers["quantize"] = stored
    stepped.known.runs.quantize()
    stepped.settle()
    assert stepped.known.improvement.layers(0) == (ROWS[1],)
    assert stepped.known.improvement.layers(1) == ()
    assert stepped.known.improvement.layers(2) == ()


def test_that_steps_that_help_are_added_as_one_undo_step(desk: Desk, data: DataSpec) -> None:
    known = desk.known
    known.opening.set_data(data, None)
    known.runs.describe_steps()
    desk.settle()
    known.edits.add_step("equalize")
    before = known.recipe

    def recovered(params: dict[str, Any]) -> list[Event]:
        recipe = from_json(Recipe, params["recipe"])
        steps = (*recipe.steps, *(from_json(Step, one) for one in params["candidates"]))
        return ANSWERS["quantize"]({**params, "recipe": to_json(replace(recipe, steps=steps))})

    desk.runner.answers["quantize"] = recovered
    known.improvement.recover(30)
    desk.settle()
    (job,) = [one for one in desk.runner.submitted if one.task.endswith(":quantize")]
    assert [one["name"] for one in job.params["candidates"]] == ["bias"]
    assert job.params["seconds"] == 30
    assert [step.name for step in known.recipe.steps] == ["equalize", "bias"]
    assert known.current_variant is not None
    assert known.current_variant.result is not None, "what it is worth is measured, and shown"
    assert known.edits.undo_text == "Recover automatically"
    known.edits.undo()
    assert known.recipe == before


def test_that_the_sample_of_two_bits_begins_there_and_says_where_it_is_won_back(desk: Desk) -> None:
    known = desk.known
    told: list[Notification] = []
    known.notified.connect(told.append)
    known.documents.open_sample("digits_two_bits")
    desk.settle()
    schemes = {scheme.weights.name for scheme in known.recipe.schemes(known.layers).values()}
    assert "int2" in schemes
    assert "int8" not in schemes
    assert known.edits.undo_text == "Begin in W2A8"
    assert [one.hint.action for one in told if one.hint] == [HintAction.RECOVER]
