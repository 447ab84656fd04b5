"""What the session knows and tells: properties, signals, selection, and the doors results come in by."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.layers import LayerInfo, ModelSummary
from quantstudio.core.prediction import CostTable, Prediction, predict
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import AccuracyCurve, LayerSensitivity, VariantResult
from quantstudio.core.statistics import Statistics, WeightStatistics
from quantstudio.gui.bridge import Background, RunnerFactory, Throttle
from quantstudio.gui.job_list import JobList
from quantstudio.gui.plan_book import PlanBook
from quantstudio.gui.recipe_edits import default_recipe
from quantstudio.gui.session_state import BuiltVariant, SessionState
from quantstudio.gui.session_values import JobRow, NoticeLevel, Notification, Plan, Variant

logger = logging.getLogger(__name__)

REFRESH_MS = 60


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
    notified = Signal(object)

    def __init__(self, runner_factory: RunnerFactory, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.state = SessionState()
        self._book = PlanBook(Plan("INT8", default_recipe()))
        self._prediction: Prediction | None = None
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
    def recipe(self) -> Recipe:
        """The recipe of the active plan."""
        return self._book.active_plan.recipe

    @property
    def plans(self) -> tuple[Plan, ...]:
        """All named recipes."""
        return self._book.plans

    @property
    def active_plan(self) -> str:
        """Name of the plan that is edited."""
        return self._book.active

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
    def costs(self) -> CostTable | None:
        """Bytes and times the predictions are made from."""
        return self.state.costs

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The base, then every build of this project, oldest first."""
        return self.state.variants(self.recipe)

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

    # Selection.

    def select(self, names: Sequence[str], current: str | None = None) -> None:
        """Select layers; `current` (by default the last) is the one the inspector shows."""
        known = {layer.name for layer in self.layers}
        chosen = tuple(dict.fromkeys(n for n in names if n in known))
        shown = current if current in chosen else (chosen[-1] if chosen else None)
        if (chosen, shown) == (self.state.selection, self.state.current_layer):
            return
        self.state.selection, self.state.current_layer = chosen, shown
        self.selection_changed.emit()

    # What the engine found; called by the workflow as results come, and by tests.

    def adopt_model(self, model: ModelSummary | None) -> None:
        """Show another model, with nothing known of it yet."""
        self.state = SessionState(model=model)
        for signal in (
            self.model_changed,
            self.data_changed,
            self.weights_changed,
            self.activations_changed,
            self.sensitivity_changed,
            self.variants_changed,
        ):
            signal.emit()
        self.select([layer.name for layer in self.layers[:1]])
        self._predict()

    def adopt_data(self, calibration: DataSpec | None, test: DataSpec | None) -> None:
        """Use other data."""
        self.state.calibration_data, self.state.test_data = calibration, test
        self.data_changed.emit()

    def adopt_weights(self, rows: Iterable[WeightStatistics]) -> None:
        """Weight statistics of some or all layers."""
        self.state.weights.update({row.layer: row for row in rows})
        self._weights_throttle.request()

    def adopt_activations(self, statistics: Statistics | None) -> None:
        """Activation statistics."""
        self.state.activations = statistics
        self.activations_changed.emit()

    def adopt_calibration(self, path: str, digest: str, samples_asked: int) -> None:
        """Activation statistics that lie in a file; builds made with others are out of date."""
        state = self.state
        state.statistics_path, state.statistics_digest, state.statistics_asked = path, digest, samples_asked
        self.load_activations(path)
        self.variants_changed.emit()

    def adopt_sensitivity(self, rows: Iterable[LayerSensitivity], curve: AccuracyCurve | None = None) -> None:
        """Sensitivity of some or all layers, first or refined."""
        self.state.sensitivity.update({row.name: row for row in rows})
        if curve is not None:
            self.state.curve = curve
        self._sensitivity_throttle.request()

    def adopt_costs(self, costs: CostTable) -> None:
        """Bytes and times for predictions."""
        self.state.costs = costs
        self._prediction_throttle.request()

    def adopt_build(self, built: BuiltVariant) -> None:
        """A variant that was built."""
        self.state.keep(built)
        self.variants_changed.emit()

    def adopt_comparison(self, base: VariantResult, results: Mapping[str, VariantResult]) -> None:
        """Measurements: of the base, and of variants by the path of their file."""
        self.state.base_result = base
        self.state.built = [
            replace(one, result=results.get(one.build.output, one.result)) for one in self.state.built
        ]
        self.variants_changed.emit()

    def load_weights(self, path: str) -> None:
        """Read weight statistics from a file without holding up the window."""
        digest = self.state.model.digest if self.state.model else ""
        self.background.run(
            lambda: _read_weights(path),
            lambda rows: self._if_same_model(digest, lambda: self.adopt_weights(rows)),
            self._on_read_error,
        )

    def load_activations(self, path: str) -> None:
        """Read activation statistics from a file without holding up the window."""
        digest = self.state.model.digest if self.state.model else ""
        self.background.run(
            lambda: _read_activations(path),
            lambda found: self._if_same_model(digest, lambda: self.adopt_activations(found)),
            self._on_read_error,
        )

    # Inside.

    def notify(self, severity: NoticeLevel, text: str, hint: str = "", where: str = "") -> None:
        """Tell the user something without stopping them."""
        logger.info("%s", text)
        self.notified.emit(Notification(severity, text, hint, where))

    def _if_same_model(self, digest: str, adopt: Callable[[], None]) -> None:
        if self.state.model is not None and self.state.model.digest == digest:
            adopt()

    def _on_read_error(self, error: Exception) -> None:
        self.notify(NoticeLevel.WARNING, str(error), "Run the analysis again; it writes the file anew")

    def _on_job_failed(self, row: JobRow) -> None:
        self.notify(NoticeLevel.ERROR, f"{row.title} failed: {row.outcome}", row.hint)

    def _book_changed(self, changed: bool) -> None:
        if not changed:
            return
        self.plans_changed.emit()
        self.recipe_changed.emit()
        self.variants_changed.emit()
        self._prediction_throttle.request()

    def _on_sensitivity_due(self) -> None:
        self.sensitivity_changed.emit()
        self._prediction_throttle.request()

    def _predict(self) -> None:
        prediction = None
        if self.state.model is not None:
            prediction = predict(
                self.layers,
                self.recipe,
                costs=self.state.costs,
                sensitivity=self.state.sensitivity,
                curve=self.state.curve,
            )
        if prediction != self._prediction:
            self._prediction = prediction
            self.prediction_changed.emit()

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
