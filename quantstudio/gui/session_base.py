"""What the session knows and tells: properties, signals, selection."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from PySide6.QtCore import QObject, Signal

from quantstudio.core.costs import CostTable
from quantstudio.core.data_spec import DataSpec, is_same_source
from quantstudio.core.errors import ProjectError, QuantStudioError
from quantstudio.core.layers import LayerInfo, ModelSummary
from quantstudio.core.predict.check import Figure, PredictionPoint
from quantstudio.core.predict.table import Prediction
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import AccuracyCurve, LayerSensitivity
from quantstudio.core.sensitivity_rows import EXACT
from quantstudio.core.statistics import Statistics, WeightStatistics
from quantstudio.gui.bridge import Background, JobSignals, LoopCalls, Throttle
from quantstudio.gui.gradual_save import GradualSave
from quantstudio.gui.wording import window_hint
from quantstudio.jobs.backends.backend import BackendFactory
from quantstudio.jobs.queue import JobQueue
from quantstudio.jobs.rows import JobRow, NoticeLevel
from quantstudio.project.state import ProjectState
from quantstudio.project.store import Project
from quantstudio.workspace.keeper import Keeper
from quantstudio.workspace.recipe_edits import default_recipe
from quantstudio.workspace.state import SessionState
from quantstudio.workspace.values import Notification, Plan, Variant
from quantstudio.workspace.what_if import WhatIf

logger = logging.getLogger(__name__)

REFRESH_MS = 60
START_PLAN = "INT8"


class SessionBase(QObject):
    """Everything views read; `SessionResults` adds what comes in, `Session` what the user can do.

    Every `*_changed` signal says that the property of that name may be different; streaming results arrive
    at most about sixteen times a second.
    """

    model_changed = Signal()
    data_changed = Signal()
    weights_changed = Signal()
    activations_changed = Signal()
    sensitivity_changed = Signal()
    recipe_changed = Signal()
    plans_changed = Signal()
    variants_changed = Signal()
    selection_changed = Signal()
    jobs_changed = Signal()
    prediction_changed = Signal()
    project_changed = Signal()
    notified = Signal(object)

    def __init__(
        self,
        backend_factory: BackendFactory,
        parent: QObject | None = None,
        *,
        project: Project | None = None,
    ) -> None:
        super().__init__(parent)
        self.state = SessionState()
        self._project = project or Project.temporary(restore=False)
        self._keeper = Keeper(self._project)
        self._start_plan()
        self._saving = GradualSave(self._save_sensitivity, self)
        self._prediction: Prediction | None = None
        self._what_if = WhatIf()
        self._shown_variants: tuple[Recipe, tuple[Variant, ...]] | None = None
        self._loop_calls = LoopCalls(self)
        self.job_queue = JobQueue(backend_factory, self._loop_calls.call_soon)
        self.job_signals = JobSignals(self.job_queue, self)
        self.background = Background(self)
        self._weights_throttle = self._throttle(self.weights_changed.emit)
        self._sensitivity_throttle = self._throttle(self._on_sensitivity_due)
        self._jobs_throttle = self._throttle(self.jobs_changed.emit)
        self._prediction_throttle = self._throttle(self._predict, 0)
        self.job_signals.changed.connect(self._jobs_throttle.request)
        self.job_signals.failed.connect(self._on_job_failed)

    # What is known.

    @property
    def model(self) -> ModelSummary | None:
        """The opened model."""
        return self.state.model

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """Layers of the model; empty without one."""
        return self.state.model.layers if self.state.model else ()

    @property
    def calibration_data(self) -> DataSpec | None:
        """Where activation statistics come from."""
        return self.state.calibration_data

    @property
    def test_data(self) -> DataSpec | None:
        """What accuracy is measured on."""
        return self.state.test_data

    @property
    def measured_on(self) -> DataSpec | None:
        """What accuracy is measured on: the calibration data where there is no test data."""
        return self.state.test_data or self.state.calibration_data

    @property
    def is_measured_on_calibration(self) -> bool:
        """Whether accuracy is measured on the very samples that set the ranges: it flatters the variants."""
        return is_same_source(self.measured_on, self.state.calibration_data)

    @property
    def recipe(self) -> Recipe:
        """The recipe of the active plan."""
        return self._project.state.recipe

    @property
    def plans(self) -> tuple[Plan, ...]:
        """All named recipes."""
        return self._project.state.plans

    @property
    def active_plan(self) -> str:
        """Name of the plan that is edited."""
        return self._project.state.active

    @property
    def weights(self) -> Mapping[str, WeightStatistics]:
        """Weight statistics by layer; grows while they are computed."""
        return self.state.weights

    @property
    def activations(self) -> Statistics | None:
        """Activation statistics."""
        return self.state.activations

    @property
    def sensitivity(self) -> Mapping[str, LayerSensitivity]:
        """Sensitivity by layer; grows and refines while it is computed."""
        return self.state.sensitivity

    @property
    def sensitivity_curve(self) -> AccuracyCurve | None:
        """Accuracy expected at a total KL."""
        return self.state.curve

    @property
    def sensitivity_classes(self) -> tuple[str, ...]:
        """Names of the classes of `LayerSensitivity.by_class`; empty where there are none."""
        run = self.state.sensitivity_run
        return run.classes if run is not None else ()

    @property
    def analysed_precisions(self) -> frozenset[str]:
        """What an estimate of all layers has finished; a measured layer may know others for itself."""
        run = self.state.sensitivity_run
        if run is not None and run.precisions and run.method != EXACT:
            return frozenset(run.precisions)
        rows = [frozenset(row.by_precision) for row in self.state.sensitivity.values()]
        return frozenset.intersection(*rows) if rows else frozenset()

    @property
    def kl_of_all_layers(self) -> float | None:
        """KL with every layer at the reference precision, which "all but this" is held against."""
        run = self.state.sensitivity_run
        return run.kl_all if run is not None else None

    @property
    def costs(self) -> CostTable | None:
        """Bytes and times the predictions are made from."""
        return self.state.costs

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The base, then every build of this project, oldest first."""
        recipe = self.recipe
        if self._shown_variants is None or self._shown_variants[0] is not recipe:
            self._shown_variants = (recipe, self.state.variants(recipe))
        return self._shown_variants[1]

    @property
    def base(self) -> Variant | None:
        """The FP32 model; None without a model."""
        return next((v for v in self.variants if v.is_base), None)

    @property
    def current_variant(self) -> Variant | None:
        """The build of the recipe as it is now; None if it was not built yet."""
        return next((v for v in reversed(self.variants) if v.is_current), None)

    @property
    def selection(self) -> tuple[str, ...]:
        """Selected layers."""
        return self.state.selection

    @property
    def current_layer(self) -> str | None:
        """The layer the inspector shows."""
        return self.state.current_layer

    @property
    def jobs(self) -> tuple[JobRow, ...]:
        """Every job of this sitting, newest last."""
        return self.job_queue.rows

    @property
    def prediction(self) -> Prediction | None:
        """What the recipe will cost; None without a model."""
        return self._prediction

    def predicted(self, recipe: Recipe) -> Prediction | None:
        """What a recipe will cost by what is known now; None without a model."""
        return self._what_if.predict(self.state, recipe)

    def prediction_points(self, figure: Figure = Figure.ACCURACY) -> tuple[PredictionPoint, ...]:
        """Every measured variant against what is predicted of it from the others; takes some milliseconds."""
        return self._what_if.points(self.state, figure)

    @property
    def project(self) -> Project:
        """The file everything is kept in."""
        return self._project

    # Selection.

    def select(self, names: Sequence[str], current: str | None = None) -> None:
        """Select layers; `current` (by default the last) is the one the inspector shows.

        With nothing selected the inspector keeps the layer it shows.
        """
        known = {layer.name for layer in self.layers}
        chosen = tuple(dict.fromkeys(n for n in names if n in known))
        before = self.state.current_layer if self.state.current_layer in known else None
        shown = current if current in chosen else (chosen[-1] if chosen else before)
        if (chosen, shown) == (self.state.selection, self.state.current_layer):
            return
        self.state.selection, self.state.current_layer = chosen, shown
        self.selection_changed.emit()

    # What others call.

    def save_pending(self) -> None:
        """Write what is found and not yet in the project's file; it takes its time."""
        self._saving.flush()

    def notify(self, severity: NoticeLevel, text: str, hint: str = "", where: str = "") -> None:
        """Tell the user something without stopping them."""
        logger.info("%s", text)
        self.notified.emit(Notification(severity, text, window_hint(hint), where))

    # Inside.

    def _on_job_failed(self, row: JobRow) -> None:
        self.notify(NoticeLevel.ERROR, f"{row.title} failed: {row.outcome}", row.hint)

    def _touch_variants(self) -> None:
        self._shown_variants = None
        self.variants_changed.emit()

    def _start_plan(self) -> None:
        """A fresh project starts from INT8 everywhere instead of an empty recipe."""
        if self._project.state == ProjectState() and not self._project.undo_label:
            start = ProjectState((Plan(START_PLAN, default_recipe()),), START_PLAN)
            self._project.edit(start, f"Start with {START_PLAN}")

    def _fit_start_plan(self) -> None:
        """The first model of a project decides what its untouched first plan is."""
        state = self._project.state
        recipe = default_recipe(self.layers)
        if state == ProjectState((Plan(START_PLAN, default_recipe()),), START_PLAN):
            self._project.edit(state.with_recipe(recipe), "Start with INT8 at run time")

    def _keep(self, write: Callable[[], None]) -> None:
        try:
            write()
        except ProjectError as error:
            self.notify(NoticeLevel.ERROR, f"Not saved: {error.what}", error.hint, error.where)

    def _save_sensitivity(self, rows: tuple[LayerSensitivity, ...]) -> None:
        model = self.state.model
        if model is not None:
            self._keep(lambda: self._keeper.keep_sensitivity(model, rows))

    def _tell_everything(self) -> None:
        self._shown_variants = None
        for signal in (
            self.model_changed,
            self.data_changed,
            self.weights_changed,
            self.activations_changed,
            self.sensitivity_changed,
            self.plans_changed,
            self.recipe_changed,
        ):
            signal.emit()
        self._touch_variants()
        self.select([layer.name for layer in self.layers[:1]])
        self._predict()

    def _edit(self, change: Callable[[], bool]) -> None:
        """Make an edit of the plans; tell the views if it changed anything, the user if it could not."""
        try:
            changed = change()
        except QuantStudioError as error:
            self.notify(NoticeLevel.ERROR, error.what, error.hint, error.where)
            return
        if not changed:
            return
        self.plans_changed.emit()
        self.recipe_changed.emit()
        self._touch_variants()
        self._prediction_throttle.request()

    def _on_sensitivity_due(self) -> None:
        self.sensitivity_changed.emit()
        self._prediction_throttle.request()

    def _predict(self) -> None:
        prediction = self.predicted(self.recipe)
        if prediction != self._prediction:
            self._prediction = prediction
            self.prediction_changed.emit()

    def _fall_silent(self) -> None:
        """Save what is still to be saved and tell nobody anything any more."""
        self.save_pending()
        self.blockSignals(True)
        for throttle in self.findChildren(Throttle):
            throttle.stop()

    def _throttle(self, slot: Callable[[], None], interval_ms: int = REFRESH_MS) -> Throttle:
        throttle = Throttle(interval_ms, self)
        throttle.due.connect(slot)
        return throttle
