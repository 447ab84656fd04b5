"""The one state object of the window: what is known, what is selected, what the recipe says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.layers import LayerInfo, ModelSummary
from quantstudio.core.precision import NAMED_SCHEMES, LayerScheme
from quantstudio.core.prediction import CostTable, Prediction, predict
from quantstudio.core.recipe import ActivationScope, CalibrationSettings, LayerRule, Recipe
from quantstudio.core.results import AccuracyCurve, LayerSensitivity, VariantResult
from quantstudio.core.statistics import Statistics, WeightStatistics
from quantstudio.gui import recipe_edits as edits
from quantstudio.gui.bridge import RunnerFactory, Throttle
from quantstudio.gui.job_list import JobList
from quantstudio.gui.plan_book import PlanBook
from quantstudio.gui.recipe_edits import Edit, PrecisionKey
from quantstudio.gui.session_state import BuiltVariant, SessionState
from quantstudio.gui.session_values import JobRow, NoticeLevel, Notification, Plan, Variant

__all__ = ["JobRow", "NoticeLevel", "Notification", "Plan", "PrecisionKey", "Session", "Variant"]

logger = logging.getLogger(__name__)

REFRESH_MS = 60


class Session(QObject):
    """What the window shows and what its commands do; views read properties and listen to signals.

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
        self._book = PlanBook(Plan("INT8", edits.default_recipe()))
        self._prediction: Prediction | None = None
        self.job_list = JobList(runner_factory, self)
        self._weights_throttle = self._throttle(self.weights_changed.emit)
        self._sensitivity_throttle = self._throttle(self._on_sensitivity_due)
        self._jobs_throttle = self._throttle(self.jobs_changed.emit)
        self._prediction_throttle = self._throttle(self._predict, 0)
        self.job_list.changed.connect(self._jobs_throttle.request)

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

    # Recipe edits: each is one undo step.

    def set_scheme(self, names: Sequence[str], scheme: LayerScheme | str) -> None:
        """Put layers in a scheme (or one of `core.precision.NAMED_SCHEMES` by name)."""
        self._apply(edits.with_scheme(self.recipe, self.layers, names, _scheme(scheme)))

    def set_precision(self, names: Sequence[str], key: PrecisionKey) -> None:
        """Put each layer in the first form of a precision it can have."""
        self._apply(edits.with_precision(self.recipe, self.layers, names, key))

    def set_scheme_by_type(self, op_type: str, scheme: LayerScheme | str) -> None:
        """Put every layer of an operator type in a scheme."""
        self._apply(edits.with_type(self.recipe, op_type, _scheme(scheme)))

    def add_rule(self, rule: LayerRule) -> None:
        """Append a rule; later rules win."""
        self._apply(edits.with_rule(self.recipe, rule))

    def replace_rule(self, index: int, rule: LayerRule) -> None:
        """Put another rule in the place of one."""
        self._apply(edits.replaced_rule(self.recipe, index, rule))

    def remove_rule(self, index: int) -> None:
        """Take a rule out."""
        self._apply(edits.without_rule(self.recipe, index))

    def move_rule(self, index: int, to: int) -> None:
        """Move a rule; later rules win."""
        self._apply(edits.moved_rule(self.recipe, index, to))

    def set_activation_range(self, tensor: str, low: float, high: float) -> None:
        """Set an activation range by hand."""
        self._apply(edits.with_activation_range(self.recipe, tensor, low, high))

    def set_weight_range(self, layer: str, low: float, high: float) -> None:
        """Set the clip range of a layer's weights by hand."""
        self._apply(edits.with_weight_range(self.recipe, layer, low, high))

    def clear_activation_range(self, tensor: str) -> None:
        """Go back to the calibrated range."""
        self._apply(edits.without_activation_range(self.recipe, tensor))

    def clear_weight_range(self, layer: str) -> None:
        """Go back to the range of the scheme's own rule."""
        self._apply(edits.without_weight_range(self.recipe, layer))

    def set_calibration(self, settings: CalibrationSettings) -> None:
        """Choose how activation ranges are read off the histograms."""
        self._apply(edits.with_calibration(self.recipe, settings))

    def set_activation_scope(self, scope: ActivationScope) -> None:
        """Choose which tensors static quantization covers."""
        self._apply(edits.with_activation_scope(self.recipe, scope))

    def set_recipe(self, recipe: Recipe, label: str) -> None:
        """Replace the active plan's recipe as a whole."""
        self._apply(Edit(label, recipe))

    def load_variant(self, variant: Variant) -> None:
        """Make a variant's recipe the active plan's."""
        self._apply(Edit(f"Load {variant.name}", variant.recipe))

    # Plans and undo.

    def add_plan(self, name: str = "") -> None:
        """A new plan with the default recipe, made active."""
        self._book_changed(self._book.add(name or "Plan", edits.default_recipe()))

    def duplicate_plan(self, name: str) -> None:
        """A copy of a plan, made active."""
        self._book_changed(self._book.duplicate(name))

    def rename_plan(self, name: str, new_name: str) -> None:
        """Another name for a plan."""
        self._book_changed(self._book.rename(name, new_name))

    def delete_plan(self, name: str) -> None:
        """Delete a plan; the last one stays."""
        self._book_changed(self._book.delete(name))

    def activate_plan(self, name: str) -> None:
        """Edit another plan."""
        self._book_changed(self._book.activate(name))

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to take back."""
        return self._book.can_undo

    @property
    def can_redo(self) -> bool:
        """Whether there is an edit to bring back."""
        return self._book.can_redo

    @property
    def undo_text(self) -> str:
        """Name of the edit undo takes back; empty if there is none."""
        return self._book.undo_text

    @property
    def redo_text(self) -> str:
        """Name of the edit redo brings back; empty if there is none."""
        return self._book.redo_text

    def undo(self) -> None:
        """Take back the last edit."""
        self._book_changed(self._book.undo())

    def redo(self) -> None:
        """Bring back the edit taken back last."""
        self._book_changed(self._book.redo())

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
        self.select(self.layers[:1] and [self.layers[0].name])
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

    # Inside.

    def notify(self, severity: NoticeLevel, text: str, hint: str = "", where: str = "") -> None:
        """Tell the user something without stopping them."""
        logger.info("%s", text)
        self.notified.emit(Notification(severity, text, hint, where))

    def _apply(self, edit: Edit) -> None:
        if edit.recipe != self.recipe:
            self._book_changed(self._book.edit(edit.label, edit.recipe))
        if edit.skipped:
            name, reason = edit.skipped[0]
            more = f" and {len(edit.skipped) - 1} more" if len(edit.skipped) > 1 else ""
            self.notify(NoticeLevel.WARNING, f"{name}{more} unchanged", reason)

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


def _scheme(scheme: LayerScheme | str) -> LayerScheme:
    return NAMED_SCHEMES[scheme] if isinstance(scheme, str) else scheme


def model_title(model: ModelSummary) -> str:
    """File name of a model, for titles."""
    return Path(model.source_path).name
