"""What can be done about a search."""

from __future__ import annotations

from quantstudio.gui.action import Action, Command, Context
from quantstudio.gui.facts.needs import needs_float_weights


def commands() -> tuple[Command, ...]:
    """Everything the search brings."""
    return (
        Action(
            "run.search",
            "Searc&h…",
            _show,
            "run",
            240,
            "search",
            "Ctrl+Shift+F",
            "Find the best precision of every layer within a budget",
            tool=240,
            tool_text="Search",
            why_not=needs_float_weights,
        ),
    )


def _show(context: Context) -> None:
    from quantstudio.gui.features.search.search_panel import SearchPanel  # after the first paint

    context.show("search")
    panel = context.window.findChild(SearchPanel)
    if panel is not None:
        panel.asked.emit()
