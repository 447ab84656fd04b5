"""What is open and what is known of it: the project, the model, its data, and every finding about them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from quantstudio.core.costs import CostTable
from quantstudio.core.data_spec import DataSpec, is_same_source
from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.errors import QuantStudioError
from quantstudio.core.findings import (
    CALIBRATION,
    COSTS,
    CURVE,
    MEASUREMENT,
    SEARCH,
    SENSITIVITY,
    SENSITIVITY_RUN,
    STEPS,
    VARIANT,
    WEIGHTS,
    StatisticsFile,
)
from quantstudio.core.hints import Hint, as_hint
from quantstudio.core.layers import LayerInfo, ModelSummary
from quantstudio.core.recipe import Recipe
from quantstudio.core.record import Records
from quantstudio.core.results import AccuracyCurve, LayerSensitivity, SensitivityResult
from quantstudio.core.search_results import PlanPoint, SearchResult
from quantstudio.core.signals import Signal
from quantstudio.core.statistics import Statistics, WeightStatistics
from quantstudio.core.steps import StepInfo, StepList
from quantstudio.core.variants import Variant
from quantstudio.jobs.queue import CallSoon
from quantstudio.jobs.rows import NoticeLevel
from quantstudio.project.state import Plan
from quantstudio.project.store import Project
from quantstudio.workspace.arrays import GONE, Arrays
from quantstudio.workspace.background import Background
from quantstudio.workspace.evidence import Evidence, evidence_from
from quantstudio.workspace.findings import Findings
from quantstudio.workspace.found import Found, read_variants
from quantstudio.workspace.resolved import Ground, ResolvedRecipes
from quantstudio.workspace.subject import Subject
from quantstudio.workspace.values import EngineOptions, Notification

if TYPE_CHECKING:
    from quantstudio.core.predict.check import Figure, PredictionPoint
    from quantstudio.core.predict.losses import PlanLosses
    from quantstudio.core.predict.table import Prediction
    from quantstudio.workspace.what_if import WhatIf

logger = logging.getLogger(__name__)
_STEPS_KEY = STEPS.key()


class Known:
    """What everybody reads. It changes through `Opening`, edits and findings alone.

    Every `*_changed` signal says that the property of that name may be different.

    Args:
        project: Where everything is kept.
        call_soon: Takes functions on any thread and runs them on the owner's, in order.
    """

    def __init__(self, project: Project, call_soon: CallSoon) -> None:
        self.project_changed: Signal[[]] = Signal()
        self.model_changed: Signal[[]] = Signal()
        self.data_changed: Signal[[]] = Signal()
        self.plans_changed: Signal[[]] = Signal()
        self.recipe_changed: Signal[[]] = Signal()
        self.activations_changed: Signal[[]] = Signal()
        self.sensitivity_changed: Signal[[]] = Signal()
        self.variants_changed: Signal[[]] = Signal()
        self.search_changed: Signal[[]] = Signal()
        self.prediction_changed: Signal[[]] = Signal()
        self.steps_changed: Signal[[]] = Signal()
        self.notified: Signal[[Notification]] = Signal()
        self._steps = StepList(())
        self._resolved = ResolvedRecipes()
        self._ground = Ground()
        self.project = project
        self.subject: Subject | None = None
        self.background = Background(call_soon)
        self.findings = Findings(project.findings, self.background, self._on_not_saved)
        self.arrays = Arrays(self.background, self._on_gone)
        self.weights_changed = self.arrays.weights_changed
        self._options = EngineOptions()
        self._revision = 0
        self._with_results: Records[Variant] | None = None
        self._variants: Records[Variant] | None = None
        self._prediction: tuple[Recipe, Prediction | None] | None = None
        self._statistics_path = ""
        self._listen()

    # The project.

    @property
    def plans(self) -> tuple[Plan, ...]:
        """All named recipes."""
        return self.project.state.plans

    @property
    def active_plan(self) -> str:
        """Name of the plan that is edited."""
        return self.project.state.active

    @property
    def recipe(self) -> Recipe:
        """The recipe of the active plan."""
        return self.project.state.recipe

    @property
    def steps(self) -> tuple[StepInfo, ...]:
        """Steps a recipe may hold, in the order of menus; empty until `Runs.describe_steps` found them.

        Until then those are known that the project was worked on with.
        """
        found = self._steps if self.are_steps_described else self.findings.get(STEPS, _STEPS_KEY)
        return found.steps if found is not None else ()

    @property
    def are_steps_described(self) -> bool:
        """Whether the worker of this session said which steps there are."""
        return bool(self._steps.steps)

    def set_steps(self, steps: tuple[StepInfo, ...]) -> None:
        """Take over what the worker knows of steps."""
        self._steps = StepList(steps)
        self.keep_steps()
        self.steps_changed.emit()
        self._on_ground()
        self._touch_variants()

    def keep_steps(self) -> None:
        """Have the project say what is known of steps: keys of what was found behind some depend on it."""
        if self.are_steps_described and self.findings.get(STEPS, _STEPS_KEY) != self._steps:
            self.findings.put(STEPS, _STEPS_KEY, self._steps)

    # What recipes come to.

    @property
    def ground(self) -> Ground:
        """What the precisions of the plan are chosen on: sensitivity, costs and searches are about this."""
        return self.ground_of(self.recipe)

    def ground_of(self, recipe: Recipe) -> Ground:
        """What the precisions of a recipe are chosen on; empty without a model."""
        if self.subject is None:
            return Ground()
        return self._resolved.ground(self.subject, self.steps, recipe)

    @property
    def found(self) -> Found:
        """What was found behind the steps of the plan that come before its precisions."""
        return self.found_of(self.recipe)

    def found_of(self, recipe: Recipe) -> Found:
        """What was found behind the steps of a recipe that come before its precisions."""
        return Found(self.findings, self.subject, self.ground_of(recipe))

    def plan_of(self, recipe: Recipe) -> EffectivePlan | None:
        """What a recipe comes to; None where it does not fit the model, or there is none."""
        return self._resolved.plan(self.subject, self.steps, recipe) if self.subject is not None else None

    # The model and its data.

    @property
    def model(self) -> ModelSummary | None:
        """The opened model."""
        return self.subject.model if self.subject is not None else None

    @property
    def layers(self) -> Records[LayerInfo]:
        """Layers of the model; empty without one."""
        return self.subject.layers if self.subject is not None else Records()

    @property
    def calibration_data(self) -> DataSpec | None:
        """Where activation statistics come from."""
        return self.subject.calibration.spec if self.subject and self.subject.calibration else None

    @property
    def test_data(self) -> DataSpec | None:
        """What accuracy is measured on."""
        return self.subject.test.spec if self.subject and self.subject.test else None

    @property
    def measured_on(self) -> DataSpec | None:
        """What accuracy is measured on: the calibration data where there is no test data."""
        return self.test_data or self.calibration_data

    @property
    def is_measured_on_calibration(self) -> bool:
        """Whether accuracy is measured on the very samples that set the ranges: variants look too good."""
        return is_same_source(self.measured_on, self.calibration_data)

    @property
    def options(self) -> EngineOptions:
        """Where and how the engine computes."""
        return self._options

    @options.setter
    def options(self, options: EngineOptions) -> None:
        self._options = options
        self._on_variants()

    # Statistics.

    @property
    def weights(self) -> Mapping[str, WeightStatistics]:
        """Weight statistics by layer; grows while they are computed."""
        return self.arrays.weights

    @property
    def weights_file(self) -> StatisticsFile | None:
        """Where they lie."""
        return self.findings.get(WEIGHTS, self.subject.weights_key) if self.subject else None

    @property
    def activations(self) -> Statistics | None:
        """Activation statistics, once their file is read."""
        file = self.statistics_file
        return self.arrays.activations(file.path) if file is not None else None

    @property
    def statistics_file(self) -> StatisticsFile | None:
        """Activation statistics for the data of now: of the samples the recipe asks for, else the newest."""
        if self.subject is None:
            return None
        key = self.subject.calibration_key
        return self.statistics_file_of(self.recipe) or self._readable(self.findings.newest(CALIBRATION, key))

    def statistics_file_of(self, recipe: Recipe) -> StatisticsFile | None:
        """Activation statistics over the very samples a recipe asks for."""
        return self._readable(self._statistics_of(recipe))

    # Sensitivity and costs: of the graph behind the steps of the plan that come before its precisions.

    @property
    def layer_sensitivity(self) -> Mapping[str, LayerSensitivity]:
        """Sensitivity by layer; grows and refines while it is computed."""
        return self.found.rows

    @property
    def sensitivity_run(self) -> SensitivityResult | None:
        """How it was made: method, samples, reference; its layers are in `layer_sensitivity`."""
        return self.found.run

    @property
    def sensitivity_curve(self) -> AccuracyCurve | None:
        """Accuracy expected at a total KL."""
        return self.found.curve

    @property
    def sensitivity_classes(self) -> tuple[str, ...]:
        """Names of the classes of `LayerSensitivity.by_class`; empty where there are none."""
        return self.found.classes

    @property
    def analyzed_precisions(self) -> frozenset[str]:
        """What an estimate of all layers has finished; a measured layer may know others for itself."""
        return self.found.analyzed

    @property
    def kl_of_all_layers(self) -> float | None:
        """KL with every layer at the reference precision, which "all but this" is held against."""
        run = self.sensitivity_run
        return run.kl_all if run is not None else None

    @property
    def costs(self) -> CostTable | None:
        """Bytes and times the predictions are made from."""
        return self.found.costs

    # Variants and searches.

    @property
    def variants(self) -> Records[Variant]:
        """The base, then every build of this project, oldest first."""
        if self._variants is None:
            self._variants = self._all_variants()
        return self._variants

    @property
    def base(self) -> Variant | None:
        """The FP32 model; None without a model."""
        return self.variants[0] if self.variants else None

    @property
    def current_variant(self) -> Variant | None:
        """The build of the recipe as it is now; None if it was not built yet."""
        return next((v for v in self.variants if v.is_current), None)

    def variant_of(self, recipe: Recipe) -> Variant | None:
        """The build of a recipe, or of another that comes to the same; None if there is none yet."""
        key = self.key_of(recipe)
        return next((v for v in self.variants if v.key == key and not v.is_base), None)

    def key_of(self, recipe: Recipe) -> str:
        """Key of the variant a recipe gives now; empty without a model. Views ask for it on every redraw."""
        if self.subject is None:
            return ""
        file = self._statistics_of(recipe)  # its digest is known when the cache has lost the file
        statistics = file.digest if file is not None else ""
        return self._resolved.key(self.subject, self.steps, recipe, statistics)

    @property
    def search_result(self) -> SearchResult | None:
        """What the last search with this data, and the steps of the plan, found."""
        return self.found.search

    # Predictions.

    @cached_property
    def _what_if(self) -> WhatIf:
        # All that predicts is loaded for the first model, when the window is there.
        from quantstudio.workspace.what_if import WhatIf

        return WhatIf(self.plan_of, lambda: self.weights, lambda: self.activations)

    @property
    def prediction(self) -> Prediction | None:
        """What the recipe will cost; None without a model."""
        recipe = self.recipe
        if self._prediction is None or self._prediction[0] is not recipe:
            self._prediction = (recipe, self.predicted(recipe))
        return self._prediction[1]

    def predicted(self, recipe: Recipe) -> Prediction | None:
        """What a recipe will cost by what is known now; None without a model, or where it does not fit it."""
        evidence, plan = self.evidence_of(recipe), self.plan_of(recipe)
        return self._what_if.predict(evidence, plan) if evidence is not None and plan is not None else None

    @property
    def losses(self) -> PlanLosses | None:
        """What each layer takes of what the plan is predicted to lose; None where nobody knows that."""
        evidence, plan = self.evidence, self.plan_of(self.recipe)
        return self._what_if.losses(evidence, plan) if evidence is not None and plan is not None else None

    def predicted_plans(self, points: Sequence[PlanPoint]) -> tuple[PlanPoint, ...]:
        """Plans of a search with what is predicted of them now, as of any other recipe."""
        return self._what_if.plans(points, self.evidence_of)

    def prediction_points(self, figure: Figure | None = None) -> tuple[PredictionPoint, ...]:
        """Every measured variant with the plan's steps against what the others predict; of its accuracy."""
        evidence = self.evidence
        return self._what_if.points(evidence, figure) if evidence is not None else ()

    @property
    def evidence(self) -> Evidence | None:
        """What predictions and reports of the plan are made from; None without a model."""
        return self.evidence_of(self.recipe)

    def evidence_of(self, recipe: Recipe) -> Evidence | None:
        """What predictions of a recipe are made from; None without a model."""
        return evidence_from(self.found_of(recipe), self._results(), self._revision)

    # What others call.

    def notify(
        self, severity: NoticeLevel, text: str, hint: str | Hint = "", where: str = "", error_kind: str = ""
    ) -> None:
        """Tell the user something without stopping them."""
        logger.info("%s", text)
        self.notified.emit(Notification(severity, text, as_hint(hint), where, error_kind))

    def notify_of(self, error: Exception) -> None:
        """Tell the user of an error."""
        told = error if isinstance(error, QuantStudioError) else QuantStudioError(str(error))
        self.notify(NoticeLevel.ERROR, told.what, told.hint, told.where, type(error).__name__)

    def tell_edited(self) -> None:
        """The plans are others: everything that depends on the recipe may be different."""
        self.plans_changed.emit()
        self.recipe_changed.emit()
        self._on_ground()
        self._on_statistics()

    def tell_everything(self) -> None:
        """Another model or project: everything may be different."""
        self._with_results = self._variants = self._prediction = None
        self._ground = self.ground
        for signal in (self.model_changed, self.data_changed, self.weights_changed):
            signal.emit()
        self._on_sensitivity()
        self.tell_edited()
        self.search_changed.emit()

    def tell_data(self) -> None:
        """Other data: everything that was found with it may be different."""
        self._with_results = self._variants = None
        self._ground = self.ground
        self.data_changed.emit()
        self._on_sensitivity()
        self.search_changed.emit()
        self._on_statistics()

    # Inside.

    def _listen(self) -> None:
        self.findings.changed(SENSITIVITY).connect(self._on_sensitivity)
        self.findings.changed(SENSITIVITY_RUN).connect(self._on_sensitivity)
        self.findings.changed(CURVE).connect(self._on_sensitivity)
        self.findings.changed(VARIANT).connect(self._on_variants)
        self.findings.changed(MEASUREMENT).connect(self._on_variants)
        self.findings.changed(CALIBRATION).connect(self._on_statistics)
        self.findings.changed(COSTS).connect(self._on_costs)
        self.findings.changed(SEARCH).connect(self._on_search)
        self.arrays.activations_changed.connect(self.activations_changed.emit)
        for told in (self.arrays.weights_changed, self.arrays.activations_changed):
            told.connect(self._on_distributions)

    def _on_ground(self) -> None:
        """Steps that were added, switched or taken back bring what is known of another graph."""
        before, self._ground = self._ground, self.ground
        if before.key != self._ground.key:
            self._on_sensitivity()
        if (before.key, before.calibration) != (self._ground.key, self._ground.calibration):
            self._on_search()

    def _on_sensitivity(self, _key: str = "") -> None:
        self._revision += 1
        self._prediction = None
        self.sensitivity_changed.emit()

    def _on_distributions(self) -> None:
        """What ranges set by hand cost may be known now."""
        if self.recipe.weight_ranges or self.recipe.activation_ranges:
            self._prediction = None
            self.prediction_changed.emit()

    def _on_costs(self, _key: str = "") -> None:
        self._prediction = None
        self.prediction_changed.emit()

    def _on_search(self, _key: str = "") -> None:
        self._prediction = None
        self.search_changed.emit()
        self.prediction_changed.emit()

    def _on_variants(self, _key: str = "") -> None:
        self._with_results = None
        self._touch_variants()

    def _touch_variants(self) -> None:
        """Another one may be current, or measured."""
        self._variants = self._prediction = None
        self.variants_changed.emit()
        self.prediction_changed.emit()

    def _on_statistics(self, _key: str = "") -> None:
        """Other statistics may be shown now, and other variants be current."""
        file = self.statistics_file
        path = file.path if file is not None else ""
        if path != self._statistics_path:
            self._statistics_path = path
            if path and self.arrays.activations(path) is None:
                self.arrays.load_activations(path)
            self.activations_changed.emit()
        self._touch_variants()

    def _statistics_of(self, recipe: Recipe) -> StatisticsFile | None:
        if self.subject is None:
            return None
        row = str(recipe.calibration.samples)
        return self.findings.get(CALIBRATION, self.subject.calibration_key, row)

    def _readable(self, file: StatisticsFile | None) -> StatisticsFile | None:
        return file if file is not None and self.arrays.is_readable(file.path) else None

    def _all_variants(self) -> Records[Variant]:
        found = self._results()
        if len(found) < 2:  # a key costs milliseconds where there are many layers
            return found
        now = self.key_of(self.recipe)
        return Records(
            replace(one, is_current=True) if one.key == now and not one.is_base else one for one in found
        )

    def _results(self) -> Records[Variant]:
        """The base and every build with what was measured, whatever the recipe is; predictions ask often."""
        if self._with_results is None:
            row = self._options.measurement_row
            found = self.subject and read_variants(self.findings, self.subject, row)
            self._with_results = found or Records()
        return self._with_results

    def _on_not_saved(self, error: QuantStudioError) -> None:
        self.notify(NoticeLevel.ERROR, f"Not saved: {error.what}", error.hint, error.where)

    def _on_gone(self, what: str) -> None:
        self.notify(NoticeLevel.INFO, *GONE[what])
        self._on_statistics()
