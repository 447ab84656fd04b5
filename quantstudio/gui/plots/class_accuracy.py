"""Accuracy class by class, FP32 beside a variant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QWidget
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.results import ClassAccuracy
from quantstudio.gui.plots.axes import NamedAxis
from quantstudio.gui.plots.plot import Plot
from quantstudio.gui.theme import Theme

TITLE = "Accuracy by class"
MAX_CLASSES = 24
_ASIDE = 0.14  # of a class's width: FP32 left of its middle, the variant right
_DOT_PX = 9
_NARROW_PX = 400


class ClassAccuracyPlot(Plot):
    """Two dots per class and the 95 % interval of the variant's; of many classes, those that lose most.

    Dots, not bars: the axis begins where the classes do, and a bar that does not begin at zero lies.
    """

    def __init__(self, name: str = "class_accuracy", parent: QWidget | None = None) -> None:
        super().__init__(
            name,
            TITLE,
            ("", "Accuracy (%)"),
            axes={"bottom": NamedAxis("bottom")},
            empty="Measure a variant on labelled data to see every class.",
            parent=parent,
        )
        self._classes: tuple[ClassAccuracy, ...] = ()
        self._variant = self._where = ""
        self._base = "FP32"
        self._is_narrow = False
        nothing = np.zeros(0)
        self._errors = pg.ErrorBarItem(x=nothing, y=nothing, top=nothing, bottom=nothing, beam=0.12)
        self._changes = pg.PlotCurveItem([], [], connect="pairs", antialias=True)
        self._dots = [pg.ScatterPlotItem(size=_DOT_PX, symbol=symbol, pen=None) for symbol in ("s", "o")]
        for part in (self._errors, self._changes, *self._dots):
            self.item.addItem(part)
        self.item.scene().sigMouseMoved.connect(self._on_moved)
        self.retheme()

    @property
    def classes(self) -> tuple[ClassAccuracy, ...]:
        """What is drawn, from left to right."""
        return self._classes

    def show_classes(
        self, classes: Sequence[ClassAccuracy], variant: str, where: str = "", *, base: str = "FP32"
    ) -> None:
        """Draw the classes of a variant's result beside those of the base.

        Args:
            classes: The result, class by class.
            variant: Its name.
            where: Names data that biases it upwards; empty for none.
            base: What the model as it was opened is called.
        """
        self._variant, self._where, self._base = variant, where, base
        self._classes = tuple(classes)
        note = "lines show the 95 % interval"
        if len(classes) > MAX_CLASSES:
            worst = sorted(classes, key=lambda c: c.variant - c.base)[:MAX_CLASSES]
            self._classes = tuple(worst)
            note = f"the {MAX_CLASSES} of {len(classes)} classes that lose most"
        if where:
            self.subtitle.set_wordings(f"{where}  ·  {note}", where, "")
        else:
            self.subtitle.set_wordings(f"{base} against {variant}  ·  {note}", note, "95 % interval", "")
        axis = self.item.getAxis("bottom")
        assert isinstance(axis, NamedAxis)
        axis.set_names({float(i): _short(c.label) for i, c in enumerate(self._classes)})
        self._draw()
        self.reset_view()
        self.show_plot(self._words())

    def _draw(self) -> None:
        x = np.arange(len(self._classes), dtype=np.float64)
        base = np.asarray([c.base for c in self._classes]) * 100
        variant = np.asarray([c.variant for c in self._classes]) * 100
        low = np.asarray([c.low for c in self._classes]) * 100
        high = np.asarray([c.high for c in self._classes]) * 100
        for dots, heights, side in zip(self._dots, (base, variant), (-1, 1), strict=True):
            dots.setData(x=x + side * _ASIDE, y=heights)
        ends = np.stack((x - _ASIDE, x + _ASIDE), axis=1).reshape(-1)
        self._changes.setData(ends, np.stack((base, variant), axis=1).reshape(-1))
        self._errors.setData(
            x=x + _ASIDE,
            y=variant,
            top=np.maximum(high - variant, 0),
            bottom=np.maximum(variant - low, 0),
        )

    @override
    def reset_view(self) -> None:
        shares = [s for c in self._classes for s in (c.base, c.variant, c.low, c.high) if np.isfinite(s)]
        lowest, highest = 100 * min(shares, default=0.0), 100 * max(shares, default=1.0)
        air = max(1.0, 0.08 * (highest - lowest))
        self.item.getViewBox().setRange(
            xRange=(-0.6, max(len(self._classes) - 0.4, 0.6)),
            yRange=(max(-air, lowest - air), min(100.0, highest) + air),
            padding=0,
        )

    def _words(self) -> str:
        worst = sorted(self._classes, key=lambda c: c.variant - c.base)[:3]
        parts = [
            f"{c.label} {figures.points((c.variant - c.base) * 100)} "
            f"({figures.percent(c.base, 1)} to {figures.percent(c.variant, 1)})"
            for c in worst
        ]
        return (
            f"{len(self._classes)} classes{self._where and f' {self._where}'}, {self._base} against "
            f"{self._variant}; largest losses: {', '.join(parts)}."
        )

    def _on_moved(self, position: QPointF) -> None:
        place = round(self.item.getViewBox().mapSceneToView(position).x())
        if self.is_empty or not 0 <= place < len(self._classes):
            self.view.setToolTip("")
            return
        c = self._classes[place]
        self.view.setToolTip(
            f"{c.label}  ({figures.count(c.support)} samples)\n"
            f"{self._base} {figures.percent(c.base)}\n{self._variant} {figures.percent(c.variant)}  "
            f"[{figures.percent(c.low)}, {figures.percent(c.high)}]"
        )

    @override
    def legend_entries(self, theme: Theme) -> Sequence[tuple[str, str]]:
        # In a narrow card the choice of the variant beside the legend has its name.
        return ((self._base, theme.fp), ("variant" if self._is_narrow else self._variant, theme.q))

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        is_narrow = event.size().width() < _NARROW_PX
        if is_narrow != self._is_narrow:
            self._is_narrow = is_narrow
            self.title.setText("By class" if is_narrow else TITLE)
            self.retheme()

    @override
    def recolour(self, theme: Theme) -> None:
        for dots, colour in zip(self._dots, (theme.fp, theme.q), strict=True):
            dots.setBrush(pg.mkBrush(colour))
            dots.setPen(pg.mkPen(theme.surface, width=1))
        self._changes.setPen(pg.mkPen(theme.faint, width=1.4))
        self._errors.setOpts(pen=pg.mkPen(theme.faint, width=1.2))


def _short(label: str) -> str:
    return label if len(label) <= 11 else label[:10] + "…"
