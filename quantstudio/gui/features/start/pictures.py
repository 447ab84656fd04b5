"""The small picture of a session: how much each layer suffers, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QPainter, QPen, QPixmap

from quantstudio.core.session_summary import MeasuredDot, SessionSummary
from quantstudio.gui.theme import Theme

MARGIN = 10
DOT_PX = 3.5
BAR_MIN_PX = 1.5
BAR_MAX_PX = 14.0
GAP_SHARE = 0.25
# A bar that reaches so far up the scale is one of those the loss comes from.
TALL = 0.5
BARS_SHARE = 0.62


class Pictures:
    """Draws each picture once for every theme and size."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], QPixmap] = {}

    def of(self, summary: SessionSummary, theme: Theme, width: int, height: int, ratio: float) -> QPixmap:
        """The picture of a summary; empty where there is nothing to draw."""
        key = (summary.sensitivity, summary.dots, theme.name, width, height, ratio)
        if key not in self._made:
            self._made[key] = _draw(summary, theme, width, height, ratio)
        return self._made[key]


def _draw(summary: SessionSummary, theme: Theme, width: int, height: int, ratio: float) -> QPixmap:
    made = QPixmap(round(width * ratio), round(height * ratio))
    made.setDevicePixelRatio(ratio)
    made.fill(Qt.GlobalColor.transparent)
    painter = QPainter(made)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    room = QRectF(MARGIN, MARGIN, width - 2 * MARGIN, height - 2 * MARGIN)
    has_dots = len(summary.dots) > 1
    if summary.sensitivity and has_dots:
        left = QRectF(room.left(), room.top(), room.width() * BARS_SHARE, room.height())
        right = room.adjusted(left.width() + 2 * MARGIN, 0, 0, 0)
        _bars(painter, theme, left, summary.sensitivity)
        _dots(painter, theme, right, summary.dots)
    elif summary.sensitivity:
        _bars(painter, theme, room, summary.sensitivity)
    elif has_dots:
        _dots(painter, theme, room, summary.dots)
    painter.end()
    return made


def _bars(painter: QPainter, theme: Theme, room: QRectF, values: Sequence[float]) -> None:
    """One a layer, from zero up to the largest."""
    largest = max(values)
    step = min(BAR_MAX_PX, room.width() / len(values))
    wide = max(BAR_MIN_PX, step * (1 - GAP_SHARE))
    painter.setPen(QPen(theme.color("border"), 1))
    painter.drawLine(room.bottomLeft(), QPointF(room.left() + step * len(values), room.bottom()))
    painter.setPen(Qt.PenStyle.NoPen)
    for i, value in enumerate(values):
        share = max(0.0, value / largest) if largest > 0 else 0.0
        high = max(1.0, share * room.height())
        painter.setBrush(theme.color("q" if share >= TALL else "fp"))
        painter.drawRect(QRectF(room.left() + i * step, room.bottom() - high, wide, high))


def _dots(painter: QPainter, theme: Theme, room: QRectF, dots: Sequence[MeasuredDot]) -> None:
    """Every measured variant: smaller files to the left, better ones up."""
    values, shares = [dot.value for dot in dots], [dot.size_share for dot in dots]
    low, high, widest = min(values), max(values), max(1.0, *shares)
    painter.setPen(QPen(theme.color("border"), 1))
    painter.drawLine(room.bottomLeft(), room.bottomRight())
    painter.drawLine(room.bottomLeft(), room.topLeft())
    painter.setPen(QPen(theme.color("surface"), 1))
    inner = room.adjusted(DOT_PX + 2, DOT_PX, -DOT_PX, -DOT_PX - 2)
    for i, dot in enumerate(dots):
        up = (dot.value - low) / (high - low) if high > low else 1.0
        x = inner.left() + inner.width() * dot.size_share / widest
        painter.setBrush(theme.color("fp" if i == 0 else "q"))
        painter.drawEllipse(QPointF(x, inner.bottom() - inner.height() * up), DOT_PX, DOT_PX)
