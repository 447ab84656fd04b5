"""File sizes side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtGui import QFontMetrics, QTextOption
from PySide6.QtWidgets import QWidget
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.gui.plots.axes import NamedAxis
from quantstudio.gui.plots.plot import Plot
from quantstudio.gui.theme import Theme, current_theme, ui_font

_BAR = 0.56
_NAME_LENGTH = 22
_BETWEEN_PX = 6


class SizeBarsPlot(Plot):
    """One bar per model, with its size and how many times smaller than the first it is."""

    def __init__(self, name: str = "sizes", parent: QWidget | None = None) -> None:
        super().__init__(
            name,
            "Model size",
            ("", "File size (MB)"),
            axes={"bottom": NamedAxis("bottom")},
            empty="Build a variant to see its size.",
            parent=parent,
        )
        self._models: tuple[tuple[str, int], ...] = ()
        self._bars = pg.BarGraphItem(x=[], height=[], width=_BAR, pen=None)
        self.item.addItem(self._bars)
        self._texts: list[pg.TextItem] = []
        self.item.getViewBox().sigResized.connect(self._on_resized)
        self.retheme()

    def show_sizes(self, models: Sequence[tuple[str, int]]) -> None:
        """Draw these pairs (name, bytes), the base first."""
        self._models = tuple(models)
        axis = self.item.getAxis("bottom")
        assert isinstance(axis, NamedAxis)
        short = [n if len(n) <= _NAME_LENGTH else n[: _NAME_LENGTH - 1] + "…" for n, _ in self._models]
        axis.set_names({float(i): name for i, name in enumerate(short)})
        self.reset_view()
        self._draw(current_theme())
        self.show_plot("; ".join(f"{name} {figures.size(size)}" for name, size in self._models))

    def _draw(self, theme: Theme) -> None:
        sizes = np.asarray([size / 1e6 for _, size in self._models])
        brushes = [pg.mkBrush(theme.series[i % len(theme.series)]) for i in range(len(sizes))]
        x = np.arange(len(sizes), dtype=np.float64)
        self._bars.setOpts(x=x, height=sizes, width=_BAR, brushes=brushes, pens=[pg.mkPen(None)] * len(sizes))
        while len(self._texts) < len(sizes):
            text = pg.TextItem("", anchor=(0.5, 1.0))
            text.setFont(ui_font(11))
            self._texts.append(text)
            self.item.addItem(text, ignoreBounds=True)
        base = self._models[0][1] if self._models else 0
        for i, text in enumerate(self._texts):
            text.setVisible(i < len(sizes))
            if i < len(sizes):
                text.setColor(theme.text)
                text.setPos(i, sizes[i])
        self._write(base)

    def _write(self, base: int) -> None:
        """The size over each bar and, on a line of its own, the factor: in words where they have room."""
        view = self.item.getViewBox()
        room = 1.0 / max(view.viewPixelSize()[0], 1e-12) - _BETWEEN_PX
        metrics = QFontMetrics(ui_font(11))
        for i, ((_, size), text) in enumerate(zip(self._models, self._texts, strict=False)):
            lines = [figures.size(size)]
            if i and base > size > 0:
                factor = figures.ratio(base / size)
                words = f"{factor} smaller"
                lines.append(words if metrics.horizontalAdvance(words) <= room else factor)
            fits = metrics.horizontalAdvance(lines[0]) <= room
            _write_centred(text, lines if fits else lines[1:])

    def _on_resized(self, *_args: object) -> None:
        if self._models:
            self._write(self._models[0][1])

    @override
    def reset_view(self) -> None:
        top = max((size / 1e6 for _, size in self._models), default=1.0) or 1.0
        self.item.getViewBox().setRange(
            xRange=(-0.6, max(len(self._models) - 0.4, 0.6)), yRange=(0, top * 1.3), padding=0
        )

    @override
    def recolour(self, theme: Theme) -> None:
        if self._models:
            self._draw(theme)


def _write_centred(text: pg.TextItem, lines: Sequence[str]) -> None:
    item = text.textItem
    item.document().setDefaultTextOption(QTextOption(Qt.AlignmentFlag.AlignHCenter))
    item.setTextWidth(-1)
    text.setPlainText("\n".join(lines))
    item.setTextWidth(item.document().idealWidth())
    text.updateTextPos()
