"""What a view shows while it has nothing: one sentence that says what to do, and the button that does it."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from quantstudio.gui.theme import icon_pixmap, theme_hub

_ICON_PX = 28


class EmptyState(QWidget):
    """A quiet icon, a sentence and, where something can be done about it, a button.

    Signals:
        asked(): the button was pressed.
    """

    asked = Signal()

    def __init__(self, icon_name: str = "info", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._icon_name = icon_name
        self._icon = QLabel()
        self._icon.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.text = QLabel()
        self.text.setObjectName("empty.text")
        self.text.setProperty("role", "muted")
        self.text.setWordWrap(True)
        self.text.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.text.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        self.button = QPushButton()
        self.button.setObjectName("empty.button")
        self.button.clicked.connect(self.asked)
        column = QVBoxLayout(self)
        column.setContentsMargins(12, 4, 12, 4)
        column.setSpacing(8)
        column.addStretch(1)
        column.addWidget(self._icon)
        column.addWidget(self.text)
        column.addWidget(self.button, 0, Qt.AlignmentFlag.AlignHCenter)
        column.addStretch(1)
        self.set_message("")
        theme_hub().theme_changed.connect(self._on_theme_changed)
        self._on_theme_changed(None)

    def set_message(self, text: str, action: str = "") -> None:
        """Show a sentence, and a button where `action` names one."""
        self.text.setText(text)
        self.button.setText(action)
        self.button.setAccessibleName(action)
        self.button.setVisible(bool(action))
        self.setAccessibleName(text)

    def _on_theme_changed(self, _theme: object) -> None:
        self._icon.setPixmap(icon_pixmap(self._icon_name, "faint", _ICON_PX, self.devicePixelRatioF()))
