"""A card that is one large button: a session, a project, a sample."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QEnterEvent, QKeyEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QAbstractButton, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget
from typing_extensions import override

from quantstudio.gui.theme import current_theme
from quantstudio.gui.widgets.elided_label import ElidedLabel

RADIUS = 8
PADDING = 12
WIDTH_MIN_PX = 230

_MOVES = {
    Qt.Key.Key_Left: "left",
    Qt.Key.Key_Right: "right",
    Qt.Key.Key_Up: "up",
    Qt.Key.Key_Down: "down",
}


class Tile(QAbstractButton):
    """Title, lines of text and what a subclass puts above them; Enter, Space or a click opens it.

    Signals:
        moved(direction): an arrow key: "left", "right", "up", "down".
    """

    moved = Signal(str)

    def __init__(self, name: str, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName(name)
        self.setAccessibleName(title)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.setMinimumWidth(WIDTH_MIN_PX)
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(PADDING, PADDING, PADDING, PADDING - 2)
        self.column.setSpacing(3)
        self.head = QHBoxLayout()
        self.head.setSpacing(8)
        self.title = ElidedLabel(title, mode=Qt.TextElideMode.ElideMiddle)
        self.title.setProperty("role", "title")
        self.head.addWidget(self.title, 1)
        self.column.addLayout(self.head)

    def add_line(self, text: str, role: str, *, wraps: bool = False) -> QLabel:
        """One line of text, elided; or several, wrapped."""
        label = QLabel(text) if wraps else ElidedLabel(text)
        label.setTextFormat(Qt.TextFormat.PlainText)
        label.setWordWrap(wraps)
        label.setProperty("role", role)
        self.column.addWidget(label)
        return label

    @override
    def sizeHint(self) -> QSize:
        return self.column.sizeHint()

    @override
    def keyPressEvent(self, event: QKeyEvent) -> None:
        key = Qt.Key(event.key())
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.click()
        elif key in _MOVES:
            self.moved.emit(_MOVES[key])
        else:
            super().keyPressEvent(event)

    @override
    def enterEvent(self, event: QEnterEvent) -> None:
        super().enterEvent(event)
        self.update()

    @override
    def paintEvent(self, _event: QPaintEvent) -> None:
        theme = current_theme()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        is_hot = self.underMouse() and self.isEnabled()
        edge = "accent" if self.hasFocus() else ("faint" if is_hot else "border")
        wide = 2.0 if self.hasFocus() else 1.0
        painter.setPen(QPen(theme.color(edge), wide))
        painter.setBrush(theme.color("alt" if is_hot or self.isDown() else "surface"))
        inset = wide / 2
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(inset, inset, -inset, -inset), RADIUS, RADIUS)
        painter.end()
