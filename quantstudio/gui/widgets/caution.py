"""One line of warning with the way out of it."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QWidget

from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.gui.widgets.small_button import SmallButton


class Caution(QWidget):
    """What to keep in mind about the figures below, and a button that mends it.

    Signals:
        asked(): the button was pressed.
    """

    asked = Signal()

    def __init__(self, name: str, action: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName(name)
        self.label = ElidedLabel()
        self.label.setObjectName(f"{name}.text")
        self.label.setProperty("role", "caution")
        self.button = SmallButton(f"{name}.action", action, tip)
        self.button.clicked.connect(self.asked)
        row = QHBoxLayout(self)
        row.setContentsMargins(14, 0, 8, 0)
        row.setSpacing(8)
        row.addWidget(self.label, 1)
        row.addWidget(self.button)

    def set_wordings(self, text: str, *shorter: str) -> None:
        """Say it in the longest wording that fits."""
        self.label.set_wordings(text, *shorter)
        self.setAccessibleName(text)
