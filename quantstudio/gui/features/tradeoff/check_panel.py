"""How far to trust the predictions: what was predicted of every measured variant beside what came out."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from quantstudio.core.predict.check import Figure, PredictionPoint
from quantstudio.gui.plots.prediction_check import PredictionCheckPlot
from quantstudio.gui.session import Session
from quantstudio.gui.widgets.refresher import Refresher
from quantstudio.gui.widgets.segmented import Segmented

MIN_VARIANTS = 1


@dataclass(frozen=True, slots=True)
class _Shown:
    """How a figure is drawn: its name, unit, factor to that unit, and whether it spans decades."""

    name: str
    unit: str
    factor: float = 1.0
    is_log: bool = False


_FIGURES = {
    Figure.ACCURACY: _Shown("accuracy", "%", 100.0),
    Figure.KL: _Shown("KL divergence", "nats", is_log=True),
    Figure.LATENCY: _Shown("latency", "ms"),
}
_TEXTS = {Figure.ACCURACY: "Accuracy", Figure.KL: "KL", Figure.LATENCY: "Latency"}


class CheckPanel(QWidget):
    """The plot with a choice of the figure.

    Signals:
        export_failed(OutputError): an image could not be written.
    """

    export_failed = Signal(object)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("panel.check")
        self._session = session
        self._refresher = Refresher(self, 2)
        self.plot = PredictionCheckPlot()
        self.figure = Segmented([(f.value, _TEXTS[f]) for f in _FIGURES], "Figure checked", pixels=11)
        self.figure.setObjectName("check.figure")
        self.plot.add_to_header(self.figure)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.plot)
        self._refresher.due.connect(self._refresh)
        for signal in (session.variants_changed, session.model_changed, session.prediction_changed):
            signal.connect(self._refresher.request)
        self.figure.chosen.connect(self._on_figure_chosen)
        self.plot.action_asked.connect(session.workspace.runs.measure)
        self.plot.export_failed.connect(self.export_failed)
        self._refresher.request()

    def _refresh(self) -> None:
        figure = Figure(self.figure.current)
        shown = _FIGURES[figure]
        points = [
            p
            for p in self._session.workspace.prediction_points(figure)
            if not shown.is_log or _is_positive(p)
        ]
        if len(points) < MIN_VARIANTS:
            self._show_empty()
            return
        self.plot.show_points(
            [_scaled(p, shown.factor) for p in points], shown.name, shown.unit, is_log=shown.is_log
        )

    def _show_empty(self) -> None:
        session = self._session
        if session.workspace.model is None:
            self.plot.show_empty("Open a model first.")
        elif session.workspace.calibration_data is None:
            self.plot.show_empty("Choose data, then measure variants: each is compared with its prediction.")
        elif not session.workspace.layer_sensitivity:
            self.plot.show_empty("Run Sensitivity: predictions are made from it.")
        else:
            self.plot.show_empty(
                "Measure variants: each dot shows one beside what was predicted for it.", "Measure"
            )

    def _on_figure_chosen(self, _key: str) -> None:
        self._refresh()


def _is_positive(point: PredictionPoint) -> bool:
    return min(point.predicted, point.low, point.measured) > 0


def _scaled(point: PredictionPoint, factor: float) -> PredictionPoint:
    return PredictionPoint(
        point.name,
        point.predicted * factor,
        point.low * factor,
        point.high * factor,
        point.measured * factor,
    )
