"""What the session knows and tells: properties, signals, selection, and the doors results come in by."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from quantstudio.core.costs import CostTable
from quantstudio.core.data_spec import DataSpec, is_same_source
from quantstudio.core.errors import ProjectError, QuantStudioError
from quantstudio.core.figures import count
from quantstudio.core.layers import LayerInfo, ModelSummary
from quantstudio.core.prediction import Prediction
from quantstudio.core.prediction_check import Figure, PredictionPoint
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import AccuracyCurve, LayerSensitivity, SensitivityResult, VariantResult
from quantstudio.core.search_results import SearchResult
from quantstudio.core.sensitivity_rows import EXACT, joined
from quantstudio.core.statistics import Statistics, WeightStatistics
from quantstudio.gui.bridge import Background, RunnerFactory, Throttle
from quantstudio.gui.gradual_save import GradualSave
from quantstudio.gui.job_list import JobList
from quantstudio.gui.keeper import Keeper
from quantstudio.gui.recipe_edits import default_recipe
from quantstudio.gui.session_state import BuiltVariant, SessionState
from quantstudio.gui.session_values import JobRow, LogLine, NoticeLevel, Notification, Plan, Variant
from quantstudio.gui.what_if import WhatIf
from quantstudio.gui.wording import window_hint
from quantstudio.project.state import ProjectState
from quantstudio.project.store import Project
from quantstudio.project.values import Written

logger = logging.getLogger(__name__)

REFRESH_MS = 60
START_PLAN = "INT8"


class SessionBase(QObject):
    """Everything views read; its subclass adds everything they can do.

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
        runner_factory: RunnerFactory,
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
        self.job_list = JobList(runner_factory, self)
        self.background = Background(self)
        self._weights_throttle = self._throttle(self.weights_changed.emit)
        self._sensitivity_throttle = self._throttle(self._on_sensitivity_due)
        self._jobs_throttle = self._throttle(self.jobs_changed.emit)
        self._prediction_throttle = self._throttle(self._predict, 0)
        self.job_list.changed.connect(self._jobs_throttle.request)
        self.job_list.failed.connect(self._on_job_failed)

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
        return self.job_list.rows

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

    # What the engine found; called by the workflow as results come, and by tests.

    def adopt_model(
        self, model: ModelSummary | None, *, trusted: bool = False, factory: str = "", state_path: str = ""
    ) -> None:
        """Show a model: another one begins a new project, the same one keeps what is known of it."""
        known = self._project.model
        is_other = model is None or known is None or known.summary.digest != model.digest
        if is_other and (known is not None or model is None):
            self.attach_project(Project.temporary(restore=False))
        if model is None:
            return
        self._keep(lambda: self._keeper.keep_model(model, factory=factory, state_path=state_path))
        self.state.model, self.state.trusted = model, trusted
        self.state.factory, self.state.state_path = factory, state_path
        if is_other:
            self._fit_start_plan()
        self._tell_everything()
        self._warn_of(model)

    def attach_project(self, project: Project) -> None:
        """Go on in another project, with everything it knows; what cannot be read is told.

        Raises:
            ProjectError: the file cannot be read; the present project stays.
        """
        self.save_pending()
        keeper = Keeper(project)
        state = keeper.load()
        self.job_list.abandon()
        old, self._project = self._project, project
        if old is not project:
            old.close()
        self._keeper, self.state = keeper, state
        self._start_plan()
        self.project_changed.emit()
        self._tell_everything()
        for text in project.unreadable:
            self.notify(NoticeLevel.WARNING, text)
        if state.model is not None:
            for text in state.model.warnings[1:]:  # no job of this sitting has put them into the log
                self.job_list.logged.emit(LogLine(time.time(), NoticeLevel.WARNING, text))
            self._warn_of(state.model)
        if state.weights_path:
            self.load_weights(state.weights_path)
        if state.statistics_path:
            self.load_activations(state.statistics_path)

    def adopt_data(self, calibration: DataSpec | None, test: DataSpec | None) -> None:
        """Use other data; what was found with the data before is forgotten."""
        state = self.state
        model = state.model
        if calibration != state.calibration_data:
            state.activations = state.curve = state.sensitivity_run = state.search = None
            state.statistics_path = state.statistics_digest = ""
            state.sensitivity = {}
            self._saving.forget()
            if model is not None:
                self._keep(lambda: self._keeper.forget_calibration(model))
            self.activations_changed.emit()
            self.sensitivity_changed.emit()
        if (test or calibration) != self.measured_on:
            if model is not None:
                self._keep(lambda: self._keeper.forget_measurements(model, state.built))
                if state.test_data is not None:  # a search may have judged its plans there
                    self._keep(lambda: self._keeper.forget_search(model))
            state.base_result = None
            state.search = None if state.test_data is not None else state.search
            state.built = [replace(one, result=None) for one in state.built]
        state.calibration_data, state.test_data = calibration, test
        self._keep(lambda: self._keeper.keep_data(calibration, test))
        self.data_changed.emit()
        self._touch_variants()
        self._prediction_throttle.request()

    def adopt_weights(self, rows: Iterable[WeightStatistics]) -> None:
        """Weight statistics of some or all layers."""
        self.state.weights.update({row.layer: row for row in rows})
        self._weights_throttle.request()

    def adopt_weights_file(self, path: str) -> None:
        """Weight statistics of every layer that lie in a file."""
        model = self.state.model
        self.state.weights_path = path
        if model is not None:
            self._keep(lambda: self._keeper.keep_weights(model, path))
        if any(layer.weight_name and layer.name not in self.state.weights for layer in self.layers):
            self.load_weights(path)

    def adopt_activations(self, statistics: Statistics | None) -> None:
        """Activation statistics."""
        self.state.activations = statistics
        self.activations_changed.emit()

    def adopt_calibration(self, path: str, digest: str, samples_asked: int) -> None:
        """Activation statistics that lie in a file; builds made with others are out of date."""
        state = self.state
        state.statistics_path, state.statistics_digest, state.statistics_asked = path, digest, samples_asked
        model = state.model
        if model is not None:
            self._keep(lambda: self._keeper.keep_calibration(model, path, digest, samples_asked))
        self.load_activations(path)
        self._touch_variants()

    def adopt_sensitivity(self, rows: Iterable[LayerSensitivity], curve: AccuracyCurve | None = None) -> None:
        """Sensitivity of some or all layers, first or refined."""
        self._what_if.forget()
        found: dict[str, LayerSensitivity] = {}
        for row in rows:
            known = self.state.sensitivity.get(row.name)
            self.state.sensitivity[row.name] = found[row.name] = joined(known, row)
        self._saving.add(found)
        model = self.state.model
        if curve is not None:
            self.state.curve = curve
        if curve is not None and model is not None:
            self._saving.after_all(lambda: self._keep(lambda: self._keeper.keep_curve(model, curve)))
        self._sensitivity_throttle.request()

    def adopt_sensitivity_run(self, found: SensitivityResult) -> None:
        """A finished run: all its layers, its curve, and how it was made."""
        model = self.state.model
        known = self.state.sensitivity_run
        if known is None:
            run = found
        elif found.method == EXACT:
            kl_all = known.kl_all if found.kl_all is None else found.kl_all
            run = replace(known, classes=known.classes or found.classes, kl_all=kl_all)
        else:
            estimated = known.precisions if known.method != EXACT else ()
            precisions = tuple(dict.fromkeys((*estimated, *found.precisions)))
            classes = found.classes or known.classes
            run = replace(found, classes=classes, kl_all=known.kl_all, precisions=precisions)
        self.state.sensitivity_run = run
        self.adopt_sensitivity(found.layers, found.curve)
        if model is not None:
            self._saving.after_all(lambda: self._keep(lambda: self._keeper.keep_sensitivity_run(model, run)))

    def adopt_costs(self, costs: CostTable, text: Written | None = None) -> None:
        """Bytes and times for predictions; `text` is what the project keeps of them, where it is known."""
        self.state.costs = costs
        model = self.state.model
        if model is not None:
            self._keep(lambda: self._keeper.keep_costs(model, text or costs))
        self._prediction_throttle.request()

    def adopt_search(self, found: SearchResult) -> None:
        """What a search found; what it built is adopted like any build."""
        self.state.search = found
        model = self.state.model
        if model is not None:
            self._keep(lambda: self._keeper.keep_search(model, found))

    def adopt_build(self, built: BuiltVariant) -> None:
        """A variant that was built."""
        self.state.keep(built)
        self._keep(lambda: self._keeper.keep_built(built))
        self._touch_variants()

    def adopt_comparison(self, base: VariantResult, results: Mapping[str, VariantResult]) -> None:
        """Measurements: of the base, and of variants by the path of their file."""
        self.state.base_result = base
        model = self.state.model
        if model is not None:
            self._keep(lambda: self._keeper.keep_base(model, base))
        for index, one in enumerate(self.state.built):
            result = results.get(one.build.output)
            if result is not None:
                self.state.built[index] = measured = replace(one, result=result)
                self._keep(lambda measured=measured: self._keeper.keep_built(measured))  # type: ignore[misc]
        self._touch_variants()

    def load_weights(self, path: str) -> None:
        """Read weight statistics from a file without holding up the window."""

        def read(rows: tuple[WeightStatistics, ...]) -> None:
            if self.state.weights_path == path:
                self.adopt_weights(rows)

        def unreadable(error: Exception) -> None:
            if self.state.weights_path == path:
                self._on_weights_unreadable(error)

        self.background.run(lambda: _read_weights(path), read, unreadable)

    def load_activations(self, path: str) -> None:
        """Read activation statistics from a file without holding up the window."""

        def read(found: Statistics) -> None:
            if self.state.statistics_path == path:
                self.adopt_activations(found)

        def unreadable(error: Exception) -> None:
            if self.state.statistics_path == path:
                self._on_activations_unreadable(error)

        self.background.run(lambda: _read_activations(path), read, unreadable)

    def save_pending(self) -> None:
        """Write what is found and not yet in the project's file; it takes its time."""
        self._saving.flush()

    # Inside.

    def notify(self, severity: NoticeLevel, text: str, hint: str = "", where: str = "") -> None:
        """Tell the user something without stopping them."""
        logger.info("%s", text)
        self.notified.emit(Notification(severity, text, window_hint(hint), where))

    def _warn_of(self, model: ModelSummary) -> None:
        """Say once what makes a model's results worthless; the log names every tensor."""
        if model.warnings:
            others = len(model.warnings) - 1
            hint = f"The log has {count(others)} more such warning{'s' * (others > 1)}" if others else ""
            self.notify(NoticeLevel.WARNING, model.warnings[0], hint)

    def _on_weights_unreadable(self, error: Exception) -> None:
        self.state.weights_path = ""
        logger.warning("weight statistics: %s", error)
        self.notify(NoticeLevel.INFO, "Weight statistics are no longer in the cache", "Run Sensitivity again")

    def _on_activations_unreadable(self, error: Exception) -> None:
        self.state.statistics_path = ""
        logger.warning("activation statistics: %s", error)
        self.notify(NoticeLevel.INFO, "Calibration is no longer in the cache", "Run Calibrate again")

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


def _read_weights(path: str) -> tuple[WeightStatistics, ...]:
    from quantstudio.core.statistics_file import load_weight_statistics

    return tuple(load_weight_statistics(Path(path)))


def _read_activations(path: str) -> Statistics:
    from quantstudio.core.statistics_file import load_statistics

    return load_statistics(Path(path))
