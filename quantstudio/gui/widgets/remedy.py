"""The button that does something about what a text says went wrong."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtGui import QAction
from PySide6.QtWidgets import QWidget
from shiboken6 import isValid

from quantstudio.gui.widgets.small_button import SmallButton

# On its own ground: beside text, words in the accent colour alone are taken for more text.
REMEDY_LOOK = """
QPushButton {{ background: {accent_soft}; border: 1px solid transparent; border-radius: 5px; color: {accent};
    padding: 0 8px; min-height: 18px; min-width: 0; font-size: 11px; font-weight: 600; }}
QPushButton:hover {{ border-color: {accent}; }}
QPushButton:focus {{ border-color: {accent}; }}
QPushButton:disabled {{ color: {faint}; background: {hover}; }}
"""


@dataclass(frozen=True, slots=True)
class Remedy:
    """What can be done about something.

    Attributes:
        text: Words of its button.
        action: The window's action that does it.
    """

    text: str
    action: QAction


class RemedyButton(SmallButton):
    """A quiet button in place of an action: it can be pressed while the action can be done, and does it.

    Hidden while there is nothing to do.
    """

    look = REMEDY_LOOK

    def __init__(self, name: str, parent: QWidget, remedy: Remedy | None = None) -> None:
        super().__init__(name, "", "", parent)
        self._remedy: Remedy | None = None
        self.clicked.connect(self._on_clicked)
        self.offer(remedy)

    def offer(self, remedy: Remedy | None) -> None:
        """Stand for another action, or for none."""
        if remedy != self._remedy:
            if self._remedy is not None and isValid(self._remedy.action):
                self._remedy.action.changed.disconnect(self._follow)
            self._remedy = remedy
            if remedy is not None:
                remedy.action.changed.connect(self._follow)
                self.setText(remedy.text)
                self._follow()
        self.setVisible(remedy is not None)

    def _follow(self) -> None:
        if self._remedy is not None:
            action = self._remedy.action
            self.setEnabled(action.isEnabled())
            self.setToolTip(action.toolTip())
            self.setAccessibleName(self._remedy.text)
            self.setAccessibleDescription(action.toolTip())

    def _on_clicked(self) -> None:
        if self._remedy is not None:
            self._remedy.action.trigger()
