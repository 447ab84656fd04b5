"""What can be done to compare: measure one variant, or every one."""

from __future__ import annotations

from quantstudio.gui.action import Action, Command
from quantstudio.gui.facts.needs import needs_data, needs_variants
from quantstudio.gui.feature import show_action


def commands() -> tuple[Command, ...]:
    """Everything the page brings."""
    return (
        show_action("compare", "Com&pare", "compare", "Ctrl+3", 240),
        Action(
            "run.measure",
            "&Measure",
            lambda context: context.session.workspace.runs.measure(),
            "run",
            410,
            "measure",
            "Ctrl+M",
            "Measure accuracy, latency and memory of the plan against FP32",
            tool=230,
            why_not=needs_data,
        ),
        Action(
            "run.measure_every",
            "Measure every &variant",
            lambda context: context.session.workspace.runs.measure_every(),
            "run",
            420,
            "compare",
            why_not=needs_variants,
        ),
    )
