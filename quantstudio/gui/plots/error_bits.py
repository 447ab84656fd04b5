"""What each precision costs one layer; a click chooses it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QWidget
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.precision import Grid, LayerScheme
from quantstudio.core.predict.kl_model import layer_kl
from quantstudio.core.results import LayerSensitivity
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.gui.plots.axes import NamedAxis
from quantstudio.gui.plots.plot import Click, Plot
from quantstudio.gui.theme import Theme, current_theme
from quantstudio.gui.widgets.segmented import Segmented

BAR_WIDTH = 0.56
SQNR = "sqnr"
KL = "kl"
_FLOATS = ("fp32", "fp16")
# Tenths of a decibel have room over so many columns.
_COLUMNS_WITH_TENTHS = 12


@dataclass(frozen=True, slots=True)
class PrecisionCost:
    """One column: a scheme the layer may have and what it costs."""

    name: str
    label: str
    sqnr_db: float | None
    kl: float | None

    @property
    def short_label(self) -> str:
        """The label where columns are a few pixels wide: "4" of W4A8, "C4" of its codebook, "32" of FP32."""
        text = NAMED_SCHEMES[self.name].short_label
        for kind in ("A8", "A4 sim", " dyn"):
            text = text.removesuffix(kind)
        for word, letter in (("CB", "C"), ("GB", "G"), ("TB", "T"), ("INT", ""), ("FP", "")):
            text = text.replace(word, letter)
        return text if NAMED_SCHEMES[self.name].is_weight_only else text.removeprefix("W")


def precision_costs(
    schemes: Sequence[str], sqnr_db: Mapping[str, float | None], sensitivity: LayerSensitivity | None
) -> tuple[PrecisionCost, ...]:
    """The schemes of a layer, most bits first, with SQNR of the weights and KL of the model's output."""
    named = [(name, NAMED_SCHEMES[name]) for name in NAMED_SCHEMES if name in {"fp32", *schemes}]
    named.sort(key=lambda pair: _order(pair[1]))
    return tuple(
        PrecisionCost(name, _column_label(scheme), sqnr_db.get(name), layer_kl(scheme, sensitivity))
        for name, scheme in named
    )


def columns_for(schemes: Sequence[str], current: LayerScheme) -> tuple[str, ...]:
    """The schemes of a layer worth a column: every format in the kind it is in, the usual ones in others.

    Codebooks of groups lie between those beside them: one has a column where the layer has it.
    """
    activations = current.activations
    if current.is_float:
        kinds = (NAMED_SCHEMES[name].activations for name in schemes if not NAMED_SCHEMES[name].is_float)
        activations = next(kinds, activations)
    return tuple(
        name
        for name in schemes
        if (scheme := NAMED_SCHEMES[name]).is_float
        or (
            scheme.activations == activations
            and (scheme.weights.grid is not Grid.GROUP or scheme.weights == current.weights)
        )
        or (scheme.weights.key and not scheme.is_simulated)
    )


def _order(scheme: LayerScheme) -> tuple[int, int, bool]:
    kind = 0 if scheme.is_weight_only else 2 if scheme.is_static else 1
    return -scheme.weights.bits, kind, scheme.weights.has_codebook


def _role(name: str) -> str:
    """Colour of a column: floats pale, grids and codebooks in the two colours of series."""
    if name in _FLOATS:
        return "faint"
    return "q" if NAMED_SCHEMES[name].weights.has_codebook else "fp"


def _column_label(scheme: LayerScheme) -> str:
    """A scheme in the few letters a column has; the legend tells a codebook from a grid."""
    return scheme.label.replace(" codebook", "")


