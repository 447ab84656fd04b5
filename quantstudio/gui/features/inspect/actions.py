"""What can be done with the page of the selected layer."""

from __future__ import annotations

from quantstudio.gui.action import Command
from quantstudio.gui.feature import show_action


def commands() -> tuple[Command, ...]:
    """Everything the page brings."""
    return (show_action("inspect", "&Inspect", "search", "Ctrl+1", 210),)
