"""Every variant as a dot: what it costs against how good it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QWidget
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.gui.plots.name_places import NamePlaces, pixel_size
from quantstudio.gui.plots.plot import Click, Plot
from quantstudio.gui.plots.trade_off_dots import (
    DOT_PX,
    FRONT_SERIES,
    STACK_PX,
    DotRole,
    Limits,
    TradeOffPoint,
    dot_edge,
    dot_fill,
    dot_size,
    dot_symbol,
    pareto_front,
    stack_levels,
    worth_showing,
)
from quantstudio.gui.theme import Theme, current_theme, ui_font

RING_PX = 21
CLICK_PX = 12
NAMED_UP_TO = 14
NAME_PX = 15
HUNDRED = 100.0
ABOVE_HUNDRED = 0.08
SHADE_ALPHA = 22
LEGEND_AIR_PX = 44


class TradeOffPlot(Plot):
    """Dots with error bars, the Pareto line, a ring around what the recipe is now.

    Signals:
        variant_chosen(str): a dot that can be loaded was clicked; its key.
    """

    variant_chosen = Signal(str)

    def __init__(self, name: str = "trade_off", parent: QWidget | None = None) -> None:
        super().__init__(
            name,
            "Quality against size",
            ("Model size (MB)", "Quality (%)"),
            empty="No variant has been measured yet.",
            parent=parent,
        )
        self.subtitle.set_wordings(
            "every variant built so far — click a dot to load its recipe",
            "click a dot to load its recipe",
            "",
        )
        self._points: tuple[TradeOffPoint, ...] = ()
        self._limits = Limits()
        self._add_items()
        self.item.showGrid(x=True, y=True, alpha=0.16)
        self.item.getViewBox().setMouseEnabled(x=True, y=True)
        self.item.scene().sigMouseClicked.connect(self._on_clicked)
        self.item.scene().sigMouseMoved.connect(self._on_moved)
        self.item.getViewBox().sigRangeChanged.connect(self._on_range_changed)
        self.item.getViewBox().sigResized.connect(self._on_range_changed)
        self.retheme()

    def _add_items(self) -> None:
        nothing = np.zeros(0)
        self._errors = pg.ErrorBarItem(x=nothing, y=nothing, top=nothing, bottom=nothing, beam=0.0)
        self._front = pg.PlotCurveItem([], [], antialias=True)
        self._plans = pg.PlotCurveItem([], [], antialias=True)
        self._ring = pg.ScatterPlotItem(size=RING_PX, brush=pg.mkBrush(None))
        self._dots = pg.ScatterPlotItem(size=DOT_PX, hoverable=True, hoverSize=DOT_PX + 4, tip=None)
        self._shades = tuple(
            pg.LinearRegionItem(orientation=way, movable=False) for way in ("vertical", "horizontal")
        )
        self._bounds = tuple(pg.InfiniteLine(angle=angle) for angle in (90, 0))
        self._bound_texts = tuple(pg.TextItem("", anchor=anchor) for anchor in ((1.0, 0.0), (1.0, 0.0)))
        self._level = pg.InfiniteLine(angle=0)
        self._level_text = pg.TextItem("FP32", anchor=(1.0, 1.0))
        for shade in self._shades:
            shade.setZValue(-20)
            for edge in shade.lines:
                edge.setPen(pg.mkPen(None))
        for text in (*self._bound_texts, self._level_text):
            text.setFont(ui_font(11))
        for mark in (*self._shades, *self._bounds, *self._bound_texts, self._level, self._level_text):
            mark.hide()
            self.item.addItem(mark, ignoreBounds=True)
        for part in (self._errors, self._front, self._plans, self._ring, self._dots):
            self.item.addItem(part)
        self._names: list[pg.TextItem] = []
        self._named: tuple[TradeOffPoint, ...] = ()

    @property
    def points(self) -> tuple[TradeOffPoint, ...]:
        """What is drawn."""
        return self._points

    @property
    def _base_name(self) -> str:
        """What the model as it was opened is: "FP32", "INT8 stored"."""
        return next((p.name for p in self._points if p.is_base), "FP32")

    def show_points(
        self, points: Sequence[TradeOffPoint], title: str, horizontal: str, vertical: str
    ) -> None:
        """Draw these dots under that title; the axes keep their zoom while the dots stay the same."""
        is_new = [p.key for p in points] != [p.key for p in self._points] or horizontal != self.labels[0]
        self._points = tuple(points)
        self.set_title(title)
        self.set_labels(horizontal, vertical)
        self._draw(current_theme())
        self.show_plot(self._words())
        self._fit_legend()
        if is_new:
            self.reset_view()

    def show_limits(self, limits: Limits) -> None:
        """Shade what a budget forbids."""
        if limits != self._limits:
            self._limits = limits
            self._draw_limits(current_theme())
            self._place_names()

    @property
    def limits(self) -> Limits:
        """The budget that is shaded."""
        return self._limits

    def _draw_limits(self, theme: Theme) -> None:
        limits = self._limits
        shade = pg.mkColor(theme.bad)
        shade.setAlpha(SHADE_ALPHA)
        sides = ((limits.cost, limits.cost_text), (limits.quality, limits.quality_text))
        for i, (at, words) in enumerate(sides):
            parts = (self._shades[i], self._bounds[i], self._bound_texts[i])
            for part in parts:
                part.setVisible(at is not None)
            if at is None:
                continue
            far = abs(at) * 1e3 + 1e3
            self._shades[i].setRegion((at, far) if i == 0 else (-far, at))
            self._shades[i].setBrush(pg.mkBrush(shade))
            self._bounds[i].setValue(at)
            self._bounds[i].setPen(pg.mkPen(theme.bad, width=1.2, style=Qt.PenStyle.DashLine))
            self._bound_texts[i].setText(words)
            self._bound_texts[i].setColor(theme.bad)

    def _draw_level(self, theme: Theme) -> None:
        """How good FP32 is, where its own dot may be far off."""
        base = next((p for p in self._points if p.is_base), None)
        is_shown = base is not None and any(p.role is DotRole.FRONT for p in self._points)
        self._level.setVisible(is_shown)
        self._level_text.setVisible(is_shown)
        if base is not None and is_shown:
            self._level.setValue(base.quality.value)
            self._level.setPen(pg.mkPen(theme.fp, width=1.2, style=Qt.PenStyle.DashLine))
            self._level_text.setColor(theme.fp)
            self._level_text.setText(self._base_name)

    def _place_bound_texts(self, places: NamePlaces) -> None:
        (left, right), (_, top) = self.item.getViewBox().viewRange()
        px, py = pixel_size(self.item.getViewBox())
        has_room = top - self._level.value() > self._level_text.boundingRect().height() * py
        self._level_text.setAnchor((1.0, 1.0 if has_room else 0.0))
        self._level_text.setPos(right, self._level.value())
        if self._limits.cost is not None:
            # On the side where things are allowed, unless that is out of sight.
            fits = self._limits.cost - left > self._bound_texts[0].boundingRect().width() * px
            self._bound_texts[0].setAnchor((1.0, 0.0) if fits else (0.0, 0.0))
            self._bound_texts[0].setPos(self._limits.cost, top)
        if self._limits.quality is not None:
            # At the right where it can: a front rises at the left.
            size = self._bound_texts[1].boundingRect()
            self._bound_texts[1].setAnchor((0.0, 0.0))
            self._bound_texts[1].setPos(*places.take_below(self._limits.quality, size.width(), size.height()))

    def _draw(self, theme: Theme) -> None:
        points = self._points
        x = np.asarray([p.cost.value for p in points])
        y = np.asarray([p.quality.value for p in points])
        top = np.asarray([max(p.quality.high - p.quality.value, 0.0) for p in points])
        bottom = np.asarray([max(p.quality.value - p.quality.low, 0.0) for p in points])
        right = np.asarray([max(p.cost.high - p.cost.value, 0.0) for p in points])
        left = np.asarray([max(p.cost.value - p.cost.low, 0.0) for p in points])
        self._errors.setData(x=x, y=y, top=top, bottom=bottom, left=left, right=right)
        self._errors.setOpts(pen=pg.mkPen(theme.faint, width=1.2))
        front = pareto_front(points)
        self._front.setData(
            np.asarray([p.cost.value for p in front]), np.asarray([p.quality.value for p in front])
        )
        self._front.setPen(pg.mkPen(theme.q, width=1.6))
        plans = sorted((p for p in points if p.role is DotRole.FRONT), key=lambda p: p.cost.value)
        self._plans.setData(
            np.asarray([p.cost.value for p in plans]), np.asarray([p.quality.value for p in plans])
        )
        self._plans.setPen(pg.mkPen(theme.series[FRONT_SERIES], width=1.6))
        variants = [p for p in points if p.role is DotRole.VARIANT]
        levels = dict(zip((p.key for p in variants), stack_levels(variants), strict=True))
        # The first in the list lies on top.
        self._dots.setData(
            x=x[::-1],
            y=y[::-1],
            size=[dot_size(p, levels.get(p.key, 0)) for p in points[::-1]],
            symbol=[dot_symbol(p) for p in points[::-1]],
            brush=[pg.mkBrush(dot_fill(p, theme)) for p in points[::-1]],
            pen=[pg.mkPen(dot_edge(p, theme), width=1.5) for p in points[::-1]],
        )
        current = [p for p in points if p.is_current and p.can_load]
        self._ring.setData(
            x=np.asarray([p.cost.value for p in current]),
            y=np.asarray([p.quality.value for p in current]),
            size=[RING_PX + STACK_PX * max(levels.values(), default=0) for _ in current],
        )
        self._ring.setPen(pg.mkPen(theme.text, width=2))
        self._draw_limits(theme)
        self._draw_level(theme)
        self._write_names(theme)

    def _write_names(self, theme: Theme) -> None:
        named = tuple(p for p in self._points if p.is_named)
        self._named = shown = named if len(named) <= NAMED_UP_TO else ()
        for point, text in zip(shown, self.texts_of(self._names, len(shown), (0.0, 1.0)), strict=True):
            text.setText(point.name)
            is_marked = point.is_current or point.role is DotRole.CHOSEN
            text.setColor(theme.text if is_marked else theme.muted)
        self._place_names()

    def _place_names(self) -> None:
        """Beside its dot, off every dot and every other name; where nothing near is free the tip has it."""
        places = NamePlaces(self.item.getViewBox())
        for point in self._points:
            places.block(point.cost.value, point.quality.value, self._radius(point))
            x, quality = point.cost.value, point.quality
            if quality.high > quality.low:
                places.block_line((x, quality.low), (x, quality.high))
        for line in (self._front, self._plans):
            xs, ys = line.getData()
            if xs is not None and ys is not None:
                places.block_curve(xs.tolist(), ys.tolist())
        if self._level.isVisible():
            (left, right), _ = self.item.getViewBox().viewRange()
            places.block_line((left, self._level.value()), (right, self._level.value()))
        if self._limits.quality is not None:
            (left, right), _ = self.item.getViewBox().viewRange()
            places.block_line((left, self._limits.quality), (right, self._limits.quality))
        self._place_bound_texts(places)
        # What is loaded, then what is chosen: they get the best places.
        shown = sorted(
            zip(self._named, self._names, strict=False),
            key=lambda one: (not one[0].is_current, one[0].role is not DotRole.CHOSEN),
        )
        for point, text in shown:
            size = text.boundingRect()
            place = places.take(
                point.cost.value, point.quality.value, size.width(), NAME_PX, self._radius(point)
            )
            text.setVisible(place is not None)
            if place is not None:
                text.setAnchor((0.0, 0.5))
                text.setPos(*places.at(place))

    @staticmethod
    def _radius(point: TradeOffPoint) -> float:
        return (RING_PX if point.is_current else dot_size(point, 0)) / 2

    @override
    def reset_view(self) -> None:
        if not self._points:
            return
        shown = worth_showing(self._points)
        xs = [v for p in shown for v in (p.cost.low, p.cost.value, p.cost.high)]
        ys = [v for p in shown for v in (p.quality.low, p.quality.value, p.quality.high)]
        air_x = (max(xs) - min(xs)) * 0.12 or max(xs) * 0.1 or 1.0
        air_y = (max(ys) - min(ys)) * 0.15 or 0.5
        self.item.getViewBox().setRange(
            xRange=(max(0.0, min(xs) - air_x), max(xs) + air_x),
            # A dot at 100 % is drawn whole.
            yRange=(min(ys) - air_y, max(ys) + min(air_y, max(_air_below(max(ys)), air_y / 2))),
            padding=0,
        )

    def _words(self) -> str:
        told = [p for p in self._points if p.is_named or len(self._points) <= NAMED_UP_TO]
        lines = [
            f"{p.name}: {figures.significant(p.cost.value)}, {figures.number(p.quality.value, 2)} %"
            + (" (predicted)" if p.is_predicted else "")
            for p in told
        ]
        return f"{self.labels[0]} against {self.labels[1]}. " + "; ".join(lines) + "."

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_legend()

    def _fit_legend(self) -> None:
        """Squares without words say nothing: a plot too narrow for the legend goes without."""
        room = self.width() - self.title.sizeHint().width() - LEGEND_AIR_PX
        self.legend.setVisible(not self.is_empty and self.legend.sizeHint().width() <= room)

    def _point_at(self, position: QPointF) -> TradeOffPoint | None:
        view = self.item.getViewBox()
        nearest: tuple[float, TradeOffPoint] | None = None
        for point in self._points:
            place = view.mapViewToScene(QPointF(point.cost.value, point.quality.value))
            distance = math.hypot(place.x() - position.x(), place.y() - position.y())
            if distance <= CLICK_PX and (nearest is None or distance < nearest[0]):
                nearest = (distance, point)
        return nearest[1] if nearest else None

    def _on_clicked(self, event: Click) -> None:
        if self.is_empty or event.button() != Qt.MouseButton.LeftButton:
            return
        point = self._point_at(event.scenePos())
        if point is not None and point.can_load:
            self.variant_chosen.emit(point.key)

    def _on_moved(self, position: QPointF) -> None:
        point = None if self.is_empty else self._point_at(position)
        can_click = point is not None and point.can_load
        self.view.setCursor(Qt.CursorShape.PointingHandCursor if can_click else Qt.CursorShape.ArrowCursor)
        self.view.setToolTip("" if point is None else f"{point.name}\n{point.detail}".strip())

    def _on_range_changed(self, *_args: object) -> None:
        self._place_names()

    @override
    def legend_entries(self, theme: Theme) -> Sequence[tuple[str, str]]:
        roles = {p.role for p in self._points}
        entries = [(self._base_name, theme.fp), ("variant", theme.q)]
        if any(p.is_current for p in self._points):
            entries.append(("current", theme.text))
        if DotRole.FRONT in roles:
            entries.append(("front", theme.series[FRONT_SERIES]))
        if DotRole.TRIED in roles:
            entries.append(("tried", theme.faint))
        return entries

    @override
    def recolour(self, theme: Theme) -> None:
        if self._points:
            self._draw(theme)


def _air_below(highest: float) -> float:
    """Room above the highest share: none of it says more than 100 %."""
    return max(HUNDRED - highest, 0.0) + ABOVE_HUNDRED if highest <= HUNDRED else math.inf