class ErrorBitsPlot(Plot):
    """SQNR of the weights, or KL of the output, by precision; the current precision is ringed.

    Signals:
        scheme_chosen(str): a column was clicked; the scheme's one-word name.
    """

    scheme_chosen = Signal(str)

    def __init__(self, name: str = "error_bits", parent: QWidget | None = None) -> None:
        super().__init__(
            name,
            "Error against bits",
            ("", "Weight SQNR (dB)"),
            axes={"bottom": NamedAxis("bottom")},
            empty="Choose a layer that can be quantized.",
            parent=parent,
        )
        self._costs: tuple[PrecisionCost, ...] = ()
        self._current = ""
        self.measure = Segmented(((SQNR, "SQNR"), (KL, "KL")), "Measure of the error", pixels=11)
        self.measure.setObjectName(f"plot.{name}.measure")
        self.measure.chosen.connect(self._on_measure_chosen)
        self.header.addWidget(self.measure)
        self._bars = pg.BarGraphItem(x=[], height=[], width=BAR_WIDTH)
        self.item.addItem(self._bars)
        self._texts: list[pg.TextItem] = []
        self.item.scene().sigMouseClicked.connect(self._on_clicked)
        self.view.setCursor(Qt.CursorShape.PointingHandCursor)
        self.retheme()

    @property
    def costs(self) -> tuple[PrecisionCost, ...]:
        """The columns shown, from left to right."""
        return self._costs

    def show_costs(self, layer: str, costs: Sequence[PrecisionCost], current: str) -> None:
        """Draw the columns of a layer; `current` is the scheme it has now."""
        self._costs = tuple(costs)
        self._current = current
        self.measure.set_choice_enabled(
            KL,
            any(cost.kl is not None and cost.name not in _FLOATS for cost in costs),
            "Run Sensitivity to see the effect on the model's output",
        )
        if not self.measure.button(KL).isEnabled():
            self.measure.set_current(SQNR)
        self.subtitle.set_wordings(f"{layer}  ·  click a column to choose it", "click a column", "")
        axis = self.item.getAxis("bottom")
        assert isinstance(axis, NamedAxis)
        axis.set_names(
            {float(i): cost.label for i, cost in enumerate(self._costs)},
            {float(i): cost.short_label for i, cost in enumerate(self._costs)},
        )
        self._draw()
        self.show_plot(self._words(layer))

    def column_centre(self, scheme: str) -> tuple[float, float]:
        """Plot coordinates of the middle of a scheme's column."""
        index = next(i for i, cost in enumerate(self._costs) if cost.name == scheme)
        return float(index), self._heights()[index] / 2

    def _values(self) -> list[float | None]:
        if self.measure.current == KL:
            return [cost.kl for cost in self._costs]
        return [cost.sqnr_db for cost in self._costs]

    def _heights(self) -> list[float]:
        finite = [v for v in self._values() if v is not None and math.isfinite(v)]
        top = max(finite, default=1.0) or 1.0
        # A float scheme has no error: its column reaches a little above the best integer one.
        full = top * 1.12 if self.measure.current == SQNR else 0.0
        heights = []
        for cost, value in zip(self._costs, self._values(), strict=True):
            if cost.name in _FLOATS and (value is None or not math.isfinite(value)):
                heights.append(full)
            else:
                heights.append(value if value is not None and math.isfinite(value) else 0.0)
        return heights

    def _draw(self) -> None:
        theme = current_theme()
        is_kl = self.measure.current == KL
        self.set_labels("", "KL divergence (nats)" if is_kl else "Weight SQNR (dB)")
        heights = self._heights()
        x = np.arange(len(heights), dtype=np.float64)
        brushes, pens = [], []
        for cost in self._costs:
            colour = theme.color(_role(cost.name))
            colour.setAlpha(110 if cost.name in _FLOATS else 190)
            is_current = cost.name == self._current
            brushes.append(pg.mkBrush(colour))
            pens.append(pg.mkPen(theme.accent, width=2) if is_current else pg.mkPen(None))
        self._bars.setOpts(x=x, height=np.asarray(heights), width=BAR_WIDTH, brushes=brushes, pens=pens)
        top = max(heights, default=1.0) or 1.0
        view = self.item.getViewBox()
        view.setRange(xRange=(-0.6, len(heights) - 0.4), yRange=(0, top * 1.16), padding=0)
        self._write_values(heights, theme)

    @override
    def legend_entries(self, theme: Theme) -> Sequence[tuple[str, str]]:
        roles = {_role(cost.name) for cost in self._costs}
        if "q" not in roles:
            return ()
        return (("equal steps", theme.fp), ("codebook", theme.q))

    def _write_values(self, heights: Sequence[float], theme: Theme) -> None:
        for i, text in enumerate(self.texts_of(self._texts, len(heights), (0.5, 1.0))):
            is_current = self._costs[i].name == self._current
            text.setText(self._value_text(i))
            text.setColor(theme.accent if is_current else theme.muted)
            text.setPos(i, heights[i])

    def _value_text(self, index: int) -> str:
        value = self._values()[index]
        if self._costs[index].name in _FLOATS and (value is None or not math.isfinite(value)):
            return self._exact_text() if self._costs[index].name == "fp32" else "≈"
        if value is None:
            return figures.NOTHING
        if self.measure.current == KL:
            return figures.significant(value, 2)
        return figures.number(value, 1 if len(self._costs) <= _COLUMNS_WITH_TENTHS else 0)

    def _exact_text(self) -> str:
        """What stands on the column of FP32; a word would not fit on a narrow one."""
        if len(self._costs) <= _COLUMNS_WITH_TENTHS:
            return "exact"
        return "0" if self.measure.current == KL else "∞"

    def _words(self, layer: str) -> str:
        unit = "nats KL" if self.measure.current == KL else "dB SQNR"
        parts = [f"{cost.label} {self._value_text(i)}" for i, cost in enumerate(self._costs)]
        now = next((cost.label for cost in self._costs if cost.name == self._current), "custom")
        return f"{layer}, {unit}: {', '.join(parts)}. Now {now}."

    def _on_measure_chosen(self, _key: str) -> None:
        self._draw()

    def _on_clicked(self, event: Click) -> None:
        if self.is_empty or event.button() != Qt.MouseButton.LeftButton:
            return
        point = self.item.getViewBox().mapSceneToView(event.scenePos())
        index = round(point.x())
        if 0 <= index < len(self._costs) and abs(point.x() - index) <= 0.45:
            self.scheme_chosen.emit(self._costs[index].name)

    @override
    def reset_view(self) -> None:
        self._draw()

    @override
    def recolour(self, theme: Theme) -> None:
        if self._costs:
            self._draw()
