"""Searches of a plan with steps: sent off with them, and every plan that is loaded has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantstudio.core.codec import from_json
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.events import Event
from quantstudio.core.recipe import Recipe
from quantstudio.core.search_results import PlanPoint
from quantstudio.core.steps import Step
from quantstudio.workspace.search_terms import SearchTerms
from tests.gui.search_samples import budget_of, result
from tests.workspace.canned import LAYERS, succeeded
from tests.workspace.conftest import Desk
from tests.workspace.samples import model_summary


def answer(params: dict[str, Any]) -> list[Event]:
    """What the engine finds: plans with the steps it was given."""
    kept = from_json(Recipe, params["recipe"])

    def own(point: PlanPoint) -> PlanPoint:
        return replace(point, recipe=replace(point.recipe, steps=kept.steps, seed=kept.seed))

    Path(params["output"]).write_bytes(b"onnx")
    found = result(model_summary(LAYERS).layers, params["output"], budget_of(params))
    front, tried = tuple(map(own, found.front)), tuple(map(own, found.tried))
    return [succeeded(replace(found, front=front, tried=tried, chosen=own(found.chosen)))]


@pytest.fixture
def searched(desk: Desk, data: DataSpec) -> Desk:
    """A search has ended for a plan that equalizes, and has a step switched off."""
    desk.runner.answers["search"] = answer
    desk.known.opening.set_data(data, None)
    desk.known.edits.add_step("equalize")
    desk.known.edits.add_step("bias", samples=32)
    desk.known.edits.switch_step(1, is_on=False)
    desk.known.searches.start(SearchTerms())
    desk.settle()
    return desk


def test_that_a_search_is_sent_off_with_the_steps_of_the_plan(searched: Desk) -> None:
    (job,) = [one for one in searched.runner.submitted if one.task.endswith(":search")]
    kept = from_json(Recipe, job.params["recipe"])
    assert kept.rules == ()
    assert [(one.name, one.is_on) for one in kept.steps] == [("equalize", True), ("bias", False)]


def test_that_a_preset_chooses_precisions_and_leaves_the_steps(searched: Desk) -> None:
    known = searched.known
    before = known.recipe
    known.runs.quantize_preset("auto")
    searched.settle()
    assert known.recipe.rules != before.rules
    assert known.recipe.steps == before.steps
    (job,) = [one for one in searched.runner.submitted if "preset" in one.params]
    assert from_json(Recipe, job.params["recipe"]) == before.bare


def test_that_the_chosen_plan_and_every_other_one_that_is_loaded_keep_the_steps(searched: Desk) -> None:
    known = searched.known
    names = ["equalize", "bias"]
    assert known.active_plan != "Plan", "the search made a plan of its own"
    assert [step.name for step in known.recipe.steps] == names
    for point in known.searches.plans:
        known.searches.load(point)
        assert known.recipe.rules == point.recipe.rules
        assert [step.name for step in known.recipe.steps] == names
    known.searches.load(known.searches.plans[-1], as_plan=True)
    assert [step.name for step in known.recipe.steps] == names


def test_that_a_search_is_shown_behind_the_steps_its_plans_were_recovered_by(
    desk: Desk, data: DataSpec
) -> None:
    def recovered(params: dict[str, Any]) -> list[Event]:
        Path(params["output"]).write_bytes(b"onnx")
        found = result(model_summary(LAYERS).layers, params["output"], budget_of(params))
        recipe = replace(found.chosen.recipe, steps=(Step("bias"),))
        return [succeeded(replace(found, chosen=replace(found.chosen, recipe=recipe)))]

    desk.runner.answers["search"] = recovered
    desk.known.opening.set_data(data, None)
    desk.known.searches.start(SearchTerms())
    desk.settle()
    searches = desk.known.searches
    assert [step.name for step in desk.known.recipe.steps] == ["bias"]
    assert searches.chosen is not None
    assert searches.chosen.recipe == desk.known.recipe
    shown = len(searches.plans)
    desk.known.edits.undo()
    assert not desk.known.recipe.steps
    assert len(searches.plans) == shown > 1
