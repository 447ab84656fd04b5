"""Steps of a recipe are edited one at a time, each under a name that undo shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quantstudio.core.errors import RecipeError
from quantstudio.core.recipe import uniform_recipe
from quantstudio.core.steps import SettingInfo, SettingType, Step, StepInfo
from quantstudio.workspace.step_edits import moved_step, with_settings, with_step, with_switch, without_step

INFO = StepInfo(
    "bias",
    "Correct biases",
    "Takes out shifts.",
    settings=(SettingInfo("samples", "Samples", SettingType.INT, 512, 1),),
)
STEPS = (Step("a"), Step("b"), Step("c"))
RECIPE = replace(uniform_recipe("static-int8"), steps=STEPS)


def test_that_a_new_step_comes_last_with_its_settings_written_out():
    edit = with_step(RECIPE, Step("bias"), [INFO])
    assert edit.label == "Add step Correct biases"
    assert edit.recipe.steps == (*STEPS, Step("bias", {"samples": 512}))
    assert edit.recipe.rules == RECIPE.rules


def test_that_settings_are_checked():
    recipe = with_step(RECIPE, Step("bias"), [INFO]).recipe
    edit = with_settings(recipe, 3, {"samples": 64}, [INFO])
    assert edit.recipe.steps[3] == Step("bias", {"samples": 64})
    assert edit.label == "Change step Correct biases"
    with pytest.raises(RecipeError, match="0 is not a whole number of at least 1"):
        with_settings(recipe, 3, {"samples": 0}, [INFO])
    with pytest.raises(RecipeError, match="there is no step 'melt'"):
        with_step(recipe, Step("melt"), [INFO])


def test_that_a_step_is_taken_as_it_is_while_nothing_is_known_of_steps():
    edit = with_step(RECIPE, Step("melt", {"heat": 2}), [])
    assert edit.label == "Add step melt"
    assert edit.recipe.steps[-1] == Step("melt", {"heat": 2})


def test_that_a_step_that_is_off_keeps_its_place():
    edit = with_switch(RECIPE, 1, [], is_on=False)
    assert [step.is_on for step in edit.recipe.steps] == [True, False, True]
    assert edit.label == "Switch off step b"
    assert with_switch(edit.recipe, 1, [], is_on=True).recipe == RECIPE


def test_that_steps_are_moved_and_removed():
    assert [step.name for step in moved_step(RECIPE, 0, 2, []).recipe.steps] == ["b", "c", "a"]
    assert [step.name for step in moved_step(RECIPE, 2, 0, []).recipe.steps] == ["c", "a", "b"]
    assert [step.name for step in without_step(RECIPE, 1, []).recipe.steps] == ["a", "c"]
