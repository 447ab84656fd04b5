"""What the list says of each step: its name, and in a line what it did or is going to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantstudio.core.recipe import Recipe
from quantstudio.core.results import AppliedStep
from quantstudio.core.steps import SettingValue, Step, StepInfo

NOT_INSTALLED = "This step is not installed here: nothing can be built with it."


@dataclass(frozen=True, slots=True)
class StepLine:
    """One row of the list.

    Attributes:
        label: Name of the step.
        text: What it did in the last build, or how it is set.
        tip: All its settings, and what it does.
        is_on: Whether it is run.
        is_known: Whether anything is known of it.
        is_done: Whether `text` says what it did.
    """

    label: str
    text: str
    tip: str
    is_on: bool
    is_known: bool
    is_done: bool = False


def step_lines(
    recipe: Recipe, infos: Mapping[str, StepInfo], applied: Sequence[AppliedStep] = ()
) -> list[StepLine]:
    """A line for every step of a recipe.

    Args:
        recipe: The recipe.
        infos: What is known of the steps; empty while that is not known.
        applied: What the steps of the variant did that the recipe would give.
    """
    done = iter(applied)
    lines = []
    for step in recipe.steps:
        info = infos.get(step.name)
        result = next(done, None) if step.is_on else None
        is_done = result is not None and result.name == step.name
        label = info.label if info else step.name
        text = result.summary if result is not None and is_done else _text(step, info, is_known=bool(infos))
        tip = "\n\n".join(
            part for part in (info.explanation if info else "", settings_text(step, info)) if part
        )
        lines.append(StepLine(label, text, tip, step.is_on, info is not None or not infos, is_done))
    return lines


def _text(step: Step, info: StepInfo | None, *, is_known: bool) -> str:
    if info is None and is_known:
        return NOT_INSTALLED
    changed = settings_text(step, info, changed_only=True)
    when = "Runs before the model is quantized" if step.is_on else "Off"
    return f"{when} · {changed}" if changed else when


def settings_text(step: Step, info: StepInfo | None, *, changed_only: bool = False) -> str:
    """Settings of a step in one line, in the words of its form."""
    labels = {one.name: one for one in info.settings} if info else {}
    parts = []
    # In the order of the form; what the form does not know comes last.
    for name in (*(n for n in labels if n in step.settings), *(n for n in step.settings if n not in labels)):
        value = step.settings[name]
        known = labels.get(name)
        if changed_only and (known is None or value == known.default):
            continue
        unit = f" {known.unit}" if known and known.unit and known.unit.lower() != known.label.lower() else ""
        parts.append(f"{known.label if known else name}: {_shown(value)}{unit}")
    return ", ".join(parts)


def _shown(value: SettingValue) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
