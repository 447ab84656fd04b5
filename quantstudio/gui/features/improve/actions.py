"""What can be done with steps from menus and palette; the list of them is the registry's."""

from __future__ import annotations

from functools import partial

from quantstudio.core.steps import StepInfo
from quantstudio.gui.action import Action, Choice, Choices, Command, Context
from quantstudio.gui.feature import show_action
from quantstudio.gui.features.improve.needs import why_not_measure, why_not_recover
from quantstudio.gui.features.improve.step_menu import GROUP_TITLES, LOOKING


def commands() -> tuple[Command, ...]:
    """Everything the page brings."""
    return (
        show_action("improve", "I&mprove", "improve", "Ctrl+7", 220),
        Choices("edit.add_step", "Add &step", _steps, "Edit", "edit", 245, "plus", nothing=LOOKING),
        Action(
            "run.recover",
            "&Recover automatically",
            _recover,
            "run",
            250,
            "improve",
            tip="Try further steps within the time set on the page Improve; keep those that measure better",
            why_not=why_not_recover,
        ),
        Action(
            "run.measure_steps",
            "Measure each s&tep",
            _measure,
            "run",
            430,
            "improve",
            tip="Build the plan up to each of its steps and measure them all",
            why_not=why_not_measure,
        ),
    )


def _steps(context: Context) -> list[Choice]:
    workspace = context.session.workspace
    workspace.runs.describe_steps()
    choices: list[Choice] = []
    for group in GROUP_TITLES:
        own = [info for info in workspace.steps if info.group is group]
        choices += [
            Choice(
                info.label,
                partial(_add, context, info),
                words=f"Add step: {info.label}",
                is_enabled=workspace.model is not None,
                tip=info.explanation,
                is_apart=info is own[0] and bool(choices),
            )
            for info in own
        ]
    return choices


def _add(context: Context, info: StepInfo) -> None:
    context.session.workspace.edits.add_step(info.name)
    context.show("improve")


def _recover(context: Context) -> None:
    from quantstudio.gui.features.improve.improve_panel import ImprovePanel  # after the first paint

    context.show("improve")
    panel = context.window.findChild(ImprovePanel)
    if panel is not None:
        panel.start_recovery()


def _measure(context: Context) -> None:
    context.show("improve")
    context.session.workspace.improvement.measure_steps()
