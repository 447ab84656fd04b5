"""How a training goes: loss on what is trained on and on what is left out, as it comes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QWidget
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.trained import TrainingPoint
from quantstudio.gui.plots.plot import Plot
from quantstudio.gui.theme import Theme, current_theme

_DOT_PX = 8
_ROOM = 0.06
_PEN_PX = 2.0
TITLE = "Training"


class TrainingCurvePlot(Plot):
    """Two lines over the epochs, or the share of right answers with a line where FP32 is."""

    offers_figures = True

    def __init__(self, name: str = "training_curve", parent: QWidget | None = None) -> None:
        super().__init__(name, TITLE, ("Epochs", ""), empty="", parent=parent)
        self._points: tuple[TrainingPoint, ...] = ()
        self._trained = pg.PlotCurveItem()
        self._held = pg.PlotCurveItem()
        self._looks = pg.ScatterPlotItem(size=_DOT_PX)
        self._best = pg.ScatterPlotItem(size=_DOT_PX + 4)
        self._float = pg.InfiniteLine(angle=0)
        for item in (self._float, self._trained, self._held, self._looks, self._best):
            self.item.addItem(item)
        self.retheme()

    @property
    def points(self) -> tuple[TrainingPoint, ...]:
        """What is shown, in the order it came."""
        return self._points

    @property
    def shows_answers(self) -> bool:
        """Whether right answers are drawn; without classes the loss is."""
        return bool(self._points) and all(point.right is not None for point in self._points)

    @property
    def _has_line(self) -> bool:
        last = self._points[-1] if self._points else None
        return self.shows_answers and last is not None and last.is_labelled and last.float_right is not None

    def show_curve(self, step: str, points: Sequence[TrainingPoint]) -> None:
        """Draw the looks of a training; at least one."""
        self._points = tuple(points)
        last = self._points[-1]
        self.set_labels("Epochs", self._axis())
        whole = f"{step}: epoch {last.epochs:.3g}, loss {last.held_loss:.3g} on samples kept out"
        self.subtitle.set_wordings(whole, f"loss {last.held_loss:.3g}", "")
        self.reset_view()
        self._draw(current_theme())
        self.show_plot(self._words(step))

    def _draw(self, theme: Theme) -> None:
        epochs = np.asarray([point.epochs for point in self._points])
        held = np.asarray([self._value(point) for point in self._points])
        trained = [point for point in self._points if point.loss is not None]
        is_loss = not self.shows_answers
        self._trained.setData(
            np.asarray([point.epochs for point in trained] if is_loss else []),
            np.asarray([point.loss for point in trained] if is_loss else [], dtype=np.float64),
            pen=pg.mkPen(theme.faint, width=_PEN_PX),
        )
        self._held.setData(epochs, held, pen=pg.mkPen(theme.q, width=_PEN_PX))
        self._looks.setData(x=epochs, y=held, pen=pg.mkPen(theme.q, width=1), brush=pg.mkBrush(theme.q))
        best = [i for i, point in enumerate(self._points) if point.is_best][-1:]
        self._best.setData(
            x=epochs[best], y=held[best], pen=pg.mkPen(theme.ok, width=1), brush=pg.mkBrush(theme.ok)
        )
        line = self._points[-1].float_right
        # Without labels FP32 is what is right: a line at 100 % would say nothing.
        self._float.setVisible(self._has_line)
        self._float.setValue(100 * (line or 0.0))
        self._float.setPen(pg.mkPen(theme.faint, width=1.5, style=Qt.PenStyle.DashLine))

    def _axis(self) -> str:
        if not self.shows_answers:
            return "Loss"
        return "Right answers (%)" if self._points[-1].is_labelled else "Answers as FP32's (%)"

    def _value(self, point: TrainingPoint) -> float:
        if self.shows_answers:
            return 100 * (point.right or 0.0)
        return point.held_loss

    def _words(self, step: str) -> str:
        parts = [f"epoch {point.epochs:.3g} {self._said(point)}" for point in self._points]
        return f"{step}: {'; '.join(parts)}."

    def _said(self, point: TrainingPoint) -> str:
        if point.right is None:
            return f"loss {point.held_loss:.3g}"
        kind = "right" if point.is_labelled else "as FP32"
        return f"{figures.percent(point.right)} {kind}, loss {point.held_loss:.3g}"

    @override
    def legend_entries(self, theme: Theme) -> Sequence[tuple[str, str]]:
        if self._has_line:
            return (("kept out", theme.q), ("best", theme.ok), ("FP32", theme.faint))
        if self.shows_answers:
            return (("kept out", theme.q), ("best", theme.ok))
        return (("trained on", theme.faint), ("kept out", theme.q), ("best", theme.ok))

    @override
    def reset_view(self) -> None:
        if not self._points:
            return
        values = [self._value(point) for point in self._points]
        if self.shows_answers:
            values += [100 * (self._points[-1].float_right or 0.0)] if self._has_line else []
        else:
            values += [point.loss for point in self._points if point.loss is not None]
        low, high = min(values), max(values)
        room = _ROOM * max(high - low, 1e-3 * max(abs(high), 1e-9))
        whole = self._points[-1]
        end = whole.epochs * whole.steps / whole.done if whole.done else 1.0
        self.item.getViewBox().setRange(
            xRange=(0.0, max(end, 1e-6)), yRange=(low - room, high + room), padding=0.02
        )

    @override
    def recolour(self, theme: Theme) -> None:
        if self._points:
            self._draw(theme)

    @override
    def figures_table(self) -> tuple[tuple[str, ...], ...]:
        rows = [
            (
                f"{point.epochs:.6g}",
                str(point.done),
                "" if point.loss is None else f"{point.loss:.6g}",
                f"{point.held_loss:.6g}",
                "" if point.right is None else f"{point.right:.6g}",
                "" if point.float_right is None else f"{point.float_right:.6g}",
            )
            for point in self._points
        ]
        return (("epochs", "steps", "loss", "loss kept out", "right", "right FP32"), *rows)
