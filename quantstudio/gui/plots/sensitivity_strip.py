"""Every layer's sensitivity as a strip of bars."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QEvent, QObject, QPointF, Qt, Signal
from PySide6.QtGui import QColor, QKeyEvent
from PySide6.QtWidgets import QWidget
from typing_extensions import override

from quantstudio.core.sensitivity_rows import EXACT
from quantstudio.gui.plots.axes import WholeNumberAxis
from quantstudio.gui.plots.plot import Click, Plot
from quantstudio.gui.plots.sensitivity_scale import SensitivityScale, StripRow
from quantstudio.gui.plots.sensitivity_threshold import ThresholdLine, level_for, next_count
from quantstudio.gui.plots.strip_words import strip_summary, strip_table, strip_tip
from quantstudio.gui.theme import Theme, current_theme

BAR_WIDTH = 0.8
LEFT_PX = 74  # divergences are small: "0.0004", "2.5×10⁻⁵"
LEVEL_ROLES = ("fp", "warn", "bad")
_ROLES = (*LEVEL_ROLES, "ok", "q", "faint")
_WHISKERS_UP_TO = 200  # more than this on the screen and they are a smear
_BEAMS_UP_TO = 60
_BEAM = 0.32
_MARK_PX = 5
_LINE_KEYS = {Qt.Key.Key_Up: 1, Qt.Key.Key_Down: -1}
_LAYER_KEYS = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}
LABELS_FROM_PX = 150  # a plot lower than this needs the room of its horizontal label


class SensitivityStrip(Plot):
    """Bars with 95 % whiskers in layer order or sorted; colour says how large, a band what is selected.

    With a threshold the colour says which precision each layer will have; the line is dragged, or moved layer
    by layer with the arrow keys.

    Signals:
        layer_chosen(str): a bar was clicked.
        threshold_moved(float): the line is at another KL.
    """

    layer_chosen = Signal(str)
    threshold_moved = Signal(float)
    offers_figures = True

    def __init__(self, name: str = "sensitivity", parent: QWidget | None = None) -> None:
        super().__init__(
            name,
            "Layer sensitivity",
            ("Layer index", "KL divergence (nats)"),
            axes={"bottom": WholeNumberAxis("bottom")},
            empty="Run Sensitivity to see which layers suffer most.",
            parent=parent,
        )
        self._rows: tuple[StripRow, ...] = ()
        self._order: list[int] = []
        self._position: dict[str, int] = {}
        self._scale: SensitivityScale | None = None
        self._selection: tuple[str, ...] = ()
        self._is_sorted = False
        self._is_log = False
        self._level: float | None = None
        self._preview: Mapping[str, str] = {}
        self._preview_legend: tuple[tuple[str, str], ...] = ()
        self._add_items()
        self.item.getAxis("left").setWidth(LEFT_PX)
        self.item.getViewBox().setMouseEnabled(x=True, y=False)
        self.item.scene().sigMouseClicked.connect(self._on_clicked)
        self.item.scene().sigMouseMoved.connect(self._on_moved)
        self.view.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.view.installEventFilter(self)
        self.retheme()

    def _add_items(self) -> None:
        self._band = pg.BarGraphItem(x=[], height=[], width=1.0)
        self._band.setZValue(-5)
        self.item.addItem(self._band, ignoreBounds=True)
        self._bars = {role: pg.BarGraphItem(x=[], height=[], width=BAR_WIDTH, pen=None) for role in _ROLES}
        for bars in self._bars.values():
            self.item.addItem(bars)
        nothing = np.zeros(0)
        self._whiskers = pg.ErrorBarItem(x=nothing, y=nothing, top=nothing, bottom=nothing, beam=0.0)
        self.item.addItem(self._whiskers)
        self._marks = pg.ScatterPlotItem(symbol="d", size=_MARK_PX, pen=None)
        self.item.addItem(self._marks)
        self._line = ThresholdLine()
        self.item.addItem(self._line, ignoreBounds=True)
        self.item.addItem(self._line.word, ignoreBounds=True)
        self._line.sigDragged.connect(self._on_line_dragged)
        self.item.getViewBox().sigRangeChanged.connect(self._on_range_changed)
        self.item.getViewBox().sigResized.connect(self._on_range_changed)

    # ------------------------------------------------------------------ content

    @property
    def rows(self) -> tuple[StripRow, ...]:
        """Bars in layer order."""
        return self._rows

    @property
    def scale(self) -> SensitivityScale | None:
        """By what a bar is coloured."""
        return self._scale

    def show_rows(self, rows: Sequence[StripRow], scale: SensitivityScale | None) -> None:
        """Draw these layers; layers without a value yet leave a gap."""
        keeps_view = [r.layer for r in rows] == [r.layer for r in self._rows] and not self.is_empty
        self._rows = tuple(rows)
        self._scale = scale
        self._sort()
        self._draw()
        if keeps_view:
            self._set_height()
        else:
            self.reset_view()
        self.show_plot(strip_summary(self._rows, self._scale))

    def set_scale(self, scale: SensitivityScale | None) -> None:
        """Colour the bars anew: the plan is another."""
        if scale == self._scale:
            return
        self._scale = scale
        self._draw_bars()
        self._set_legend(current_theme())
        self.show_plot(strip_summary(self._rows, self._scale))

    def set_sorted(self, is_sorted: bool) -> None:
        """Largest first, or in the order of execution."""
        self._is_sorted = is_sorted
        self._sort()
        self._draw()
        self.set_labels("Layers, most sensitive first" if is_sorted else "Layer index", self.labels[1])

    def set_log(self, is_log: bool) -> None:
        """Logarithmic scale: layers that hardly matter stay visible."""
        self._is_log = is_log
        self.item.getAxis("left").setLogMode(y=is_log)
        self._draw()
        self._set_height()

    def set_threshold(self, kl: float | None, word: str = "") -> None:
        """Show the line at a KL with a word on it; None takes it away."""
        self._level = kl
        self._draw_line(word)

    def set_preview(self, roles: Mapping[str, str], legend: Sequence[tuple[str, str]]) -> None:
        """Colour bars by layer with these colour roles instead of by height; `legend` names the roles."""
        self._preview, self._preview_legend = dict(roles), tuple(legend)
        self._draw_bars()
        self._set_legend(current_theme())

    @property
    def threshold_line(self) -> ThresholdLine:
        """The line itself."""
        return self._line

    @property
    def threshold(self) -> float | None:
        """KL of the line; None while it is not shown."""
        return self._level

    def step_threshold(self, step: int) -> None:
        """Move the line past the next bar, up (+1) or down (-1)."""
        if self._level is not None:
            self.threshold_moved.emit(level_for(self._rows, next_count(self._rows, self._level, step)))

    def colour_role(self, layer: str) -> str:
        """Colour role of a layer's bar; empty where there is none."""
        row = self._rows[self._order[self._position[layer]]]
        return self._role(row) if row.kl is not None else ""

    def set_selection(self, names: Iterable[str]) -> None:
        """Mark these layers."""
        self._selection = tuple(names)
        self._draw_band()

    def bar_centre(self, layer: str) -> tuple[float, float]:
        """Plot coordinates inside a layer's bar."""
        position = self._position[layer]
        low, high = self._vertical_range()
        return float(position), low + (high - low) * 0.02

    @override
    def figures_table(self) -> tuple[tuple[str, ...], ...]:
        return strip_table([self._rows[i] for i in self._order])

    def _sort(self) -> None:
        order = list(range(len(self._rows)))
        if self._is_sorted:
            order.sort(key=self._rank)
        self._order = order
        self._position = {self._rows[i].layer: place for place, i in enumerate(order)}

    def _rank(self, index: int) -> float:
        kl = self._rows[index].kl
        return math.inf if kl is None else -kl

    def _arrays(
        self,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        rows = [(place, self._rows[i]) for place, i in enumerate(self._order)]
        known = [(place, row.kl, row.low, row.high) for place, row in rows if row.kl is not None]
        table = np.asarray(known, dtype=np.float64).reshape(-1, 4)
        return table[:, 0], table[:, 1], table[:, 2], table[:, 3]

    def _floor(self) -> float:
        values = [row.kl for row in self._rows if row.kl]
        return min(values) / 3 if values else 1e-9

    def _y(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.log10(np.maximum(values, self._floor()))) if self._is_log else values

    def _vertical_range(self) -> tuple[float, float]:
        _, kl, _, high = self._arrays()
        top = float(max(kl.max(initial=0.0), high.max(initial=0.0)))
        if self._is_log:
            low, peak = math.log10(self._floor()), math.log10(max(top, self._floor() * 10))
            return low, peak + (peak - low) * 0.06
        return 0.0, (top or 1.0) * 1.08

    def _role(self, row: StripRow) -> str:
        if self._preview:
            return self._preview.get(row.layer, "faint")
        return LEVEL_ROLES[self._scale.level(row.layer)] if self._scale is not None else LEVEL_ROLES[0]

    def _draw(self) -> None:
        self._draw_bars()
        self._draw_whiskers()
        self._draw_line(self._line.word.toPlainText())
        self._draw_band()

    def _draw_bars(self) -> None:
        x, kl, _, _ = self._arrays()
        foot = math.log10(self._floor()) if self._is_log else 0.0
        y = self._y(kl)
        known = [row for i in self._order if (row := self._rows[i]).kl is not None]
        roles = np.asarray([self._role(row) for row in known], dtype=object)
        for role, bars in self._bars.items():
            mine = roles == role if len(known) else np.zeros(0, dtype=bool)
            bars.setOpts(
                x=x[mine], y0=np.full(int(mine.sum()), foot), y1=y[mine], height=None, width=BAR_WIDTH
            )
        # Where both kinds stand side by side, what was measured wears a mark.
        exact = np.asarray([row.method == EXACT for row in known], dtype=bool)
        is_mixed = bool(exact.any()) and not bool(exact.all())
        self._marks.setData(x=x[exact] if is_mixed else [], y=y[exact] if is_mixed else [])

    def _draw_whiskers(self) -> None:
        x, kl, low, high = self._arrays()
        y = self._y(kl)
        low = np.minimum(np.maximum(low, 0.0), kl)
        high = np.maximum(high, kl)
        beam = _BEAM if len(kl) <= _BEAMS_UP_TO else 0.0
        self._whiskers.setData(x=x, y=y, top=self._y(high) - y, bottom=y - self._y(low), beam=beam)
        self._show_whiskers()

    def _show_whiskers(self) -> None:
        (left, right), _ = self.item.getViewBox().viewRange()
        self._whiskers.setVisible(min(right - left, len(self._rows)) <= _WHISKERS_UP_TO)

    def _draw_line(self, word: str) -> None:
        if self._level is None:
            self._line.disappear()
            return
        low, high = self._vertical_range()
        at = float(self._y(np.asarray([self._level]))[0])
        (left, _), _ = self.item.getViewBox().viewRange()
        self._line.show_at(min(max(at, low), high), word, bounds=(low, high), left=left)

    def _place_words(self) -> None:
        (left, _), _ = self.item.getViewBox().viewRange()
        self._line.word.setPos(left, self._line.value())

    def _on_range_changed(self, *_args: object) -> None:
        self._place_words()
        self._show_whiskers()

    def _on_line_dragged(self, line: ThresholdLine) -> None:
        at = float(line.value())
        self.threshold_moved.emit(10.0**at if self._is_log else at)

    def _draw_band(self) -> None:
        places = np.asarray(
            sorted(self._position[name] for name in self._selection if name in self._position),
            dtype=np.float64,
        )
        low, high = self._vertical_range()
        # A band narrower than a few pixels would be lost among 500 bars.
        width = max(1.0, len(self._rows) / 180)
        # Neighbours as one: hundreds of bands over each other take longer to paint than all the bars.
        breaks = np.flatnonzero(np.diff(places) > width)
        first = places[np.concatenate(([0], breaks + 1))] if places.size else places
        last = places[np.concatenate((breaks, [places.size - 1]))] if places.size else places
        self._band.setOpts(
            x=(first + last) / 2,
            y0=np.full(len(first), low),
            y1=np.full(len(first), high),
            height=None,
            width=last - first + width,
        )

    @override
    def reset_view(self) -> None:
        self.item.getViewBox().setXRange(-0.8, max(len(self._rows) - 0.2, 1), padding=0.004)
        self._set_height()

    def _set_height(self) -> None:
        low, high = self._vertical_range()
        self.item.getViewBox().setYRange(low, high, padding=0)

    # ------------------------------------------------------------------ mouse and keys

    @override
    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Up and down move the line, left and right choose the layer beside."""
        if watched is self.view and event.type() == QEvent.Type.Resize:
            self.item.getAxis("bottom").showLabel(self.stack.height() >= LABELS_FROM_PX)
        if watched is self.view and isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            up, along = _LINE_KEYS.get(Qt.Key(event.key())), _LAYER_KEYS.get(Qt.Key(event.key()))
            if up is not None and self._level is not None:
                self.step_threshold(up)
                return True
            if along is not None and self._rows:
                self._choose_beside(along)
                return True
        return super().eventFilter(watched, event)

    def _choose_beside(self, step: int) -> None:
        at = self._position.get(self._selection[-1], -step) if self._selection else -step
        place = min(max(at + step, 0), len(self._order) - 1)
        self.layer_chosen.emit(self._rows[self._order[place]].layer)

    def _row_at(self, scene_position: QPointF) -> StripRow | None:
        point = self.item.getViewBox().mapSceneToView(scene_position)
        place = round(point.x())
        return self._rows[self._order[place]] if 0 <= place < len(self._order) else None

    def _on_clicked(self, event: Click) -> None:
        if self.is_empty or event.button() != Qt.MouseButton.LeftButton:
            return
        position = event.scenePos()
        row = self._row_at(position)
        if row is not None and self.item.getViewBox().sceneBoundingRect().contains(position):
            self.layer_chosen.emit(row.layer)

    def _on_moved(self, position: QPointF) -> None:
        row = None if self.is_empty else self._row_at(position)
        self.view.setToolTip("" if row is None else strip_tip(row, self._scale))

    # ------------------------------------------------------------------ theme

    @override
    def legend_entries(self, theme: Theme) -> Sequence[tuple[str, str]]:
        if self._preview:
            return tuple((name, getattr(theme, role)) for name, role in self._preview_legend)
        if self._scale is None:
            return ()
        return tuple((name, getattr(theme, LEVEL_ROLES[level])) for name, level in self._scale.entries)

    @override
    def recolour(self, theme: Theme) -> None:
        for role, bars in self._bars.items():
            bars.setOpts(brush=pg.mkBrush(theme.color(role)), pen=None)
        self._whiskers.setOpts(pen=pg.mkPen(theme.text, width=1))
        self._marks.setBrush(pg.mkBrush(theme.text))
        band = QColor(theme.accent)
        band.setAlpha(60)
        self._band.setOpts(brush=pg.mkBrush(band), pen=pg.mkPen(theme.accent, width=1))
        self._line.recolour(theme)
