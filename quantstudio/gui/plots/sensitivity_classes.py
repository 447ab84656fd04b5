"""Which layer hurts which class: a table of colours, layers across and classes down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QEvent, QObject, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QFontMetrics, QKeyEvent, QWheelEvent
from PySide6.QtWidgets import QHBoxLayout, QScrollBar, QWidget
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.gui.plots.axes import FigureAxis, WholeNumberAxis
from quantstudio.gui.plots.plot import Click, Plot
from quantstudio.gui.theme import Theme, current_theme

LEFT_PX = 96
ROW_MIN_PX = 12
_NAME_ROOM_PX = 8
_LEVELS = 256
_SWATCHES = (0.0, 0.5, 1.0)
_NAMED = 3  # cells, in words
# One hue, lightness in one direction: readable with every kind of colour vision, and in grey.
_STOPS = {
    "light": ("#EFF4F9", "#A6CDE6", "#2F86BF", "#062E66"),
    "dark": ("#1F2830", "#20507A", "#4394CE", "#D8EEFC"),
}
_KEYS = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}
_WHEEL_NOTCH = 120


class ClassAxis(FigureAxis):
    """Class names, one per row."""

    def __init__(self) -> None:
        super().__init__("left")
        self._names: tuple[str, ...] = ()

    def set_names(self, names: Sequence[str]) -> None:
        """Names from the top."""
        self._names = tuple(names)
        self.picture = None
        self.update()

    @override
    def tickValues(self, minVal: float, maxVal: float, size: float) -> list[tuple[float, list[float]]]:
        low, high = sorted((minVal, maxVal))  # the first class is on top: the axis runs down
        first, last = max(0, math.ceil(low)), min(len(self._names) - 1, math.floor(high))
        return [(1.0, [float(i) for i in range(first, last + 1)])]

    @override
    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        metrics = QFontMetrics(self.style["tickFont"] or self.font())
        room = LEFT_PX - _NAME_ROOM_PX
        return [
            metrics.elidedText(self._names[round(value)], Qt.TextElideMode.ElideRight, room)
            for value in values
        ]


class ClassSensitivityPlot(Plot):
    """Colour of a cell: mean KL over the samples of a class when a layer alone is quantized.

    More classes than fit are scrolled; the wheel over the layers zooms them where every class fits.

    Signals:
        layer_chosen(str): a cell was clicked.
    """

    layer_chosen = Signal(str)
    offers_figures = True

    def __init__(self, name: str = "sensitivity_classes", parent: QWidget | None = None) -> None:
        self._axis = ClassAxis()
        super().__init__(
            name,
            "Sensitivity by class",
            ("Layer index", "Class"),
            axes={"bottom": WholeNumberAxis("bottom"), "left": self._axis},
            empty="Run Sensitivity to see which layer hurts which class.",
            parent=parent,
        )
        self._layers: tuple[str, ...] = ()
        self._titles: list[str] = []
        self._classes: tuple[str, ...] = ()
        self._kl: NDArray[np.float64] = np.zeros((0, 0))
        self._rank: NDArray[np.float64] = np.zeros(0)
        self._columns: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        self._rows: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        self._selection: tuple[str, ...] = ()
        self._is_sorted = False
        self._is_log = False
        self._image = pg.ImageItem(axisOrder="row-major")
        self.item.addItem(self._image)
        self._band = pg.BarGraphItem(x=[], height=[], width=1.0)
        self._band.setZValue(5)
        self.item.addItem(self._band, ignoreBounds=True)
        self._add_scroll_bar()
        self.item.getAxis("left").setWidth(LEFT_PX)
        self.item.showGrid(x=False, y=False)
        self.item.getViewBox().invertY(True)
        self.item.getViewBox().setMouseEnabled(x=True, y=False)
        self.item.getViewBox().sigResized.connect(self._on_resized)
        self.item.scene().sigMouseClicked.connect(self._on_clicked)
        self.item.scene().sigMouseMoved.connect(self._on_moved)
        self.view.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.view.installEventFilter(self)
        self.view.viewport().installEventFilter(self)
        self.retheme()

    def _add_scroll_bar(self) -> None:
        self.page = QWidget()
        row = QHBoxLayout(self.page)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        self.stack.removeWidget(self.view)
        row.addWidget(self.view, 1)
        self.view.show()  # leaving the stack hid it
        self.scroll_bar = QScrollBar(Qt.Orientation.Vertical)
        self.scroll_bar.setObjectName("sensitivity.classes.scroll")
        self.scroll_bar.setAccessibleName("Classes shown")
        self.scroll_bar.valueChanged.connect(self._on_scrolled)
        row.addWidget(self.scroll_bar)
        self.stack.addWidget(self.page)

    # ------------------------------------------------------------------ content

    @property
    def classes(self) -> tuple[str, ...]:
        """Names from the top, as shown."""
        return tuple(self._classes[i] for i in self._rows)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers from left to right, as shown."""
        return tuple(self._layers[i] for i in self._columns)

    def kl(self, layer: str, label: str) -> float:
        """The figure behind a cell, nats; NaN where there is none."""
        return float(self._kl[self._layers.index(layer), self._classes.index(label)])

    def show_table(
        self,
        kl: Mapping[str, float],
        by_class: Mapping[str, Sequence[float]],
        classes: Sequence[str],
        titles: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Draw the table of these layers; those without figures by class leave a gap.

        Args:
            kl: Mean KL over all samples by layer, in the order of execution: what layers are sorted by.
            by_class: Mean KL of each class by layer.
            classes: Their names.
            titles: What layers are called, where that is not their name.
        """
        layers = tuple(kl)
        self._titles = [titles.get(name, name) for name in layers]
        keeps_view = layers == self._layers and not self.is_empty
        self._layers, self._classes = layers, tuple(classes)
        self._rank = np.asarray([-value for value in kl.values()])
        nothing = (math.nan,) * len(classes)
        rows = [by_class.get(name) or nothing for name in layers]
        self._kl = np.asarray(
            [row if len(row) == len(classes) else nothing for row in rows], dtype=np.float64
        ).reshape(len(layers), len(classes))
        self._sort()
        self._draw()
        if not keeps_view:
            self.reset_view()
        self._set_rows()
        self.show_plot(self._words())

    def set_sorted(self, is_sorted: bool) -> None:
        """The most sensitive layers left and the most hurt classes on top, or both in their own order."""
        self._is_sorted = is_sorted
        self._sort()
        self._draw()
        self.set_labels("Layers, most sensitive first" if is_sorted else "Layer index", "Class")

    def set_log(self, is_log: bool) -> None:
        """Colours of a logarithmic scale: cells that hardly matter differ too."""
        self._is_log = is_log
        self._draw()
        self._set_legend(current_theme())

    def set_selection(self, names: Iterable[str]) -> None:
        """Mark the columns of these layers."""
        self._selection = tuple(names)
        self._draw_band()

    def cell_centre(self, layer: str, label: str) -> tuple[float, float]:
        """Plot coordinates of the middle of a cell."""
        return float(self.layers.index(layer)), float(self.classes.index(label))

    @override
    def figures_table(self) -> tuple[tuple[str, ...], ...]:
        head = ("layer", *(self._classes[i] for i in self._rows))
        return (
            head,
            *(
                (self._titles[i], *("" if np.isnan(v) else f"{v:.6g}" for v in self._kl[i, self._rows]))
                for i in self._columns
            ),
        )

    # ------------------------------------------------------------------ drawing

    def _sort(self) -> None:
        layers, classes = self._kl.shape
        self._columns, self._rows = np.arange(layers), np.arange(classes)
        if self._is_sorted and self._kl.size:
            known = np.nan_to_num(self._kl, nan=-1.0)
            self._columns = np.argsort(self._rank, kind="stable")
            self._rows = np.argsort(-known.max(axis=0), kind="stable")

    def _range(self) -> tuple[float, float]:
        """Ends of the colour scale."""
        known = self._kl[np.isfinite(self._kl)]
        top = float(known.max(initial=0.0)) or 1.0
        if not self._is_log:
            return 0.0, top
        positive = known[known > 0]
        return (float(positive.min()) if len(positive) else top / 10), top

    def _draw(self) -> None:
        table = self._kl[np.ix_(self._columns, self._rows)].T
        low, high = self._range()
        if self._is_log:
            with np.errstate(divide="ignore"):
                share = np.log(np.maximum(table, low) / low) / max(math.log(high / low), 1e-9)
        else:
            share = table / high
        known = np.isfinite(share)
        index = np.where(known, np.clip(share, 0.0, 1.0) * (_LEVELS - 1), 0).astype(np.intp)
        pixels = colours(current_theme())[index]
        pixels[~known, 3] = 0
        if pixels.size:
            self._image.setImage(pixels, levels=None)
            self._image.setRect(QRectF(-0.5, -0.5, table.shape[1], table.shape[0]))
        self._image.setVisible(bool(pixels.size))
        self._axis.set_names(self._row_names())
        self._draw_band()

    def _row_names(self) -> list[str]:
        """Class names from the top; a class that no layer has figures for says so."""
        names = []
        for i in self._rows:
            has_samples = not len(self._kl) or bool(np.isfinite(self._kl[:, i]).any())
            names.append(self._classes[i] if has_samples else f"{self._classes[i]} (none)")
        return names

    def _draw_band(self) -> None:
        position = {self._layers[i]: place for place, i in enumerate(self._columns)}
        places = np.asarray([position[n] for n in self._selection if n in position], dtype=np.float64)
        width = max(1.0, len(self._layers) / 180)
        self._band.setOpts(
            x=places,
            y0=np.full(len(places), -0.5),
            y1=np.full(len(places), len(self._classes) - 0.5),
            height=None,
            width=width,
        )

    # ------------------------------------------------------------------ view

    def _rows_seen(self) -> int:
        """Classes that fit at a readable height."""
        height = self.item.getViewBox().height()
        return max(1, min(len(self._classes), int(height / ROW_MIN_PX)))

    def _set_rows(self) -> None:
        seen = self._rows_seen()
        hidden = max(0, len(self._classes) - seen)
        self.scroll_bar.setPageStep(seen)
        self.scroll_bar.setMaximum(hidden)
        self.scroll_bar.setVisible(hidden > 0)
        top = self.scroll_bar.value()
        self.item.getViewBox().setYRange(top - 0.5, top + max(seen, 1) - 0.5, padding=0)

    def _on_resized(self, *_args: object) -> None:
        self._set_rows()

    def _on_scrolled(self, _value: int) -> None:
        self._set_rows()

    @override
    def reset_view(self) -> None:
        self.item.getViewBox().setXRange(-0.5, max(len(self._layers) - 0.5, 0.5), padding=0)
        self._set_rows()

    # ------------------------------------------------------------------ words

    def _words(self) -> str:
        if not np.isfinite(self._kl).any():
            return "No layer has figures by class yet."
        least_first = -np.nan_to_num(self._kl, nan=-1.0).ravel()
        worst = np.argpartition(least_first, min(_NAMED, least_first.size) - 1)[:_NAMED]
        flat = worst[np.argsort(least_first[worst], kind="stable")]
        parts = []
        for layer, label in zip(*np.unravel_index(flat, self._kl.shape), strict=True):
            if np.isfinite(self._kl[layer, label]):
                value = figures.significant(float(self._kl[layer, label]))
                parts.append(f"{self._titles[layer]} hurts {self._classes[label]} ({value})")
        return f"{len(self._layers)} layers, {len(self._classes)} classes; most: {', '.join(parts)}."

    # ------------------------------------------------------------------ mouse and keys

    def _cell_at(self, scene_position: QPointF) -> tuple[int, int] | None:
        point = self.item.getViewBox().mapSceneToView(scene_position)
        column, row = round(point.x()), round(point.y())
        is_inside = 0 <= column < len(self._columns) and 0 <= row < len(self._rows)
        return (int(self._columns[column]), int(self._rows[row])) if is_inside else None

    def _on_clicked(self, event: Click) -> None:
        if self.is_empty or event.button() != Qt.MouseButton.LeftButton:
            return
        position = event.scenePos()
        cell = self._cell_at(position)
        if cell is not None and self.item.getViewBox().sceneBoundingRect().contains(position):
            self.layer_chosen.emit(self._layers[cell[0]])

    def _on_moved(self, position: QPointF) -> None:
        cell = None if self.is_empty else self._cell_at(position)
        self.view.setToolTip("" if cell is None else self._tip(*cell))

    def _tip(self, layer: int, label: int) -> str:
        kl = float(self._kl[layer, label])
        name = self._classes[label]
        head = f"{self._titles[layer]}  ·  {f'class {name}' if name.isdigit() else name}"
        if math.isnan(kl):
            return f"{head}\nno samples of this class, or not analyzed yet"
        row = self._kl[layer][np.isfinite(self._kl[layer])]
        mean = float(row.mean())
        times = f"  ·  {figures.ratio(kl / mean)} the mean of its classes" if mean > 0 else ""
        return f"{head}\nKL {figures.significant(kl)} nats{times}"

    @override
    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Left and right choose the layer beside; the wheel scrolls where classes are hidden."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress and watched is self.view:
            step = _KEYS.get(Qt.Key(event.key()))
            if step is not None and self._layers:
                self._choose_beside(step)
                return True
        if isinstance(event, QWheelEvent) and self.scroll_bar.maximum() > 0 and not event.modifiers():
            notches = event.angleDelta().y() / _WHEEL_NOTCH
            self.scroll_bar.setValue(self.scroll_bar.value() - round(notches * 3))
            return True
        return super().eventFilter(watched, event)

    def _choose_beside(self, step: int) -> None:
        shown = self.layers
        at = shown.index(self._selection[-1]) if self._selection and self._selection[-1] in shown else -step
        self.layer_chosen.emit(shown[min(max(at + step, 0), len(shown) - 1)])

    # ------------------------------------------------------------------ theme

    @override
    def legend_entries(self, theme: Theme) -> Sequence[tuple[str, str]]:
        low, high = self._range()
        table = colours(theme)
        entries = []
        for share in _SWATCHES:
            value = low * (high / low) ** share if self._is_log else high * share
            unit = " nats" if share == _SWATCHES[-1] else ""
            red, green, blue, _ = (int(v) for v in table[round(share * (_LEVELS - 1))])
            entries.append((f"{figures.significant(value, 2)}{unit}", QColor(red, green, blue).name()))
        return tuple(entries)

    @override
    def recolour(self, theme: Theme) -> None:
        # The accent is a blue as the cells are: the colour of the text is seen on all of them.
        self._band.setOpts(brush=None, pen=pg.mkPen(theme.text, width=2))
        if self._kl.size:
            self._draw()


def colours(theme: Theme) -> NDArray[np.uint8]:
    """The colour scale of a theme, least first: [256, 4], red, green, blue, alpha."""
    stops = [QColor(name) for name in _STOPS["dark" if theme.is_dark else "light"]]
    at = np.linspace(0.0, 1.0, len(stops))
    x = np.linspace(0.0, 1.0, _LEVELS)
    channels = [
        np.interp(x, at, [getattr(stop, part)() for stop in stops]) for part in ("red", "green", "blue")
    ]
    return np.stack([*channels, np.full(_LEVELS, 255.0)], axis=1).round().astype(np.uint8)
