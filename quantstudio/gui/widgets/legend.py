"""Coloured squares with their names, for a card's header."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetrics, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget
from typing_extensions import override

SQUARE = 9
_INNER = 5
_BETWEEN = 12


class Legend(QWidget):
    """Draws each entry as a square and a caption; the names are also its accessible name."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._entries: tuple[tuple[str, str], ...] = ()
        self._text_colour = "#5B6470"
        font = self.font()
        font.setPixelSize(11)
        self.setFont(font)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Preferred)

    @property
    def entries(self) -> tuple[tuple[str, str], ...]:
        """Pairs (name, colour)."""
        return self._entries

    def set_entries(self, entries: Sequence[tuple[str, str]], text_colour: str) -> None:
        """Show these pairs (name, colour)."""
        self.setVisible(bool(entries))
        if (tuple(entries), text_colour) == (self._entries, self._text_colour):
            return
        self._entries = tuple(entries)
        self._text_colour = text_colour
        names = ", ".join(name for name, _ in self._entries)
        self.setAccessibleName(f"Legend: {names}" if names else "")
        self.updateGeometry()
        self.update()

    @override
    def sizeHint(self) -> QSize:
        metrics = QFontMetrics(self.font())
        widths = [SQUARE + _INNER + metrics.horizontalAdvance(name) for name, _ in self._entries]
        return QSize(sum(widths) + _BETWEEN * max(0, len(widths) - 1) + 1, max(metrics.height(), SQUARE))

    @override
    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    @override
    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        metrics = painter.fontMetrics()
        left, middle = 0.0, self.height() / 2
        for name, colour in self._entries:
            square = QRectF(left, middle - SQUARE / 2, SQUARE, SQUARE)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(colour))
            painter.drawRoundedRect(square, 2, 2)
            width = metrics.horizontalAdvance(name)
            painter.setPen(QColor(self._text_colour))
            text = QRectF(left + SQUARE + _INNER, 0, width + 1, self.height())
            painter.drawText(text, Qt.AlignmentFlag.AlignVCenter, name)
            left += SQUARE + _INNER + width + _BETWEEN
        painter.end()
