"""Plot axes that write figures as the rest of the window does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyqtgraph as pg
from PySide6.QtCore import QPointF, Qt
from PySide6.QtGui import QFontMetrics, QPainter, QPen
from PySide6.QtWidgets import QStyleOptionGraphicsItem, QWidget
from typing_extensions import override

from quantstudio.core import figures

_GAP_PX = 4
_FAINTEST = 12  # of 255; fainter lines between the ticks cannot be seen
TWO_LINES_PX = 36


class FigureAxis(pg.AxisItem):
    """An axis with a true minus sign, thin thousands spaces and no hidden "(x0.001)".

    A logarithmic axis labels whole decades as powers of ten.
    """

    picture: Any

    def __init__(self, orientation: str) -> None:
        super().__init__(orientation)
        self.enableAutoSIPrefix(False)

    @override
    def paint(self, p: QPainter, opt: QStyleOptionGraphicsItem, widget: QWidget | None = None) -> None:
        """Draws the lines and words themselves: replaying a recorded image lays every word out anew.

        `self.picture` is what pyqtgraph clears when anything changed; here it holds what has to be drawn.
        """
        if self.picture is None:
            p.save()
            p.setFont(self.style["tickFont"] or self.font())
            specs: Any = self.generateDrawSpecs(p)
            p.restore()
            if specs is not None:
                axis, lines, words = specs
                self.picture = (axis, [line for line in lines if _is_seen(*line)], words)
        if self.picture is not None:
            p.save()
            self.drawPicture(p, *self.picture)
            p.restore()

    @override
    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        if self.logMode:
            return [_decade(value) for value in values]
        digits = max(0, math.ceil(-math.log10(spacing * scale) - 1e-9)) if spacing > 0 else 0
        if digits > 4:
            return [figures.significant(value * scale, 2) for value in values]
        return [figures.number(value * scale, digits) if value else "0" for value in values]


class WholeNumberAxis(FigureAxis):
    """An axis of indices: only whole numbers get a tick."""

    @override
    def tickSpacing(self, minVal: float, maxVal: float, size: float) -> list[tuple[float, float]]:
        levels = super().tickSpacing(minVal, maxVal, size)
        return [(max(1.0, spacing), offset) for spacing, offset in levels if spacing >= 1] or [(1.0, 0.0)]


class NamedAxis(FigureAxis):
    """An axis whose ticks are words at given positions, elided where they would collide.

    Args:
        elide: Where words are cut: names that begin alike are told apart by their ends.
    """

    def __init__(self, orientation: str, elide: Qt.TextElideMode = Qt.TextElideMode.ElideRight) -> None:
        super().__init__(orientation)
        self._elide = elide
        self._names: dict[float, str] = {}
        self._shorter: dict[float, str] = {}
        self.setHeight(TWO_LINES_PX)

    def set_names(self, names: dict[float, str], shorter: dict[float, str] | None = None) -> None:
        """Words by position; the shorter ones stand where the others would be cut."""
        self._names, self._shorter = dict(names), dict(shorter or {})
        self.setTicks([list(self._names.items())])

    @override
    def generateDrawSpecs(self, p: QPainter) -> object:
        """Elides the words to the room between two ticks before they are laid out."""
        low, high = self.range
        per_unit = self.size().width() / (high - low) if high > low else 0.0
        metrics = QFontMetrics(self.style["tickFont"] or self.font())

        def widest_of(words: dict[float, str]) -> int:
            return max(map(metrics.horizontalAdvance, words.values()), default=0)

        is_cut = self._shorter and widest_of(self._names) > 2 * per_unit - _GAP_PX
        names = self._shorter if is_cut else self._names
        widest = widest_of(names)
        # Every second word a line lower doubles the room.
        rows = 2 if widest > per_unit - _GAP_PX else 1
        room = int(per_unit * rows - _GAP_PX)
        self._tickLevels = [
            [
                (at, "\n" * (i % rows) + metrics.elidedText(name, self._elide, min(room, inside)))
                for i, (at, name) in enumerate(names.items())
                # A word that ends beyond the axis would not be drawn at all.
                for inside in (int(2 * per_unit * min(at - low, high - at)) - 2,)
            ]
        ]
        return super().generateDrawSpecs(p)


def _is_seen(pen: QPen, start: QPointF, end: QPointF) -> bool:
    """Three lines in four that pyqtgraph draws are too faint to be seen, or have no length."""
    return pen.color().alpha() >= _FAINTEST and start != end


def _decade(exponent: float) -> str:
    if abs(exponent - round(exponent)) > 1e-6:
        return ""
    return figures.significant(10.0 ** round(exponent), 1)
