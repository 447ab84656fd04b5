"""Every layer's sensitivity as a strip of bars."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.gui.plots.axes import WholeNumberAxis
from quantstudio.gui.plots.plot import Plot
from quantstudio.gui.plots.sensitivity_scale import SensitivityScale, StripRow
from quantstudio.gui.theme import Theme, ui_font

BAR_WIDTH = 0.8
LEFT_PX = 74  # divergences are small: "0.0004", "2.5×10⁻⁵"
_ROLES = ("fp", "warn", "bad")
_WHISKERS_UP_TO = 200  # more than this and they are a smear


class SensitivityStrip(Plot):
    """Bars with 95 % whiskers in layer order or sorted; colour says how large, a band what is selected.

    Signals:
        layer_chosen(str): a bar was clicked.
    """

    layer_chosen = Signal(str)

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
        self._add_items()
        self.item.getAxis("left").setWidth(LEFT_PX)
        self.item.getViewBox().setMouseEnabled(x=True, y=False)
        self.item.scene().sigMouseClicked.connect(self._on_clicked)
        self.item.scene().sigMouseMoved.connect(self._on_moved)
        self.retheme()

    def _add_items(self) -> None:
        self._band = pg.BarGraphItem(x=[], height=[], width=1.0)
        self._band.setZValue(-5)
        self.item.addItem(self._band, ignoreBounds=True)
        self._bars = [pg.BarGraphItem(x=[], height=[], width=BAR_WIDTH, pen=None) for _ in _ROLES]
        for bars in self._bars:
            self.item.addItem(bars)
        nothing = np.zeros(0)
        self._whiskers = pg.ErrorBarItem(x=nothing, y=nothing, top=nothing, bottom=nothing, beam=0.0)
        self.item.addItem(self._whiskers)
        self._threshold = pg.InfiniteLine(0.0, angle=0)
        self._threshold_name = pg.TextItem("", anchor=(1.0, 1.0))
        self._threshold_name.setFont(ui_font(11))
        self.item.addItem(self._threshold_name, ignoreBounds=True)
        self.item.getViewBox().sigRangeChanged.connect(self._on_range_changed)
        self.item.getViewBox().sigResized.connect(self._on_range_changed)
        self.item.addItem(self._threshold, ignoreBounds=True)

    # ------------------------------------------------------------------ content

    @property
    def rows(self) -> tuple[StripRow, ...]:
        """Bars in layer order."""
        return self._rows

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
        self.show_plot(self._words())

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

    def set_selection(self, names: Iterable[str]) -> None:
        """Mark these layers."""
        self._selection = tuple(names)
        self._draw_band()

    def bar_centre(self, layer: str) -> tuple[float, float]:
        """Plot coordinates inside a layer's bar."""
        position = self._position[layer]
        low, high = self._vertical_range()
        return float(position), low + (high - low) * 0.02

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
        top = float(max(kl.max(initial=0.0), high.max(initial=0.0) if self._has_whiskers(len(kl)) else 0.0))
        if self._is_log:
            low, peak = math.log10(self._floor()), math.log10(max(top, self._floor() * 10))
            return low, peak + (peak - low) * 0.06
        return 0.0, (top or 1.0) * 1.08

    @staticmethod
    def _has_whiskers(bars: int) -> bool:
        return bars <= _WHISKERS_UP_TO

    def _draw(self) -> None:
        x, kl, low, high = self._arrays()
        foot = math.log10(self._floor()) if self._is_log else 0.0
        y = self._y(kl)
        scale = self._scale
        levels = np.zeros(len(kl), dtype=np.int64)
        if scale is not None:
            levels = (kl > scale.warn).astype(np.int64) + (kl > scale.bad)
        for level, bars in enumerate(self._bars):
            mine = levels == level
            bars.setOpts(
                x=x[mine], y0=np.full(int(mine.sum()), foot), y1=y[mine], height=None, width=BAR_WIDTH
            )
        if self._has_whiskers(len(kl)):
            low = np.minimum(np.maximum(low, 0.0), kl)
            high = np.maximum(high, kl)
            self._whiskers.setData(x=x, y=y, top=self._y(high) - y, bottom=y - self._y(low))
        self._whiskers.setVisible(self._has_whiskers(len(kl)))
        self._draw_threshold()
        self._draw_band()

    def _draw_threshold(self) -> None:
        low, high = self._vertical_range()
        self._threshold.setVisible(False)
        self._threshold_name.setVisible(False)
        if self._scale is None:
            return
        at = float(self._y(np.asarray([self._scale.bad]))[0])
        if low < at < high:
            self._threshold.setValue(at)
            self._threshold_name.setText(self._scale.label)
            self._threshold.setVisible(True)
            self._threshold_name.setVisible(True)
            self._place_threshold_name()

    def _place_threshold_name(self) -> None:
        (_, right), _ = self.item.getViewBox().viewRange()
        self._threshold_name.setPos(right, self._threshold.value())

    def _on_range_changed(self, *_args: object) -> None:
        self._place_threshold_name()

    def _draw_band(self) -> None:
        places = np.asarray(
            [self._position[name] for name in self._selection if name in self._position], dtype=np.float64
        )
        low, high = self._vertical_range()
        # A band narrower than a few pixels would be lost among 500 bars.
        width = max(1.0, len(self._rows) / 180)
        self._band.setOpts(
            x=places, y0=np.full(len(places), low), y1=np.full(len(places), high), height=None, width=width
        )

    @override
    def reset_view(self) -> None:
        self.item.getViewBox().setXRange(-0.8, max(len(self._rows) - 0.2, 1), padding=0.004)
        self._set_height()

    def _set_height(self) -> None:
        low, high = self._vertical_range()
        self.item.getViewBox().setYRange(low, high, padding=0)

    def _words(self) -> str:
        known = [row for row in self._rows if row.kl is not None]
        if not known:
            return "No layer has been analysed yet."
        worst = sorted(known, key=lambda row: -float(row.kl or 0))[:3]
        names = ", ".join(f"{row.layer} {figures.significant(float(row.kl or 0))}" for row in worst)
        above = sum(1 for row in known if self._scale is not None and float(row.kl or 0) > self._scale.bad)
        limit = f" {above} above {self._scale.label}." if self._scale is not None else ""
        return f"{len(known)} of {len(self._rows)} layers analysed; most sensitive: {names}.{limit}"

    # ------------------------------------------------------------------ mouse

    def _row_at(self, scene_position: object) -> StripRow | None:
        point = self.item.getViewBox().mapSceneToView(scene_position)
        place = round(point.x())
        return self._rows[self._order[place]] if 0 <= place < len(self._order) else None

    def _on_clicked(self, event: object) -> None:
        if self.is_empty or event.button() != Qt.MouseButton.LeftButton:  # type: ignore[attr-defined]
            return
        position = event.scenePos()  # type: ignore[attr-defined]
        row = self._row_at(position)
        if row is not None and self.item.getViewBox().sceneBoundingRect().contains(position):
            self.layer_chosen.emit(row.layer)

    def _on_moved(self, position: object) -> None:
        row = None if self.is_empty else self._row_at(position)
        if row is None:
            self.view.setToolTip("")
        elif row.kl is None:
            self.view.setToolTip(f"{row.layer}\nnot analysed yet")
        else:
            low, high = figures.significant(row.low), figures.significant(row.high)
            how = "measured" if row.method == "exact" else "predicted"
            self.view.setToolTip(f"{row.layer}\nKL {figures.significant(row.kl)}  [{low}, {high}]  {how}")

    # ------------------------------------------------------------------ theme

    @override
    def legend_entries(self, theme: Theme) -> Sequence[tuple[str, str]]:
        if self._scale is None:
            return ()
        return ((f"above {self._scale.label}", theme.bad), ("near it", theme.warn))

    @override
    def recolour(self, theme: Theme) -> None:
        for bars, role in zip(self._bars, _ROLES, strict=True):
            bars.setOpts(brush=pg.mkBrush(theme.color(role)), pen=None)
        whisker = QColor(theme.muted)
        whisker.setAlpha(150)
        self._whiskers.setOpts(pen=pg.mkPen(whisker, width=1))
        band = QColor(theme.accent)
        band.setAlpha(60)
        self._band.setOpts(brush=pg.mkBrush(band), pen=pg.mkPen(theme.accent, width=1))
        self._threshold.setPen(pg.mkPen(theme.bad, width=1, style=Qt.PenStyle.DashLine))
        self._threshold_name.setColor(theme.bad)
