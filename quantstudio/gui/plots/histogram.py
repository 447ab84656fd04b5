"""FP32 against the integer grid, with clip lines to drag."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QColor, QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QWidget
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.affine import ClipEffect
from quantstudio.gui.plots.clip_keys import HINT, ClipKeys
from quantstudio.gui.plots.distribution import (
    LOG_FLOOR,
    SPIKE_AIR,
    Distribution,
    GridBars,
    drawn_bins,
    grid_bars,
    thinned,
    top_of,
    visible_range,
)
from quantstudio.gui.plots.level_lines import MOST_NAMED, LevelLines
from quantstudio.gui.plots.plot import Plot
from quantstudio.gui.theme import Theme, current_theme, ui_font
from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.gui.widgets.small_button import SmallButton
from quantstudio.gui.widgets.tag import SIMULATED, Tag

BAR_PITCH_PX = 5
BAR_SHARE = 0.42
WIDEST_BAR_PX = 7
LINE_AIR = 0.015
# Narrower than this, controls and figures do not fit on one line.
FOOTER_PX = 470


class HistogramPlot(Plot):
    """A step-filled FP32 histogram, the bars of the integer grid, and two dashed clip lines.

    Dragging a line, or moving it by keys, updates clipped share, SQNR and error at once, from the histogram
    alone.

    Signals:
        range_edited(str, float, float): a line was let go; key of the distribution, low, high.
        range_reset(str): double click, or the reset button; key of the distribution.
    """

    range_edited = Signal(str, float, float)
    range_reset = Signal(str)

    def __init__(self, name: str = "histogram", parent: QWidget | None = None) -> None:
        super().__init__(
            name, "Weight distribution", ("Value", "Density"), empty="Choose a layer.", parent=parent
        )
        self._shown: Distribution | None = None
        self._range = (0.0, 0.0)
        self._bars: GridBars | None = None
        self._effect: ClipEffect | None = None
        self._is_log = False
        self._is_dragging = False
        self._is_compact = self._is_tight = False
        self._peak = 1.0
        self._edges = np.asarray([0.0, 1.0])
        self._counts = np.zeros(1)
        self._add_items()
        self._add_footer(name)
        self.item.getViewBox().setMouseEnabled(x=True, y=False)
        self.item.getViewBox().sigRangeChanged.connect(self._on_view_changed)
        self.item.getViewBox().sigResized.connect(self._on_view_changed)
        self.item.scene().sigMouseClicked.connect(self._on_clicked)
        self.keys = ClipKeys(self.view)
        self.view.setWhatsThis(HINT)
        self.keys.moved.connect(self._on_key_moved)
        self.keys.released.connect(self._on_key_released)
        self.keys.reset.connect(self._on_reset)
        self.keys.chosen_changed.connect(self._colour_lines)
        self.retheme()

    def _add_items(self) -> None:
        self._curve = pg.PlotCurveItem([0.0, 1.0], [0.0], stepMode="center", fillLevel=0, antialias=False)
        self._columns = pg.BarGraphItem(x=[], height=[], width=1.0, pen=pg.mkPen(None))
        self.item.addItem(self._curve)
        self.item.addItem(self._columns)
        self._levels = LevelLines(self.item)
        self._lines: dict[str, pg.InfiniteLine] = {}
        for end in ("low", "high"):
            line = pg.InfiniteLine(0.0, movable=True)
            line.setCursor(Qt.CursorShape.SizeHorCursor)
            line.setZValue(10)
            self._lines[end] = line
            self.item.addItem(line, ignoreBounds=True)
        self._lines["low"].sigDragged.connect(self._on_low_dragged)
        self._lines["high"].sigDragged.connect(self._on_high_dragged)
        for line in self._lines.values():
            line.sigPositionChangeFinished.connect(self._on_released)
        self._caption = pg.TextItem("clip", anchor=(1.1, 0.0))
        self._caption.setFont(ui_font(11))
        self._caption.setZValue(11)
        self.item.addItem(self._caption, ignoreBounds=True)

    def _add_footer(self, name: str) -> None:
        row = self.footer = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        self.readout = ElidedLabel()
        self.readout.setObjectName(f"plot.{name}.readout")
        self.readout.setAccessibleName("Effect of the clip range")
        self.readout.setProperty("role", "caption")
        self.tag = Tag()
        self.log_button = SmallButton(f"plot.{name}.log", "Log", "Logarithmic counts")
        self.log_button.setCheckable(True)
        self.log_button.toggled.connect(self.set_log)
        self.reset_button = SmallButton(
            f"plot.{name}.reset", "Reset", "Forget the range set by hand (double-click in the plot)"
        )
        self.reset_button.clicked.connect(self._on_reset)
        self.chooser = QHBoxLayout()
        self.chooser.setContentsMargins(0, 0, 0, 0)
        self.body.addLayout(self.chooser)
        # In a narrow plot the figures have a line of their own: beside the controls is no room for them.
        self._line = QHBoxLayout()
        self.body.addLayout(self._line)
        self._filler = QWidget()
        self._filler.hide()
        row.addWidget(self.readout, 1)
        row.addWidget(self._filler, 1)
        row.addWidget(self.tag)
        row.addWidget(self.reset_button)
        row.addWidget(self.log_button)
        self.body.addLayout(row)

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        is_tight = self.width() < FOOTER_PX
        if is_tight != self._is_tight:
            self._is_tight = is_tight
            if is_tight:
                self._line.addWidget(self.readout, 1)
            else:
                self.footer.insertWidget(0, self.readout, 1)
            self._filler.setVisible(is_tight)
            self._name_axes()
        super().resizeEvent(event)

    def _name_axes(self) -> None:
        """Where rows of controls need the room, the axis of values goes without a name."""
        value = "" if self._is_compact or self._is_tight else "Value"
        self.set_labels(value, "Count" if self._is_log else "Density")

    # ------------------------------------------------------------------ content

    @property
    def distribution(self) -> Distribution | None:
        """What is shown."""
        return self._shown

    @property
    def clip_range(self) -> tuple[float, float]:
        """Where the lines stand."""
        return self._range

    @property
    def effect(self) -> ClipEffect | None:
        """Effect of the lines where they stand; None without an integer grid."""
        return self._effect

    def clip_line(self, end: str) -> pg.InfiniteLine:
        """The line "low" or "high"."""
        return self._lines[end]

    def show_distribution(self, distribution: Distribution) -> None:
        """Draw another distribution; keeps the zoom while the key stays the same."""
        old = self._shown
        if self._is_dragging and old is not None and old.key == distribution.key:
            return  # results stream in while the user holds a line: the line wins
        self._is_dragging = False
        self._shown = distribution
        self._range = (distribution.low, distribution.high)
        self._draw_curve()
        self._update_clip()
        if old is None or old.key != distribution.key or old.kind != distribution.kind:
            self.reset_view()
        self.reset_button.setVisible(distribution.is_edited)
        self.show_plot(self._words())
        self._set_footer_visible(True)

    def set_compact(self, is_compact: bool) -> None:
        """Leave out the name of the value axis, to make room for a row of controls in `chooser`."""
        self._is_compact = is_compact
        self._name_axes()

    @override
    def show_empty(self, text: str, action: str = "") -> None:
        super().show_empty(text, action)
        self._shown = None
        if hasattr(self, "readout"):
            self._set_footer_visible(False)

    def set_log(self, is_log: bool) -> None:
        """Count on a logarithmic axis, where the tails can be seen."""
        if is_log == self._is_log:
            return
        self._is_log = is_log
        self.log_button.setChecked(is_log)
        self.item.getAxis("left").setLogMode(y=is_log)
        self._name_axes()
        if self._shown is not None:
            self._draw_curve()
            self._update_clip()
            self.reset_view()

    @override
    def reset_view(self) -> None:
        if self._shown is None:
            return
        low, high = visible_range(self._shown.histogram)
        if self._effect is not None:  # both clip lines can be seen and taken hold of
            air = (high - low) * LINE_AIR
            low, high = min(low, self._range[0] - air), max(high, self._range[1] + air)
        if 0 < len(self._shown.levels) <= MOST_NAMED:  # also those that no weight takes
            air = (high - low) * LINE_AIR
            low, high = min(low, self._shown.levels[0] - air), max(high, self._shown.levels[-1] + air)
        self.item.getViewBox().setXRange(low, high, padding=0)
        self._set_height()

    def _set_footer_visible(self, visible: bool) -> None:
        self.readout.setVisible(visible)
        self.log_button.setVisible(visible)
        if not visible:
            self.tag.set_text("")
            self.reset_button.hide()

    def _heights(self, counts: np.typing.NDArray[np.float64]) -> np.typing.NDArray[np.float64]:
        if self._is_log:
            return np.asarray(np.log10(np.maximum(counts, LOG_FLOOR)))
        return counts / self._peak

    def _draw_curve(self) -> None:
        assert self._shown is not None
        edges, counts = self._edges, self._counts = drawn_bins(self._shown.histogram)
        top, is_cut = top_of(counts)
        self._peak = top / SPIKE_AIR if is_cut else max(float(counts.max(initial=0.0)), 1.0)
        self._curve.setData(edges, self._heights(counts), stepMode="center")
        self._curve.setFillLevel(math.log10(LOG_FLOOR) if self._is_log else 0.0)

    def _set_height(self) -> None:
        assert self._shown is not None
        counts = self._counts
        top, is_cut = top_of(counts)
        if self._is_log:
            low, high = math.log10(LOG_FLOOR), math.log10(max(top, counts.max(initial=1.0))) + 0.1
            self.item.getViewBox().setYRange(low, high, padding=0)
        else:
            self.item.getViewBox().setYRange(0, top / self._peak, padding=0)
        cut = "  ·  tallest bin cut off" if is_cut and not self._is_log else ""
        note = f"  ·  {self._shown.note}" if self._shown.note else ""
        key, bins = self._shown.title, f"  ·  {figures.count(len(counts))} bins"
        self.subtitle.set_wordings(f"{key}{bins}{note}{cut}", f"{key}{bins}", key)

    # ------------------------------------------------------------------ clip lines

    def _update_clip(self) -> None:
        """Move lines, bars and readout to the range in force."""
        assert self._shown is not None
        low, high = self._range
        self._effect = self._shown.effect(low, high)
        has_grid = self._effect is not None
        for end, value in (("low", low), ("high", high)):
            self._lines[end].blockSignals(True)
            self._lines[end].setValue(value)
            self._lines[end].blockSignals(False)
            self._lines[end].setVisible(has_grid)
        self._caption.setVisible(has_grid)
        self._columns.setVisible(has_grid and self._shown.has_bars)
        self._levels.show_levels(self._shown.levels, self._shown.codes)
        if self._effect is None or self._shown.grid is None:
            self._bars = None
            self.readout.set_wordings(*self._without_grid())
            self.tag.set_text(SIMULATED if self._shown.levels else "")
            return
        self._bars = grid_bars(
            self._shown.histogram, self._effect, self._shown.grid, float(self._edges[1] - self._edges[0])
        )
        self._draw_bars()
        self._place_caption()
        self.readout.set_wordings(*self._readout_texts())
        self.tag.set_text(SIMULATED)

    def _without_grid(self) -> tuple[str, ...]:
        """What stands below where no clip range can be moved."""
        assert self._shown is not None
        if not self._shown.levels:
            return ("not on an integer grid",)
        count = f"{len(self._shown.levels)} levels"
        which = f"{count}, {self._shown.note}" if self._shown.note else count
        if self._shown.exact_db is None:
            return (which, count)
        loss = f"SQNR {figures.decibels(self._shown.exact_db)}"
        return (f"{which} · {loss}", f"{count} · {loss}", loss)

    def _draw_bars(self) -> None:
        if self._bars is None:
            return
        (left, right), _ = self.item.getViewBox().viewRange()
        most = max(8, int(self.view.width() / BAR_PITCH_PX))
        drawn, _ = thinned(self._bars, left - self._bars.step, right + self._bars.step, most)
        heights = self._heights(drawn.density)
        foot = math.log10(LOG_FLOOR) if self._is_log else 0.0
        self._columns.setOpts(
            x=drawn.centres,
            y0=np.full(len(heights), foot),
            y1=heights,
            height=None,
            width=min(drawn.step * BAR_SHARE, WIDEST_BAR_PX * self.item.getViewBox().viewPixelSize()[0]),
        )

    def _place_caption(self) -> None:
        _, (_, top) = self.item.getViewBox().viewRange()
        self._caption.setPos(self._range[1], top)

    def _readout_texts(self) -> tuple[str, ...]:
        """What the clip range does, and the same for less room."""
        assert self._shown is not None
        effect = self._effect
        if effect is None:
            return ("",)
        bound = "≥ " if self._shown.has_bound(*self._range) else ""
        clipped = figures.percent(effect.clipped_share, 2 if effect.clipped_share else 0)
        error = figures.significant(math.sqrt(max(effect.mean_squared_error, 0.0)), 2)
        sqnr = f"{bound}{figures.decibels(effect.sqnr_db)}"
        return (
            f"clipped {clipped} · SQNR {sqnr} · error {error}",
            f"{clipped} · {sqnr} · error {error}",
            f"{clipped} · {sqnr}",
            sqnr,
        )

    def _words(self) -> str:
        assert self._shown is not None
        histogram = self._shown.histogram
        text = (
            f"{self._shown.title}: {self._shown.kind} from {figures.significant(histogram.minimum)} "
            f"to {figures.significant(histogram.maximum)}"
        )
        if self._effect is None and self._shown.levels:
            return f"{text}; {', '.join(self._without_grid()[:1])}."
        if self._effect is None:
            return f"{text}, not quantized."
        low, high = self._range
        return (
            f"{text}; kept from {figures.significant(low)} to {figures.significant(high)}, "
            f"{self._readout_texts()[0].replace(' · ', ', ')}."
        )

    def _drag(self, end: str) -> None:
        if self._shown is None:
            return
        low = self._lines["low"].value()
        high = self._lines["high"].value()
        self._is_dragging = True
        self._range = self._shown.limited(low, high, end)
        self._update_clip()

    def _on_low_dragged(self, _line: object) -> None:
        self._drag("low")

    def _on_high_dragged(self, _line: object) -> None:
        self._drag("high")

    def _on_released(self, _line: object) -> None:
        self._is_dragging = False
        if self._shown is None:
            return
        self.set_summary(self._words())
        if self._range != (self._shown.low, self._shown.high):
            self.range_edited.emit(self._shown.key, *self._range)

    def _on_key_moved(self, share: float) -> None:
        if self._shown is None or self._effect is None:
            return
        (left, right), _ = self.item.getViewBox().viewRange()
        line = self._lines[self.keys.end]
        line.blockSignals(True)
        line.setValue(line.value() + share * (right - left))
        line.blockSignals(False)
        self._drag(self.keys.end)
        self.set_summary(self._words())

    def _on_key_released(self) -> None:
        self._on_released(None)

    def _on_reset(self) -> None:
        if self._shown is not None:
            self.range_reset.emit(self._shown.key)

    def _on_clicked(self, event: object) -> None:
        if getattr(event, "double", lambda: False)() and self._shown is not None:
            self.reset_view()
            self._on_reset()

    def _on_view_changed(self, *_args: object) -> None:
        self._draw_bars()
        self._levels.place()
        self._place_caption()

    # ------------------------------------------------------------------ theme

    @override
    def legend_entries(self, theme: Theme) -> Sequence[tuple[str, str]]:
        entries = [(self._shown.source if self._shown is not None else "FP32", theme.fp)]
        if self._effect is not None and self._shown is not None:
            entries += [("Quantized", theme.q)] if self._shown.has_bars else []
        elif self._shown is not None and self._shown.levels:
            entries.append(("Levels", theme.q))
        return entries

    @override
    def recolour(self, theme: Theme) -> None:
        fill = QColor(theme.fp)
        fill.setAlpha(90 if theme.is_dark else 70)
        self._curve.setPen(pg.mkPen(theme.fp, width=1))
        self._curve.setBrush(fill)
        self._columns.setOpts(brush=pg.mkBrush(theme.q))
        self._levels.recolour(theme)
        self._caption.setColor(theme.muted)
        self._colour_lines()

    def _colour_lines(self) -> None:
        """The line that keys move stands out while the plot has the focus."""
        theme = current_theme()
        chosen = self.keys.chosen if hasattr(self, "keys") else ""
        for end, line in self._lines.items():
            if end == chosen:
                line.setPen(pg.mkPen(theme.accent, width=2))
            else:
                line.setPen(pg.mkPen(theme.muted, width=1, style=Qt.PenStyle.DashLine))
            line.setHoverPen(pg.mkPen(theme.accent, width=2))
