"""Where the weights of each output channel lie: whisker, box and median."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.statistics import WeightStatistics
from quantstudio.gui.plots.axes import WholeNumberAxis
from quantstudio.gui.plots.plot import Plot
from quantstudio.gui.theme import Theme

BOX_WIDTH = 0.7
MEDIAN_PX = 3.5


class ChannelRangesPlot(Plot):
    """One whisker (smallest to largest), box (1st to 99th percentile) and median per channel."""

    def __init__(self, name: str = "channel_ranges", parent: QWidget | None = None) -> None:
        super().__init__(
            name,
            "Per-channel ranges",
            ("Output channel", "Weight value"),
            axes={"bottom": WholeNumberAxis("bottom")},
            empty="Choose a layer with weights.",
            parent=parent,
        )
        self.subtitle.set_wordings("whisker min–max, box p1–p99", "whisker min–max", "")
        nothing = np.zeros(0)
        self._whiskers = pg.ErrorBarItem(x=nothing, y=nothing, top=nothing, bottom=nothing)
        self._boxes = pg.BarGraphItem(x=[], y0=[], y1=[], width=BOX_WIDTH, pen=pg.mkPen(None))
        self._medians = pg.ScatterPlotItem(size=MEDIAN_PX, symbol="s", pen=None)
        for part in (self._whiskers, self._boxes, self._medians):
            self.item.addItem(part)
        self.item.getViewBox().setMouseEnabled(x=True, y=False)
        self._limits = (-0.5, 0.5, -1.0, 1.0)
        self.retheme()

    def show_statistics(self, statistics: WeightStatistics) -> None:
        """Draw the channels of a layer."""
        low = np.asarray(statistics.channel_low, dtype=np.float64)
        high = np.asarray(statistics.channel_high, dtype=np.float64)
        x = np.arange(len(low), dtype=np.float64)
        half = (high - low) / 2
        self._whiskers.setData(x=x, y=(high + low) / 2, top=half, bottom=half)
        self._boxes.setOpts(
            x=x, y0=statistics.channel_p1, y1=statistics.channel_p99, height=None, width=BOX_WIDTH
        )
        self._medians.setData(x=x, y=np.asarray(statistics.channel_median, dtype=np.float64))
        bottom, top = (float(low.min()), float(high.max())) if len(low) else (-1.0, 1.0)
        air = (top - bottom or 1.0) * 0.04
        self._limits = (-0.5, max(len(low) - 0.5, 0.5), bottom - air, top + air)
        self.reset_view()
        self.show_plot(self._words(statistics))

    @override
    def reset_view(self) -> None:
        left, right, bottom, top = self._limits
        self.item.getViewBox().setRange(xRange=(left, right), yRange=(bottom, top), padding=0.01)

    @staticmethod
    def _words(statistics: WeightStatistics) -> str:
        reach = np.maximum(np.abs(statistics.channel_low), np.abs(statistics.channel_high))
        if not len(reach):
            return f"{statistics.layer} has no channels."
        widest, narrowest = int(reach.argmax()), int(reach.argmin())
        return (
            f"{statistics.layer}: {figures.count(len(reach))} channels; widest is channel {widest} with "
            f"±{figures.significant(float(reach[widest]))}, narrowest channel {narrowest} with "
            f"±{figures.significant(float(reach[narrowest]))}."
        )

    @override
    def legend_entries(self, theme: Theme) -> Sequence[tuple[str, str]]:
        return (("p1–p99", theme.fp), ("median", theme.q))

    @override
    def recolour(self, theme: Theme) -> None:
        box = QColor(theme.fp)
        box.setAlpha(150)
        self._whiskers.setOpts(pen=pg.mkPen(theme.faint, width=1))
        self._boxes.setOpts(brush=pg.mkBrush(box))
        self._medians.setBrush(pg.mkBrush(theme.q))
