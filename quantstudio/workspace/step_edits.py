"""Edits of a recipe's steps with the name undo shows; pure functions.

What is known of steps gives them their names and checks their settings; while nothing is known, a step is
taken as it is, and the build refuses what does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from quantstudio.core.recipe import Recipe
from quantstudio.core.steps import SettingValue, Step, StepInfo, info_of
from quantstudio.workspace.recipe_edits import Edit


def with_step(recipe: Recipe, step: Step, known: Sequence[StepInfo]) -> Edit:
    """One more step at the end, all its settings written out.

    Raises:
        RecipeError: the step or a setting is unknown, or a value does not fit.
    """
    made = _completed(step, known)
    return Edit(f"Add step {_label(step, known)}", replace(recipe, steps=(*recipe.steps, made)))


def with_settings(
    recipe: Recipe, index: int, settings: Mapping[str, SettingValue], known: Sequence[StepInfo]
) -> Edit:
    """Other values for settings of a step; those not given stay.

    Raises:
        RecipeError: a setting is unknown or a value does not fit.
    """
    old = recipe.steps[index]
    step = _completed(replace(old, settings={**old.settings, **settings}), known)
    return Edit(f"Change step {_label(old, known)}", _with(recipe, index, step))


def with_switch(recipe: Recipe, index: int, known: Sequence[StepInfo], *, is_on: bool) -> Edit:
    """A step switched on or off."""
    step = replace(recipe.steps[index], is_on=is_on)
    return Edit(f"Switch {'on' if is_on else 'off'} step {_label(step, known)}", _with(recipe, index, step))


def without_step(recipe: Recipe, index: int, known: Sequence[StepInfo]) -> Edit:
    """One step less."""
    steps = (*recipe.steps[:index], *recipe.steps[index + 1 :])
    return Edit(f"Remove step {_label(recipe.steps[index], known)}", replace(recipe, steps=steps))


def moved_step(recipe: Recipe, index: int, to: int, known: Sequence[StepInfo]) -> Edit:
    """A step in another place; steps are run in order."""
    steps = list(recipe.steps)
    step = steps.pop(index)
    steps.insert(to, step)
    return Edit(f"Move step {_label(step, known)}", replace(recipe, steps=tuple(steps)))


def _completed(step: Step, known: Sequence[StepInfo]) -> Step:
    return info_of(step.name, {info.name: info for info in known}).completed(step) if known else step


def _label(step: Step, known: Sequence[StepInfo]) -> str:
    return next((info.label for info in known if info.name == step.name), step.name)


def _with(recipe: Recipe, index: int, step: Step) -> Recipe:
    steps = list(recipe.steps)
    steps[index] = step
    return replace(recipe, steps=tuple(steps))
