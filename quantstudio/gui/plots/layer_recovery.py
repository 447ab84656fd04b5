"""Error of every layer before and behind a step, as the step goes through them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QWidget
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.recovered import LayerRecovered
from quantstudio.gui.plots.axes import NamedAxis
from quantstudio.gui.plots.plot import Click, Plot
from quantstudio.gui.theme import Theme, current_theme

_DOT_PX = 9
_ROOM = 0.08
_NAMED = 16
TITLE = "Layer by layer"


class LayerRecoveryPlot(Plot):
    """A dot for the error before, one for what is left, joined; a click chooses the layer.

    Signals:
        layer_chosen(str): a dot was clicked.
    """

    layer_chosen = Signal(str)
    offers_figures = True

    def __init__(self, name: str = "layer_recovery", parent: QWidget | None = None) -> None:
        super().__init__(
            name,
            TITLE,
            ("", "Error (%)"),
            # Names of layers differ at their ends.
            axes={"bottom": NamedAxis("bottom", Qt.TextElideMode.ElideLeft)},
            empty="",
            parent=parent,
        )
        self._rows: tuple[LayerRecovered, ...] = ()
        self._labels: tuple[str, ...] = ()
        self._links = pg.PlotCurveItem(connect="pairs")
        self._before = self._dots()
        self._after = self._dots()
        for item in (self._links, self._before, self._after):
            self.item.addItem(item)
        self.retheme()

    @property
    def rows(self) -> tuple[LayerRecovered, ...]:
        """The layers shown, from left to right."""
        return self._rows

    def show_layers(
        self, step: str, rows: Sequence[LayerRecovered], labels: Sequence[str], title: str = TITLE
    ) -> None:
        """Draw layers, or what else was without and with a step; `labels` are their names for a person."""
        self.set_title(title)
        self._rows, self._labels = tuple(rows), tuple(labels)
        measure = rows[0].measure if rows else ""
        whole = f"{step}: {measure}" if step else measure
        self.subtitle.set_wordings(whole, step or measure, "")
        axis = self.item.getAxis("bottom")
        assert isinstance(axis, NamedAxis)
        # Of many layers every n-th has its name at the axis; the others say it under the pointer.
        stride = max(1, -(-len(labels) // _NAMED))
        names = without_shared_start(labels)
        axis.set_names({float(i): name for i, name in enumerate(names) if i % stride == 0})
        self.reset_view()
        self._draw(current_theme())
        self.show_plot(self._words(step, measure))

    def tip(self, index: int) -> str:
        """What a dot says under the pointer."""
        row = self._rows[index]
        left = "not measured" if row.after is None else figures.percent(row.after)
        return f"{self._labels[index]}\nbefore {figures.percent(row.before)}\nbehind the step {left}"

    def _dots(self) -> pg.ScatterPlotItem:
        made = pg.ScatterPlotItem(
            size=_DOT_PX,
            hoverable=True,
            hoverSize=_DOT_PX + 4,
            tip=lambda x, y, data: self.tip(int(data)),
        )
        made.sigClicked.connect(self._on_clicked)
        return made

    def _draw(self, theme: Theme) -> None:
        places = np.arange(len(self._rows), dtype=np.float64)
        before = np.asarray([100 * row.before for row in self._rows])
        known = [i for i, row in enumerate(self._rows) if row.after is not None]
        after = np.asarray([100 * (row.after or 0.0) for row in self._rows])[known]
        joined = np.repeat(places[known], 2)
        ends = np.stack([before[known], after], axis=1).ravel() if known else np.zeros(0)
        self._links.setData(joined, ends, connect="pairs")
        self._links.setPen(pg.mkPen(theme.faint, width=1.5))
        surface = pg.mkBrush(theme.surface)
        self._before.setData(
            x=places, y=before, data=list(range(len(places))), pen=pg.mkPen(theme.q, width=2), brush=surface
        )
        self._after.setData(
            x=places[known], y=after, data=known, pen=pg.mkPen(theme.ok, width=1), brush=pg.mkBrush(theme.ok)
        )

    def _words(self, step: str, measure: str) -> str:
        parts = [self.tip(i).replace("\n", " ") for i in range(len(self._rows))]
        return f"{', '.join(part for part in (step, measure) if part)}: {'; '.join(parts)}."

    def _on_clicked(self, _item: object, points: Sequence[pg.SpotItem], event: Click) -> None:
        if event.button() == Qt.MouseButton.LeftButton and len(points):
            self.layer_chosen.emit(self._rows[int(points[0].data())].layer)

    @override
    def legend_entries(self, theme: Theme) -> Sequence[tuple[str, str]]:
        return (("before", theme.q), ("behind the step", theme.ok))

    @override
    def show_empty(self, text: str, action: str = "") -> None:
        self.set_title(TITLE)
        super().show_empty(text, action)

    @override
    def reset_view(self) -> None:
        values = [100 * row.before for row in self._rows] + [100 * (row.after or 0.0) for row in self._rows]
        top = max(values, default=1.0) or 1.0
        self.item.getViewBox().setRange(
            xRange=(-0.6, max(len(self._rows) - 0.4, 0.6)),
            yRange=(-_ROOM * top, top * (1 + _ROOM)),
            padding=0,
        )

    @override
    def recolour(self, theme: Theme) -> None:
        if self._rows:
            self._draw(theme)

    @override
    def figures_table(self) -> tuple[tuple[str, ...], ...]:
        rows = [
            (row.layer, f"{row.before:.6g}", "" if row.after is None else f"{row.after:.6g}", row.measure)
            for row in self._rows
        ]
        return (("layer", "before", "behind the step", "share of"), *rows)


def without_shared_start(names: Sequence[str]) -> list[str]:
    """Names without the module that most of them begin with: "0.conv1" of "blocks.0.conv1"."""
    starts = Counter(name.partition(".")[0] for name in names if "." in name)
    shared, count = max(starts.items(), key=lambda one: one[1], default=("", 0))
    if 2 * count <= len(names):
        return list(names)
    return [name.removeprefix(f"{shared}.") for name in names]
