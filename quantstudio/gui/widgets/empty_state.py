"""What a view shows while it has nothing: one sentence that says what to do, and the button that does it."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget
from typing_extensions import override

from quantstudio.gui.theme import icon_pixmap, theme_hub

_ICON_PX = 28
_MARGIN, _TOP, _SPACING = 12, 4, 8


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
        column.setContentsMargins(_MARGIN, _TOP, _MARGIN, _TOP)
        column.setSpacing(_SPACING)
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
        self._make_room()

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._make_room()

    def _make_room(self) -> None:
        """Where it is tight the icon goes: what can be done is more than an ornament."""
        heights = [_ICON_PX, self.text.heightForWidth(self.width() - 2 * _MARGIN)]
        if self.button.text():
            heights.append(self.button.sizeHint().height())
        needed = sum(heights) + _SPACING * (len(heights) - 1) + 2 * _TOP
        self._icon.setVisible(self.height() >= needed)

    def _on_theme_changed(self, _theme: object) -> None:
        self._icon.setPixmap(icon_pixmap(self._icon_name, "faint", _ICON_PX, self.devicePixelRatioF()))
