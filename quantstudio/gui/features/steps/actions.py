"""What can be done with steps from menus and palette; the list of them is the registry's."""

from __future__ import annotations

from functools import partial

from quantstudio.core.steps import StepInfo
from quantstudio.gui.action import Choice, Choices, Command, Context
from quantstudio.gui.feature import toggle_action


def commands() -> tuple[Command, ...]:
    """Everything steps bring."""
    return (
        toggle_action("steps", "&Steps", "layers", "", 345),
        Choices(
            "edit.add_step", "Add &step", _steps, "Edit", "edit", 245, "plus", nothing="Looking for steps…"
        ),
    )


def _steps(context: Context) -> list[Choice]:
    workspace = context.session.workspace
    workspace.runs.describe_steps()
    return [
        Choice(
            info.label,
            partial(_add, context, info),
            words=f"Add step: {info.label}",
            is_enabled=workspace.model is not None,
            tip=info.explanation,
        )
        for info in workspace.steps
    ]


def _add(context: Context, info: StepInfo) -> None:
    context.session.workspace.edits.add_step(info.name)
    context.show("steps")
