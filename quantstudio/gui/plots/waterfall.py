"""What each step won or cost: bars that begin where the one before ended, from FP32 to the last step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import QWidget
from typing_extensions import override

from quantstudio.gui.plots.axes import NamedAxis
from quantstudio.gui.plots.plot import Plot
from quantstudio.gui.theme import Theme, current_theme, ui_font

_BAR = 0.62
_ROOM_BELOW, _ROOM_ABOVE = 0.16, 0.06
_SECOND_LINE = 0.1  # more room below, where texts stand in two lines
_AIR_PX = 6
_LEAST_SPAN = 0.2
_TEXT_PX = 11
NOT_MEASURED, NOT_MEASURED_SHORT = "not measured", "—"


@dataclass(frozen=True, slots=True)
class Level:
    """Where one stage stands.

    Attributes:
        label: Name of the stage.
        value: What is won against the first, in the unit of the plot; None where that was not measured.
        text: What stands at its bar.
    """

    label: str
    value: float | None
    text: str


class WaterfallPlot(Plot):
    """The first level as a line, then what each later one adds to the one measured before it."""

    offers_figures = True

    def __init__(self, name: str = "waterfall", parent: QWidget | None = None) -> None:
        super().__init__(
            name,
            "What each step gained",
            ("", ""),
            axes={"bottom": NamedAxis("bottom")},
            empty="Open a model to see what steps gain.",
            parent=parent,
        )
        self._levels: tuple[Level, ...] = ()
        self._bars = pg.BarGraphItem(x=[], height=[], width=_BAR)
        self._links = pg.PlotCurveItem(connect="pairs")
        self._texts: list[pg.TextItem] = []
        self._is_tight = False
        for item in (self._links, self._bars):
            self.item.addItem(item)
        self.item.getViewBox().sigResized.connect(self._on_resized)
        self.retheme()

    @property
    def levels(self) -> tuple[Level, ...]:
        """What is shown, from left to right."""
        return self._levels

    def show_levels(self, levels: Sequence[Level], axis: str) -> None:
        """Draw levels, the first of which is what the others are held against; `axis` names the figure."""
        self._levels = tuple(levels)
        self.set_labels("", axis)
        names = self.item.getAxis("bottom")
        assert isinstance(names, NamedAxis)
        names.set_names({float(i): level.label for i, level in enumerate(self._levels)})
        self._is_tight = self._lacks_room()
        self.reset_view()
        self._draw(current_theme())
        parts = (f"{one.label} {one.text or NOT_MEASURED}" for one in self._levels)
        self.show_plot(f"{axis}: {', '.join(parts)}.")

    def spans(self) -> list[tuple[float, float] | None]:
        """Where each bar begins and ends; None where there is none."""
        found: list[tuple[float, float] | None] = []
        before: float | None = None
        for level in self._levels:
            if level.value is None:
                found.append(None)
                continue
            found.append((level.value if before is None else before, level.value))
            before = level.value
        return found

    def _draw(self, theme: Theme) -> None:
        x, low, height, brushes, pens = [], [], [], [], []
        for i, span in enumerate(self.spans()):
            if span is None:
                continue
            colour = self._colour(i, span, theme)
            x.append(float(i))
            low.append(min(span))
            height.append(abs(span[1] - span[0]))
            brushes.append(pg.mkBrush(colour))
            # A bar of no height is a line.
            pens.append(pg.mkPen(colour, width=3))
        self._bars.setOpts(
            x=np.asarray(x),
            y0=np.asarray(low),
            height=np.asarray(height),
            width=_BAR,
            brushes=brushes,
            pens=pens,
        )
        self._link(theme)
        self._write(theme)

    @staticmethod
    def _colour(index: int, span: tuple[float, float], theme: Theme) -> str:
        if index == 0:
            return theme.fp
        return theme.muted if span[0] == span[1] else theme.bad if span[1] < span[0] else theme.ok

    def _link(self, theme: Theme) -> None:
        points: list[tuple[float, float]] = []
        measured = [(i, span) for i, span in enumerate(self.spans()) if span is not None]
        for (i, one), (j, _) in pairwise(measured):
            points += [(i + _BAR / 2, one[1]), (j - _BAR / 2, one[1])]
        xs, ys = np.asarray([p[0] for p in points]), np.asarray([p[1] for p in points])
        self._links.setData(xs, ys, connect="pairs")
        self._links.setPen(pg.mkPen(theme.faint, width=1, style=Qt.PenStyle.DashLine))

    def _lacks_room(self) -> bool:
        """Whether texts side by side would run into each other."""
        metrics = QFontMetrics(ui_font(_TEXT_PX, semibold=True))
        texts = [one.text for one in self._levels if one.value is not None]
        widest = max(map(metrics.horizontalAdvance, texts), default=0)
        if any(one.value is None for one in self._levels):
            widest = max(widest, metrics.horizontalAdvance(NOT_MEASURED))
        return (widest + _AIR_PX) * (len(self._levels) + 0.9) > self.item.getViewBox().width()

    def _on_resized(self) -> None:
        if self._levels and self._is_tight != self._lacks_room():
            self._is_tight = not self._is_tight
            self.reset_view()
            self._write(current_theme())

    def _write(self, theme: Theme) -> None:
        """Figures below their bars; where these stand close, in two lines by turns."""
        spans, at, line = self.spans(), 0.0, 0
        unknown = NOT_MEASURED_SHORT if self._is_tight else NOT_MEASURED
        for i, text in enumerate(self.texts_of(self._texts, len(self._levels), (0.5, 0.0))):
            span = spans[i]
            text.setFont(ui_font(_TEXT_PX, semibold=span is not None))
            text.setText(self._levels[i].text if span is not None else unknown)
            text.setAnchor((0.5, -0.85 * (line % 2) if self._is_tight and span is not None else 0.0))
            line += span is not None
            text.setColor(theme.muted if span is None else self._colour(i, span, theme))
            at = min(span) if span is not None else at
            text.setPos(i, at)

    @override
    def reset_view(self) -> None:
        values = [level.value for level in self._levels if level.value is not None] or [0.0]
        low, high = min(0.0, *values), max(0.0, *values)
        span = max(high - low, _LEAST_SPAN)
        below = _ROOM_BELOW + (_SECOND_LINE if self._is_tight else 0.0)
        self.item.getViewBox().setRange(
            xRange=(-1.2 if self._is_tight else -0.7, max(len(self._levels) - 0.3, 0.7)),
            yRange=(low - below * span, high + _ROOM_ABOVE * span),
            padding=0,
        )

    @override
    def recolour(self, theme: Theme) -> None:
        if self._levels:
            self._draw(theme)

    @override
    def figures_table(self) -> tuple[tuple[str, ...], ...]:
        rows = [
            (one.label, "" if one.value is None else f"{one.value:.6g}", one.text) for one in self._levels
        ]
        return (("stage", f"against the first: {self.labels[1]}", "shown"), *rows)
