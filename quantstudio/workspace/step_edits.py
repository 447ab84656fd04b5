"""Edits of a recipe's steps with the name undo shows; pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quantstudio.core.recipe import Recipe
from quantstudio.core.steps import SettingValue, Step, StepInfo
from quantstudio.workspace.recipe_edits import Edit


def with_step(recipe: Recipe, info: StepInfo) -> Edit:
    """One more step at the end, its settings as they are by default."""
    step = info.completed(Step(info.name))
    return Edit(f"Add step {info.label}", replace(recipe, steps=(*recipe.steps, step)))


def with_settings(recipe: Recipe, index: int, info: StepInfo, settings: Mapping[str, SettingValue]) -> Edit:
    """Other settings for a step.

    Raises:
        RecipeError: a setting is unknown or does not fit.
    """
    step = info.completed(replace(recipe.steps[index], settings=settings))
    return Edit(f"Change step {info.label}", _with(recipe, index, step))


def with_switch(recipe: Recipe, index: int, label: str, *, is_on: bool) -> Edit:
    """A step switched on or off."""
    step = replace(recipe.steps[index], is_on=is_on)
    return Edit(f"Switch {'on' if is_on else 'off'} step {label}", _with(recipe, index, step))


def without_step(recipe: Recipe, index: int, label: str) -> Edit:
    """One step less."""
    steps = (*recipe.steps[:index], *recipe.steps[index + 1 :])
    return Edit(f"Remove step {label}", replace(recipe, steps=steps))


def moved_step(recipe: Recipe, index: int, to: int, label: str) -> Edit:
    """A step in another place; steps are run in order."""
    steps = list(recipe.steps)
    steps.insert(to, steps.pop(index))
    return Edit(f"Move step {label}", replace(recipe, steps=tuple(steps)))


def _with(recipe: Recipe, index: int, step: Step) -> Recipe:
    steps = list(recipe.steps)
    steps[index] = step
    return replace(recipe, steps=tuple(steps))
