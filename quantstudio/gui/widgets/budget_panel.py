"""A card beside a plot in which the user says what the result may cost; the plot draws the limits."""

from __future__ import annotations

from PySide6.QtCore import Signal

from quantstudio.core.search_results import SearchBudget
from quantstudio.gui.widgets.card import Card


class BudgetPanel(Card):
    """Panels that set bounds override `budget` and `take_focus`; this one sets none.

    Signals:
        terms_changed(): what would be asked for is different.
        asked(): the user wants to see it.
        closed(): the user does not need it now.
    """

    terms_changed = Signal()
    asked = Signal()
    closed = Signal()

    @property
    def budget(self) -> SearchBudget:
        """The bounds as they stand."""
        return SearchBudget()

    def take_focus(self) -> None:
        """Put the cursor on the first bound."""
