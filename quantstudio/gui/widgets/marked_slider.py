"""A slider with named places on its track: where INT4, INT8 and FP32 lie."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QSlider, QWidget
from typing_extensions import override

from quantstudio.gui.theme import current_theme, theme_hub, ui_font

STEPS = 1000
_HANDLE_PX = 14
_TRACK_PX = 4
_WORDS_PX = 9
_HEIGHT_PX = 32
_GAP_PX = 6


class MarkedSlider(QSlider):
    """Zero to `STEPS`; a click goes where it points."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(Qt.Orientation.Horizontal, parent)
        self._marks: tuple[tuple[float, str], ...] = ()
        self.setRange(0, STEPS)
        self.setPageStep(STEPS // 10)
        self.setSingleStep(STEPS // 100)
        self.setMinimumWidth(80)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        theme_hub().theme_changed.connect(self._on_theme_changed)

    def set_marks(self, marks: Sequence[tuple[float, str]]) -> None:
        """Pairs (place from 0 to 1, word); words that would run into each other are left out."""
        self._marks = tuple(marks)
        self.update()

    @property
    def marks(self) -> tuple[tuple[float, str], ...]:
        """What `set_marks` took."""
        return self._marks

    @override
    def sizeHint(self) -> QSize:
        return QSize(160, _HEIGHT_PX)

    @override
    def minimumSizeHint(self) -> QSize:
        return QSize(80, _HEIGHT_PX)

    def _left(self, share: float) -> float:
        return _HANDLE_PX / 2 + share * (self.width() - _HANDLE_PX)

    def _point_to(self, event: QMouseEvent) -> None:
        room = max(1, self.width() - _HANDLE_PX)
        self.setValue(round(STEPS * (event.position().x() - _HANDLE_PX / 2) / room))

    @override
    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self.setSliderDown(True)
            self._point_to(event)

    @override
    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self.isSliderDown():
            self._point_to(event)

    @override
    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self.setSliderDown(False)

    @override
    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        middle, at = _HANDLE_PX / 2 + 1, self._left(self.value() / STEPS)
        track = QRectF(self._left(0), middle - _TRACK_PX / 2, self.width() - _HANDLE_PX, _TRACK_PX)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.color("border"))
        painter.drawRoundedRect(track, 2, 2)
        painter.setBrush(theme.color("accent" if self.isEnabled() else "faint"))
        painter.drawRoundedRect(QRectF(track.left(), track.top(), at - track.left(), _TRACK_PX), 2, 2)
        self._paint_marks(painter, middle)
        ring = "text" if self.hasFocus() else "accent" if self.isEnabled() else "faint"
        painter.setPen(QPen(theme.color(ring), 2))
        painter.setBrush(theme.color("surface"))
        painter.drawEllipse(QRectF(at - _HANDLE_PX / 2 + 1, 1, _HANDLE_PX - 2, _HANDLE_PX - 2))
        painter.end()

    def _paint_marks(self, painter: QPainter, middle: float) -> None:
        theme = current_theme()
        painter.setFont(ui_font(_WORDS_PX))
        metrics = painter.fontMetrics()
        free = 0.0
        for share, word in sorted(self._marks):
            if not 0 <= share <= 1:
                continue
            x, width = self._left(share), metrics.horizontalAdvance(word)
            left = min(max(0.0, x - width / 2), self.width() - width)
            painter.setPen(QPen(theme.color("faint"), 1))
            painter.drawLine(round(x), round(middle + 5), round(x), round(middle + 9))
            if left >= free:
                painter.setPen(theme.color("muted"))
                painter.drawText(QRectF(left, middle + 10, width + 1, metrics.height()), 0, word)
                free = left + width + _GAP_PX

    def _on_theme_changed(self, _theme: object) -> None:
        self.update()
