"""The window's side of the workspace: its signals as Qt's, at the pace of a screen, and the selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal

from quantstudio.gui.bridge import JobSignals, LoopCalls, Throttle
from quantstudio.jobs.backends.backend import BackendFactory
from quantstudio.project.store import Project
from quantstudio.workspace.workspace import Workspace

if TYPE_CHECKING:
    from quantstudio.core.predict.table import Prediction

REFRESH_MS = 60


class Session(QObject):
    """What views hold: the workspace, the selection, and signals that end with the view that listens.

    Every `*_changed` signal says that the property of that name may be different; streaming results arrive
    at most about sixteen times a second.
    """

    project_changed = Signal()
    model_changed = Signal()
    data_changed = Signal()
    weights_changed = Signal()
    activations_changed = Signal()
    sensitivity_changed = Signal()
    plans_changed = Signal()
    recipe_changed = Signal()
    variants_changed = Signal()
    search_changed = Signal()
    improvement_changed = Signal()
    levels_changed = Signal()
    prediction_changed = Signal()
    steps_changed = Signal()
    selection_changed = Signal()
    jobs_changed = Signal()
    notified = Signal(object)
    trust_requested = Signal(object)
    data_offered = Signal(str)
    pair_offered = Signal(str, str)
    data_refused = Signal(object)
    opened = Signal(str)
    report_written = Signal(str)

    def __init__(
        self,
        backend_factory: BackendFactory,
        parent: QObject | None = None,
        *,
        project: Project | None = None,
    ) -> None:
        super().__init__(parent)
        self._loop_calls = LoopCalls(self)
        self.workspace = Workspace(
            project=project, backend=backend_factory, call_soon=self._loop_calls.call_soon
        )
        self.job_signals = JobSignals(self.workspace.jobs, self)
        self.selection: tuple[str, ...] = ()
        self.current_layer: str | None = None
        self._prediction: Prediction | None = self.workspace.prediction
        self._prediction_throttle = self._throttle(self._on_prediction_due, 0)
        self._listen()
        self._select_first()

    def select(self, names: Sequence[str], current: str | None = None) -> None:
        """Select layers; `current` (by default the last) is the one the inspector shows.

        With nothing selected the inspector keeps the layer it shows.
        """
        known = {layer.name for layer in self.workspace.layers}
        chosen = tuple(dict.fromkeys(n for n in names if n in known))
        before = self.current_layer if self.current_layer in known else None
        shown = current if current in chosen else (chosen[-1] if chosen else before)
        if (chosen, shown) == (self.selection, self.current_layer):
            return
        self.selection, self.current_layer = chosen, shown
        self.selection_changed.emit()

    def close(self) -> None:
        """End the work and let go of the project; nothing is lost, and nobody is told anything any more."""
        self.blockSignals(True)
        for throttle in self.findChildren(Throttle):
            throttle.stop()
        self._loop_calls.close()
        self.workspace.close()

    # Inside.

    def _listen(self) -> None:
        workspace, documents = self.workspace, self.workspace.documents
        for source, signal in (
            (workspace.project_changed, self.project_changed),
            (workspace.model_changed, self.model_changed),
            (workspace.data_changed, self.data_changed),
            (workspace.activations_changed, self.activations_changed),
            (workspace.plans_changed, self.plans_changed),
            (workspace.recipe_changed, self.recipe_changed),
            (workspace.variants_changed, self.variants_changed),
            (workspace.steps_changed, self.steps_changed),
            (workspace.searches.changed, self.search_changed),
            (workspace.levels.changed, self.levels_changed),
        ):
            source.connect(signal.emit)
        workspace.model_changed.connect(self._select_first)
        workspace.weights_changed.connect(self._throttle(self.weights_changed.emit).request)
        workspace.sensitivity_changed.connect(self._throttle(self._on_sensitivity_due).request)
        workspace.improvement.changed.connect(self._throttle(self.improvement_changed.emit).request)
        workspace.jobs.changed.connect(self._throttle(self.jobs_changed.emit).request)
        workspace.prediction_changed.connect(self._prediction_throttle.request)
        workspace.notified.connect(self.notified.emit)
        documents.trust_requested.connect(self.trust_requested.emit)
        documents.data_offered.connect(self.data_offered.emit)
        documents.pair_offered.connect(self.pair_offered.emit)
        documents.data_refused.connect(self.data_refused.emit)
        documents.opened.connect(self.opened.emit)
        documents.report_written.connect(self.report_written.emit)

    def _select_first(self) -> None:
        self.select([layer.name for layer in self.workspace.layers[:1]])

    def _on_sensitivity_due(self) -> None:
        self.sensitivity_changed.emit()
        self._prediction_throttle.request()

    def _on_prediction_due(self) -> None:
        prediction = self.workspace.prediction
        if prediction != self._prediction:
            self._prediction = prediction
            self.prediction_changed.emit()

    def _throttle(self, slot: Callable[[], None], interval_ms: int = REFRESH_MS) -> Throttle:
        throttle = Throttle(interval_ms, self)
        throttle.due.connect(slot)
        return throttle
