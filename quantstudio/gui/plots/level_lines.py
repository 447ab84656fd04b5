"""Lines where the levels of weights are, with the integers they are stored as where there is room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg

from quantstudio.gui.plots.figure import Figure
from quantstudio.gui.theme import Theme, current_theme, ui_font

MOST_NAMED = 16
_NAME_PX = 26


class LevelLines:
    """Vertical lines over the height of a figure."""

    def __init__(self, figure: Figure) -> None:
        self._figure = figure
        self._levels: tuple[float, ...] = ()
        self._codes: tuple[int, ...] = ()
        self._lines = pg.PlotCurveItem(connect="pairs")
        self._lines.setZValue(5)
        figure.addItem(self._lines, ignoreBounds=True)
        self._names: list[pg.TextItem] = []

    def show_levels(self, levels: Sequence[float], codes: Sequence[int]) -> None:
        """Draw these; none hides all."""
        self._levels, self._codes = tuple(levels), tuple(codes)
        while len(self._names) < min(len(levels), MOST_NAMED):
            name = pg.TextItem("", anchor=(0.5, 0.0))
            name.setFont(ui_font(11, semibold=True))
            name.setZValue(6)
            self._names.append(name)
            self._figure.addItem(name, ignoreBounds=True)
        self.recolour(current_theme())
        self.place()

    def place(self) -> None:
        """Fit them to what is seen."""
        (left, right), (low, high) = self._figure.getViewBox().viewRange()
        self._lines.setData(
            np.repeat(np.asarray(self._levels, np.float64), 2), np.tile([low, high], len(self._levels))
        )
        gaps = np.diff(self._levels) if len(self._levels) > 1 else np.asarray([right - left])
        pixel = max(self._figure.getViewBox().viewPixelSize()[0], 1e-300)
        is_named = 0 < len(self._levels) <= MOST_NAMED and float(gaps.min()) / pixel >= _NAME_PX
        for i, name in enumerate(self._names):
            name.setVisible(is_named and i < len(self._levels))
            if is_named and i < len(self._levels):
                name.setText(str(self._codes[i]).replace("-", "−"))
                name.setPos(self._levels[i], high)

    def recolour(self, theme: Theme) -> None:
        """Take the colours of the theme."""
        width = 2 if len(self._levels) <= MOST_NAMED else 1
        self._lines.setPen(pg.mkPen(theme.q, width=width))
        for name in self._names:
            name.setColor(theme.q)
            name.fill = pg.mkBrush(theme.surface)
