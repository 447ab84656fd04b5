"""The line over the sensitivity bars: everything above it gets one precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import Qt

from quantstudio.gui.plots.sensitivity_scale import SensitivityScale, StripRow
from quantstudio.gui.theme import Theme, ui_font

SHARE_ABOVE = 0.1  # of the layers, where the plan keeps its budget
_ABOVE_ALL = 1.06
_HOVER_PX = 1
_HIGH = 0.88
_PAPER_ALPHA = 215  # behind the word, where it lies over bars


def layers_above(rows: Sequence[StripRow], kl: float) -> tuple[str, ...]:
    """Layers whose bar reaches above a KL, in the rows' order; those not analyzed yet are never above."""
    return tuple(row.layer for row in rows if row.kl is not None and row.kl > kl)


def layers_below(rows: Sequence[StripRow], kl: float) -> tuple[str, ...]:
    """Layers whose bar ends below a KL, in the rows' order."""
    return tuple(row.layer for row in rows if row.kl is not None and row.kl <= kl)


def level_for(rows: Sequence[StripRow], count: int) -> float:
    """A KL that `count` bars reach above, halfway (geometrically) to the next; equal bars stay together."""
    kls = _descending(rows)
    if not len(kls):
        return 0.0
    count = min(max(count, 0), len(kls))
    if count == 0:
        return float(kls[0]) * _ABOVE_ALL
    lowest = float(kls[count - 1])
    if count == len(kls):
        return lowest / 2
    upper = float(kls[count])
    return math.sqrt(lowest * upper) if upper > 0 else lowest / 2


def next_count(rows: Sequence[StripRow], kl: float, step: int) -> int:
    """How many bars are above after a step of the line up (+1, fewer above) or down (-1, more)."""
    kls = _descending(rows)
    above = int((kls > kl).sum())
    if step < 0:
        # Bars of equal height pass together.
        return int((kls >= kls[above]).sum()) if above < len(kls) else above
    return int((kls > kls[above - 1]).sum()) if above else 0


def first_level(rows: Sequence[StripRow], scale: SensitivityScale | None) -> float:
    """Where the line starts: with as many layers above as break the budget, else with a tenth of them."""
    if scale is not None and scale.breaking:
        return level_for(rows, scale.breaking)
    known = sum(row.kl is not None for row in rows)
    return level_for(rows, max(1, round(known * SHARE_ABOVE)))


def _descending(rows: Sequence[StripRow]) -> NDArray[np.float64]:
    kls = np.asarray([row.kl for row in rows if row.kl is not None], dtype=np.float64)
    return np.asarray(np.sort(kls)[::-1])


class ThresholdLine(pg.InfiniteLine):
    """A line to drag, with a word at its left end; `sigDragged` while it moves, in plot coordinates."""

    def __init__(self) -> None:
        super().__init__(0.0, angle=0, movable=True)
        self.setZValue(21)
        self.word = pg.TextItem("", anchor=(0.0, 1.0))
        self.word.setFont(ui_font(11, semibold=True))
        self.word.setZValue(20)
        self.setCursor(Qt.CursorShape.SizeVerCursor)
        self.hide()
        self.word.hide()

    @property
    def is_dragged(self) -> bool:
        """Whether the mouse holds it."""
        return bool(self.moving)

    def show_at(self, y: float, word: str, *, bounds: tuple[float, float], left: float) -> None:
        """Put it at a height between `bounds`, unless the mouse holds it; `left` is the plot's left edge."""
        self.setBounds(bounds)
        if not self.is_dragged:
            self.setValue(y)
        # Near the top there is no room above the line.
        is_high = self.value() > bounds[0] + (bounds[1] - bounds[0]) * _HIGH
        self.word.setAnchor((0.0, 0.0 if is_high else 1.0))
        self.word.setText(word)
        self.word.setPos(left, self.value())
        self.setVisible(True)
        self.word.setVisible(bool(word))

    def disappear(self) -> None:
        """Take it off the plot."""
        self.setVisible(False)
        self.word.setVisible(False)

    def recolour(self, theme: Theme) -> None:
        """Pens and word in the accent."""
        self.setPen(pg.mkPen(theme.accent, width=2))
        self.setHoverPen(pg.mkPen(theme.accent_hover, width=2 + _HOVER_PX))
        self.word.setColor(theme.accent)
        paper = theme.color("surface")
        paper.setAlpha(_PAPER_ALPHA)
        self.word.fill = pg.mkBrush(paper)
        self.word.update()
