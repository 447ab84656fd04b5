"""Every variant as a dot: what it costs against how good it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, Qt, Signal
from PySide6.QtWidgets import QWidget
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.results import Interval
from quantstudio.gui.plots.plot import Plot
from quantstudio.gui.theme import Theme, current_theme, ui_font

DOT_PX = 11
RING_PX = 21
CLICK_PX = 12
STACK_PX = 8  # by which a dot is larger than the one that covers it
SAME_PLACE = 0.012  # of the range shown
NAMED_UP_TO = 14
NAME_PX = 15
HUNDRED = 100.0
ABOVE_HUNDRED = 0.08


@dataclass(frozen=True, slots=True)
class TradeOffPoint:
    """One dot.

    Attributes:
        key: Identity of the variant.
        name: Name for the screen.
        cost: Megabytes or milliseconds, with its interval.
        quality: Percent, with its interval.
        is_base: The FP32 model.
        is_current: Built from the recipe as it is now.
        is_predicted: A what-if, not measured.
        detail: More lines for the tip.
    """

    key: str
    name: str
    cost: Interval
    quality: Interval
    is_base: bool = False
    is_current: bool = False
    is_predicted: bool = False
    detail: str = ""


def pareto_front(points: Sequence[TradeOffPoint]) -> tuple[TradeOffPoint, ...]:
    """The measured points no other beats in both cost and quality, by cost."""
    front: list[TradeOffPoint] = []
    best = -math.inf
    measured = (p for p in points if not p.is_predicted)
    for point in sorted(measured, key=lambda p: (p.cost.value, -p.quality.value)):
        if point.quality.value > best:
            best = point.quality.value
            front.append(point)
    return tuple(front)


def stack_levels(points: Sequence[TradeOffPoint]) -> list[int]:
    """How many points listed before lie in the same place: a point under others is drawn as a ring."""
    if not points:
        return []
    width = (max(p.cost.value for p in points) - min(p.cost.value for p in points)) * SAME_PLACE
    height = (max(p.quality.high for p in points) - min(p.quality.low for p in points)) * SAME_PLACE
    levels: list[int] = []
    for i, point in enumerate(points):
        below = [
            levels[j]
            for j in range(i)
            if abs(points[j].cost.value - point.cost.value) <= width
            and abs(points[j].quality.value - point.quality.value) <= height
        ]
        levels.append(max(below) + 1 if below else 0)
    return levels


class TradeOffPlot(Plot):
    """Dots with error bars, the Pareto line, a ring around what the recipe is now.

    Signals:
        variant_chosen(str): a measured dot was clicked; its key.
    """

    variant_chosen = Signal(str)

    def __init__(self, name: str = "trade_off", parent: QWidget | None = None) -> None:
        super().__init__(
            name,
            "Accuracy against size",
            ("Model size (MB)", "Top-1 accuracy (%)"),
            empty="No variant has been measured yet.",
            parent=parent,
        )
        self.subtitle.set_wordings(
            "every variant built so far — click a dot to load its recipe",
            "click a dot to load its recipe",
            "",
        )
        self._points: tuple[TradeOffPoint, ...] = ()
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
        self._ring = pg.ScatterPlotItem(size=RING_PX, brush=pg.mkBrush(None))
        self._dots = pg.ScatterPlotItem(size=DOT_PX, hoverable=True, hoverSize=DOT_PX + 4)
        for part in (self._errors, self._front, self._ring, self._dots):
            self.item.addItem(part)
        self._names: list[pg.TextItem] = []

    @property
    def points(self) -> tuple[TradeOffPoint, ...]:
        """What is drawn."""
        return self._points

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
        if is_new:
            self.reset_view()

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
        levels = stack_levels(points)
        self._dots.setData(
            x=x[::-1],
            y=y[::-1],
            size=[DOT_PX + STACK_PX * level for level in levels[::-1]],
            symbol=["d" if p.is_predicted else "s" if p.is_base else "o" for p in points[::-1]],
            brush=[pg.mkBrush(_fill(p, theme)) for p in points[::-1]],
            pen=[pg.mkPen(_edge(p, theme), width=1.5) for p in points[::-1]],
        )
        current = [p for p in points if p.is_current and not p.is_predicted]
        self._ring.setData(
            x=np.asarray([p.cost.value for p in current]),
            y=np.asarray([p.quality.value for p in current]),
            size=[RING_PX + STACK_PX * max(levels, default=0) for _ in current],
        )
        self._ring.setPen(pg.mkPen(theme.accent, width=2))
        self._write_names(theme)

    def _write_names(self, theme: Theme) -> None:
        shown = self._points if len(self._points) <= NAMED_UP_TO else ()
        while len(self._names) < len(shown):
            text = pg.TextItem("", anchor=(0.0, 1.0))
            text.setFont(ui_font(11))
            self._names.append(text)
            self.item.addItem(text, ignoreBounds=True)
        for i, text in enumerate(self._names):
            text.setVisible(i < len(shown))
            if i < len(shown):
                text.setText(shown[i].name)
                text.setColor(theme.accent if shown[i].is_current else theme.muted)
        self._place_names()

    def _place_names(self) -> None:
        """Beside the dot where there is room: above it, else below, else on a further line."""
        view = self.item.getViewBox()
        (left, right), (_, top) = view.viewRange()
        px, py = view.viewPixelSize()
        taken: list[tuple[float, float, float]] = []
        for point, text in zip(self._points, self._names, strict=False):
            if not text.isVisible():
                continue
            is_right = point.cost.value > (left + right) / 2
            beside = (RING_PX / 2 + 3 if point.is_current else DOT_PX) * px
            width = text.boundingRect().width() * px
            x = point.cost.value - beside if is_right else point.cost.value + beside
            start = x - width if is_right else x
            free = [
                y
                for lines in (1.3, -0.3, 2.3, -1.3, 3.3, -2.3)
                if (y := point.quality.value + (lines - 0.5) * NAME_PX * py) < top
                and not any(
                    s < start + width and start < e and abs(t - y) < NAME_PX * py for s, e, t in taken
                )
            ]
            y = free[0] if free else point.quality.value
            taken.append((start, start + width, y))
            text.setAnchor((1.0, 0.5) if is_right else (0.0, 0.5))
            text.setPos(x, y)

    @override
    def reset_view(self) -> None:
        if not self._points:
            return
        xs = [v for p in self._points for v in (p.cost.low, p.cost.value, p.cost.high)]
        ys = [v for p in self._points for v in (p.quality.low, p.quality.value, p.quality.high)]
        air_x = (max(xs) - min(xs)) * 0.12 or max(xs) * 0.1 or 1.0
        air_y = (max(ys) - min(ys)) * 0.15 or 0.5
        self.item.getViewBox().setRange(
            xRange=(max(0.0, min(xs) - air_x), max(xs) + air_x),
            yRange=(min(ys) - air_y, max(ys) + min(air_y, _air_below(max(ys)))),
            padding=0,
        )

    def _words(self) -> str:
        lines = [
            f"{p.name}: {figures.significant(p.cost.value)}, {figures.number(p.quality.value, 2)} %"
            + (" (predicted)" if p.is_predicted else "")
            for p in self._points
        ]
        return f"{self.labels[0]} against {self.labels[1]}. " + "; ".join(lines) + "."

    def _point_at(self, position: QPointF) -> TradeOffPoint | None:
        view = self.item.getViewBox()
        nearest: tuple[float, TradeOffPoint] | None = None
        for point in self._points:
            place = view.mapViewToScene(QPointF(point.cost.value, point.quality.value))
            distance = math.hypot(place.x() - position.x(), place.y() - position.y())
            if distance <= CLICK_PX and (nearest is None or distance < nearest[0]):
                nearest = (distance, point)
        return nearest[1] if nearest else None

    def _on_clicked(self, event: object) -> None:
        if self.is_empty or event.button() != Qt.MouseButton.LeftButton:  # type: ignore[attr-defined]
            return
        point = self._point_at(event.scenePos())  # type: ignore[attr-defined]
        if point is not None and not point.is_predicted:
            self.variant_chosen.emit(point.key)

    def _on_moved(self, position: QPointF) -> None:
        point = None if self.is_empty else self._point_at(position)
        can_click = point is not None and not point.is_predicted
        self.view.setCursor(Qt.CursorShape.PointingHandCursor if can_click else Qt.CursorShape.ArrowCursor)
        self.view.setToolTip("" if point is None else f"{point.name}\n{point.detail}".strip())

    def _on_range_changed(self, *_args: object) -> None:
        self._place_names()

    @override
    def legend_entries(self, theme: Theme) -> Sequence[tuple[str, str]]:
        entries = [("FP32", theme.fp), ("variant", theme.q)]
        if any(p.is_current for p in self._points):
            entries.append(("current recipe", theme.accent))
        return entries

    @override
    def recolour(self, theme: Theme) -> None:
        if self._points:
            self._draw(theme)


def _air_below(highest: float) -> float:
    """Room above the highest share: none of it says more than 100 %."""
    return max(HUNDRED - highest, 0.0) + ABOVE_HUNDRED if highest <= HUNDRED else math.inf


def _fill(point: TradeOffPoint, theme: Theme) -> str:
    if point.is_predicted:
        return theme.surface
    return theme.fp if point.is_base else theme.q


def _edge(point: TradeOffPoint, theme: Theme) -> str:
    return theme.accent if point.is_predicted else theme.surface
