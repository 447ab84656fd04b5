"""Predicted against measured: every variant of the project, with the interval that should have held it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, Qt
from PySide6.QtWidgets import QWidget
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.predict.check import PredictionPoint, trust
from quantstudio.gui.plots.name_places import NamePlaces
from quantstudio.gui.plots.plot import Plot
from quantstudio.gui.theme import Theme, current_theme

DOT_PX = 11
NEAR_PX = 12
NAMED_UP_TO = 12
NAME_PX = 15
AIR = 0.08


class PredictionCheckPlot(Plot):
    """One dot per variant: predicted along, measured up. On the diagonal both are the same."""

    def __init__(self, name: str = "prediction_check", parent: QWidget | None = None) -> None:
        super().__init__(
            name, "Predicted against measured", ("Predicted", "Measured"), empty="", parent=parent
        )
        self._points: tuple[PredictionPoint, ...] = ()
        self._named: tuple[PredictionPoint, ...] = ()
        self._is_log = False
        self._of: tuple[object, ...] = ()
        self._add_items()
        self.item.showGrid(x=True, y=True, alpha=0.16)
        self.item.getViewBox().setMouseEnabled(x=True, y=True)
        self.item.scene().sigMouseMoved.connect(self._on_moved)
        self.item.getViewBox().sigRangeChanged.connect(self._place_names)
        self.item.getViewBox().sigResized.connect(self._place_names)
        self.retheme()

    def _add_items(self) -> None:
        nothing = np.zeros(0)
        self._diagonal = pg.InfiniteLine(pos=(0, 0), angle=45)
        self._bars = pg.ErrorBarItem(x=nothing, y=nothing, left=nothing, right=nothing, beam=0.0)
        self._dots = pg.ScatterPlotItem(size=DOT_PX, hoverable=True, hoverSize=DOT_PX + 4, tip=None)
        self.item.addItem(self._diagonal, ignoreBounds=True)
        self.item.addItem(self._bars)
        self.item.addItem(self._dots)
        self._names: list[pg.TextItem] = []

    @property
    def points(self) -> tuple[PredictionPoint, ...]:
        """What is drawn."""
        return self._points

    def show_points(
        self, points: Sequence[PredictionPoint], figure: str, unit: str, *, is_log: bool = False
    ) -> None:
        """Draw these, in the unit of the axes; `is_log` for figures that span decades (all above 0)."""
        label = f"{figure} ({unit})" if unit else figure
        # Another figure lies elsewhere, though it is of the same variants: the axes must follow.
        shown = (label, is_log, *(p.name for p in points))
        is_new, self._of = shown != self._of, shown
        self._points, self._is_log = tuple(points), is_log
        for axis in ("left", "bottom"):
            self.item.getAxis(axis).setLogMode(is_log)
        self.set_labels(f"Predicted {label}", f"Measured {label}")
        self.subtitle.set_wordings(*_verdicts(points))
        self._draw(current_theme())
        self.show_plot(self._words(label))
        if is_new:
            self.reset_view()

    def _at(self, value: float) -> float:
        return math.log10(value) if self._is_log else value

    def _draw(self, theme: Theme) -> None:
        points = self._points
        x = np.asarray([self._at(p.predicted) for p in points])
        y = np.asarray([self._at(p.measured) for p in points])
        left = np.asarray([self._at(p.predicted) - self._at(p.low) for p in points])
        right = np.asarray([self._at(p.high) - self._at(p.predicted) for p in points])
        self._bars.setData(x=x, y=y, left=left, right=right)
        self._bars.setOpts(pen=pg.mkPen(theme.faint, width=1.2))
        colours = [_colour(p, theme) for p in points]
        self._dots.setData(
            x=x, y=y, brush=[pg.mkBrush(c) for c in colours], pen=pg.mkPen(theme.surface, width=1.5)
        )
        self._diagonal.setPen(pg.mkPen(theme.muted, width=1.2, style=Qt.PenStyle.DashLine))
        shown = points if len(points) <= NAMED_UP_TO else tuple(p for p in points if not p.is_inside)
        for point, text in zip(shown, self.texts_of(self._names, len(shown), (0.0, 0.5)), strict=True):
            text.setText(point.name)
            text.setColor(theme.muted)
        self._named = tuple(shown)
        self._place_names()

    def _place_names(self, *_args: object) -> None:
        """Beside its dot, off every dot and every other name; where nothing near is free the tip has it."""
        places = NamePlaces(self.item.getViewBox())
        for point in self._points:
            y = self._at(point.measured)
            places.block(self._at(point.predicted), y, DOT_PX / 2)
            places.block_line((self._at(point.low), y), (self._at(point.high), y))
        (left, right), _ = self.item.getViewBox().viewRange()
        places.block_curve((left, right), (left, right))
        for point, text in zip(self._named, self._names, strict=False):
            width = text.boundingRect().width()
            x, y = self._at(point.predicted), self._at(point.measured)
            place = places.take(x, y, width, NAME_PX, DOT_PX / 2)
            text.setVisible(place is not None)
            if place is not None:
                text.setAnchor((0.0, 0.5))
                text.setPos(*places.at(place))

    @override
    def reset_view(self) -> None:
        if not self._points:
            return
        values = [self._at(v) for p in self._points for v in (p.low, p.high, p.measured)]
        low, high = min(values), max(values)
        if self._is_log:  # only whole decades have words
            low, high = math.floor(low), math.ceil(high)
        air = (high - low) * AIR or abs(high) * AIR or 1.0
        self.item.getViewBox().setRange(
            xRange=(low - air, high + air), yRange=(low - air, high + air), padding=0
        )

    def _words(self, label: str) -> str:
        lines = [
            f"{p.name}: {figures.significant(p.predicted)} predicted, "
            f"{figures.significant(p.measured)} measured, {'inside' if p.is_inside else 'outside'}"
            for p in self._points
        ]
        return f"{label}. {_verdicts(self._points)[0]}. " + "; ".join(lines) + "."

    def _on_moved(self, position: QPointF) -> None:
        view, nearest = self.item.getViewBox(), None
        for point in () if self.is_empty else self._points:
            place = view.mapViewToScene(QPointF(self._at(point.predicted), self._at(point.measured)))
            if math.hypot(place.x() - position.x(), place.y() - position.y()) <= NEAR_PX:
                nearest = point
        self.view.setToolTip("" if nearest is None else _tip(nearest))

    @override
    def legend_entries(self, theme: Theme) -> Sequence[tuple[str, str]]:
        entries = [("inside its interval", theme.ok)]
        if not all(p.is_inside for p in self._points):
            entries.append(("outside", theme.bad))
        return entries

    @override
    def recolour(self, theme: Theme) -> None:
        if self._points:
            self._draw(theme)


def _verdicts(points: Sequence[PredictionPoint]) -> tuple[str, str]:
    """How many the interval held, long and short."""
    sums = trust(points)
    share = f"{sums.inside} of {sums.plans}"
    return (
        f"{share} inside the {figures.number(100 * sums.rate, 0)} % interval; each predicted without itself",
        f"{share} inside",
    )


def _tip(point: PredictionPoint) -> str:
    ends = f"[{figures.significant(point.low, 4)}, {figures.significant(point.high, 4)}]"
    return (
        f"{point.name}\n{figures.significant(point.predicted, 4)} predicted  {ends}\n"
        f"{figures.significant(point.measured, 4)} measured, {'inside' if point.is_inside else 'outside'}"
    )


def _colour(point: PredictionPoint, theme: Theme) -> str:
    return theme.ok if point.is_inside else theme.bad
