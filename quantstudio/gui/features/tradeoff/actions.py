"""What can be done with the trade-off."""

from __future__ import annotations

from quantstudio.gui.action import Command
from quantstudio.gui.feature import show_action


def commands() -> tuple[Command, ...]:
    """Everything the page brings."""
    return (show_action("tradeoff", "Trade-&off", "tradeoff", "Ctrl+2", 230),)
