"""How long the runs took, model by model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.results import LatencyResult
from quantstudio.gui.plots.plot import Plot
from quantstudio.gui.theme import Theme, current_theme, ui_font

BINS = 72
_LINE_PX = 15
# Slower runs are counted in the last bin: one pause of the machine must not squeeze everything to the left.
_TAIL_PERCENTILE = 99.0
_TAIL_REACH = 1.5  # times the ninetieth percentile, where the tail is longer than that
_TEXT_SHARE = 0.36  # of the width, kept free of medians where the figures stand
_AIR = 1.12  # height of the axis in peaks
# Most of the height that the figures may have for themselves: a low plot shows its runs first.
_MAX_FIGURES = 0.45


class LatencyPlot(Plot):
    """A step histogram of the timed runs of each model, with its median as a dashed line."""

    def __init__(self, name: str = "latency", parent: QWidget | None = None) -> None:
        super().__init__(
            name,
            "Latency distribution",
            ("Latency (ms)", "Runs"),
            empty="Measure a variant to see its latency.",
            parent=parent,
        )
        self._models: tuple[tuple[str, LatencyResult], ...] = ()
        self._is_narrow = False
        self._curves: list[pg.PlotCurveItem] = []
        self._medians: list[pg.InfiniteLine] = []
        self._texts: list[pg.TextItem] = []
        self.item.getViewBox().setMouseEnabled(x=True, y=False)
        self.item.getViewBox().sigRangeChanged.connect(self._on_range_changed)
        self.item.getViewBox().sigResized.connect(self._on_resized)
        self.retheme()

    def show_models(self, models: Sequence[tuple[str, LatencyResult]]) -> None:
        """Draw the runs of these models, the base first."""
        self._models = tuple((name, result) for name, result in models if result.samples_ms)
        if not self._models:
            self.show_empty("Measure a variant to see its latency.")
            return
        first = self._models[0][1]
        threads = f"{first.threads} thread{'s'[: first.threads != 1]}"
        runs = min(result.runs for _, result in self._models)
        self.subtitle.set_wordings(
            f"{runs} interleaved runs, batch {first.batch}, {threads}, {first.provider}",
            f"{runs} runs, batch {first.batch}, {threads}",
            f"{runs} runs",
            "",
        )
        self._draw(current_theme())
        self.reset_view()
        self.show_plot(self._words())

    def set_narrow(self, is_narrow: bool) -> None:
        """Name the models beside their medians, where the header has no room for a legend."""
        if is_narrow != self._is_narrow:
            self._is_narrow = is_narrow
            self.retheme()

    def _edges(self) -> np.typing.NDArray[np.float64]:
        samples = [np.asarray(result.samples_ms) for _, result in self._models]
        low = min(float(s.min()) for s in samples)
        tail = max(float(np.percentile(s, _TAIL_PERCENTILE)) for s in samples)
        most = max(float(np.percentile(s, 90)) for s in samples)
        high = min(tail, most * _TAIL_REACH)
        air = (high - low) * 0.04 or max(low * 0.05, 1e-3)
        return np.linspace(max(0.0, low - air), high + air, BINS + 1)

    def _draw(self, theme: Theme) -> None:
        edges = self._edges()
        self._grow(len(self._models))
        for i, curve in enumerate(self._curves):
            is_used = i < len(self._models)
            for part in (curve, self._medians[i], self._texts[i]):
                part.setVisible(is_used)
            if not is_used:
                continue
            colour = theme.series[i % len(theme.series)]
            samples = np.minimum(np.asarray(self._models[i][1].samples_ms), edges[-1])
            fill = QColor(colour)
            fill.setAlpha(90)
            curve.setData(edges, np.histogram(samples, edges)[0].astype(np.float64), stepMode="center")
            curve.setPen(pg.mkPen(colour, width=1.2))
            curve.setBrush(fill)
            p50 = self._models[i][1].p50
            self._medians[i].setValue(p50)
            self._medians[i].setPen(pg.mkPen(colour, width=1.4, style=Qt.PenStyle.DashLine))
            name = f"{self._models[i][0]}  " if self._is_narrow else ""
            self._texts[i].setText(f"{name}p50 {figures.milliseconds(p50)}")
            self._texts[i].setColor(colour)
            # A dashed line or bar behind it must not cross the letters.
            ground = QColor(theme.surface)
            ground.setAlpha(215)
            self._texts[i].fill = pg.mkBrush(ground)
        self._place_texts()

    def _grow(self, size: int) -> None:
        while len(self._curves) < size:
            curve = pg.PlotCurveItem([0.0, 1.0], [0.0], stepMode="center", fillLevel=0, antialias=False)
            median = pg.InfiniteLine(0.0)
            text = pg.TextItem("", anchor=(0.0, 0.0))
            text.setFont(ui_font(11))
            text.setZValue(1)
            self._curves.append(curve)
            self._medians.append(median)
            self._texts.append(text)
            self.item.addItem(curve)
            self.item.addItem(median, ignoreBounds=True)
            self.item.addItem(text, ignoreBounds=True)

    def _place_texts(self) -> None:
        """One below the other in the corner where no median passes, in the colours of their curves."""
        view = self.item.getViewBox()
        (left, right), (_, top) = view.viewRange()
        px, py = view.viewPixelSize()
        medians = [result.p50 for _, result in self._models]
        free_right = all(m < right - (right - left) * _TEXT_SHARE for m in medians)
        free_left = all(m > left + (right - left) * _TEXT_SHARE for m in medians)
        on_right = free_right or not free_left
        for i, text in enumerate(self._texts[: len(medians)]):
            text.setAnchor((1.0 if on_right else 0.0, 0.0))
            text.setPos(right - 4 * px if on_right else left + 4 * px, top - i * _LINE_PX * py)

    @override
    def reset_view(self) -> None:
        if not self._models:
            return
        edges = self._edges()
        peak = 1.0
        for _, result in self._models:
            counts = np.histogram(np.minimum(np.asarray(result.samples_ms), edges[-1]), edges)[0]
            peak = max(peak, float(counts.max()))
        view = self.item.getViewBox()
        height = max(float(view.height()), 1.0)
        # Figures stand above the runs, not on them.
        figures_share = min((len(self._models) + 0.5) * _LINE_PX / height, _MAX_FIGURES)
        top = peak * max(_AIR, 1 / (1 - figures_share))
        view.setRange(xRange=(float(edges[0]), float(edges[-1])), yRange=(0, top), padding=0)

    def _words(self) -> str:
        return "; ".join(
            f"{name}: p50 {figures.milliseconds(r.p50)}, p90 {figures.milliseconds(r.p90)}, "
            f"p99 {figures.milliseconds(r.p99)}"
            for name, r in self._models
        )

    def _on_resized(self, *_args: object) -> None:
        self.reset_view()
        self._place_texts()

    def _on_range_changed(self, *_args: object) -> None:
        self._place_texts()

    @override
    def legend_entries(self, theme: Theme) -> Sequence[tuple[str, str]]:
        if self._is_narrow:
            return ()
        names = enumerate(name for name, _ in self._models)
        return [(name, theme.series[i % len(theme.series)]) for i, name in names]

    @override
    def recolour(self, theme: Theme) -> None:
        if self._models:
            self._draw(theme)
