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
_NAME_MIN = 14
# Less of a longer name is no word any more.
_LEGIBLE_PX = 60


class Legend(QWidget):
    """Draws each entry as a square and a caption; the names are also its accessible name."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._entries: tuple[tuple[str, str], ...] = ()
        self._text_colour = "#5B6470"
        font = self.font()
        font.setPixelSize(11)
        self.setFont(font)
        self.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Preferred)

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
        self.setToolTip(names)
        self.updateGeometry()
        self.update()

    @override
    def sizeHint(self) -> QSize:
        metrics = QFontMetrics(self.font())
        widths = [SQUARE + _INNER + metrics.horizontalAdvance(name) for name, _ in self._entries]
        return QSize(sum(widths) + _BETWEEN * max(0, len(widths) - 1) + 1, max(metrics.height(), SQUARE))

    @override
    def minimumSizeHint(self) -> QSize:
        # Long names give way before they hold the whole window open.
        hint = self.sizeHint()
        least = (SQUARE + _INNER + _NAME_MIN + _BETWEEN) * len(self._entries)
        return QSize(min(hint.width(), least), hint.height())

    def _rooms(self, metrics: QFontMetrics) -> list[int]:
        """Width of each name: all of it, or an equal part of what there is for those longer than that."""
        wanted = [metrics.horizontalAdvance(name) for name, _ in self._entries]
        fixed = (SQUARE + _INNER) * len(wanted) + _BETWEEN * max(0, len(wanted) - 1) + 1
        left, rooms = self.width() - fixed, dict[int, int]()
        for rank, i in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
            rooms[i] = max(0, min(wanted[i], left // (len(wanted) - rank)))
            left -= rooms[i]
        return [rooms[i] for i in range(len(wanted))]

    @property
    def is_legible(self) -> bool:
        """Whether there is room for words: squares without any say nothing; the tool tip has the names."""
        metrics = QFontMetrics(self.font())
        rooms = zip(self._entries, self._rooms(metrics), strict=True)
        return all(room >= min(metrics.horizontalAdvance(name), _LEGIBLE_PX) for (name, _), room in rooms)

    @override
    def paintEvent(self, event: QPaintEvent) -> None:
        if not self.is_legible:
            return
        painter = QPainter(self)
        metrics = painter.fontMetrics()
        left, middle = 0.0, self.height() / 2
        for (name, colour), width in zip(self._entries, self._rooms(metrics), strict=True):
            square = QRectF(left, middle - SQUARE / 2, SQUARE, SQUARE)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(colour))
            painter.drawRoundedRect(square, 2, 2)
            painter.setPen(QColor(self._text_colour))
            text = QRectF(left + SQUARE + _INNER, 0, width + 1, self.height())
            shown = metrics.elidedText(name, Qt.TextElideMode.ElideMiddle, width + 1)
            painter.drawText(text, Qt.AlignmentFlag.AlignVCenter, shown)
            left += SQUARE + _INNER + width + _BETWEEN
        painter.end()
