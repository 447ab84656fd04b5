"""What a search works with: the tables it starts from, and the plans it has built and measured."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from quantstudio.core.costs import CostTable, FileForm, container_name
from quantstudio.core.effective_plan import EffectivePlan, resolve
from quantstudio.core.errors import DataError, RecipeError
from quantstudio.core.events import CancelToken, NullReporter, Reporter
from quantstudio.core.precision import LayerScheme
from quantstudio.core.predict.accuracy_law import AccuracyLaw, Plan, accuracy_law
from quantstudio.core.predict.kl_model import KlModel, fitted_kl, plan_parts, recovered_prior
from quantstudio.core.predict.model import LATENCY_LEVEL, LATENCY_SPREAD, Factor, PredictionModel
from quantstudio.core.predict.table import PredictionTable
from quantstudio.core.recipe import ActivationScope, CalibrationSettings, Recipe
from quantstudio.core.results import LatencyResult, SensitivityResult
from quantstudio.core.search_results import (
    ActivationFamily,
    searched_precisions,
)
from quantstudio.core.statistics import Statistics
from quantstudio.core.steps import changing_steps, completed_steps
from quantstudio.engine.analysis.costs import cost_table
from quantstudio.engine.analysis.sensitivity import fisher_sensitivity
from quantstudio.engine.analysis.store import ResultStore
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.evaluation.latency import LatencyBudget, interleaved_latency
from quantstudio.engine.evaluation.probe import DatasetLike
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import worker_threads
from quantstudio.engine.graph.writing import model_size, write_model
from quantstudio.engine.pipeline.discovery import step_infos
from quantstudio.engine.pipeline.observed import collected
from quantstudio.engine.pipeline.runner import (
    Prepared,
    StepInputs,
    completed,
    observed_after,
    prepare,
    prepare_before,
    resolved,
)
from quantstudio.engine.quantization.emit import emit, emit_with_plan
from quantstudio.engine.search.groups import find_groups
from quantstudio.engine.search.measure import Judge, Measurement
from quantstudio.engine.search.recovery import MAX_RECOVERED, needs_recovery, recovery_steps
from quantstudio.engine.search.request import Known, SearchRequest, Tried
from quantstudio.engine.search.sample_range import SampleRange
from quantstudio.engine.search.space import (
    SearchSpace,
    base_recipe,
    byte_costs,
    eight_bit_scheme,
    families_of,
    pins_of,
    searched_layers,
)

MAX_BUILDS = 24
# Samples the classes of a plan are judged by, and the multiplications all of those may take.
CLASS_SAMPLES = 4096
CLASS_MACS = 400_000_000_000
# Samples that no step is fitted to judge plans where there are at least these, as part of the search's own;
# and times as many as classes are judged by: a bound of 0.3 points is a handful of answers in a thousand.
FEWEST_APART = 0.5
APART = 3
# Share of the rounds that are taken to be undisturbed.
UNDISTURBED = 0.1
TIMING = LatencyBudget(seconds=1.5, min_rounds=25, max_rounds=200)


class Workbench:
    """Tables, judge and measured plans of one search.

    Attributes:
        opened: The model as it was opened: what plans are held against.
        before: What the steps that look at no precision made of it.
        graph: The graph they made: what precisions are chosen for.
        later: Names of the steps behind them: those look at the precisions and are run for every plan.
        recovering: Steps that plans of fewer than 8 bits have besides.
        space: What layers may become.
        curve: Accuracy against KL, or None.
        judge: Compares plans with FP32 on the samples of the search.
        tried: Measured plans by recipe digest, in the order they were built.
        has_test_data: Whether somebody gave other data to judge plans on.
        timing_seconds: Time spent on latency.
    """

    def __init__(
        self,
        graph: Graph,
        dataset: Dataset,
        request: SearchRequest,
        known: Known,
        test: Dataset | None,
        reporter: Reporter,
        cancel: CancelToken,
    ) -> None:
        """Run the steps that come first, calibrate, estimate, run FP32, choose a family, price.

        Raises:
            RecipeError: no layer can be quantized, pins do not fit the model, or a step is unknown.
            DataError: there are no samples, or a step needs labels and there are none.
            JobCancelled: the token was set.
        """
        self.opened, self.request = graph, request
        self.reporter, self.cancel = reporter, cancel
        own = request.kept or Recipe(calibration=CalibrationSettings(samples=request.samples))
        self.kept = completed(own.bare)
        self._given = StepInputs(dataset, known.statistics)
        self.before = prepare_before(graph, self.kept, self._given, reporter=reporter, cancel=cancel)
        self.graph = graph = self.before.graph
        on = [step.name for step in self.kept.steps if step.is_on]
        self.later = tuple(on[len(self.before.steps) :])
        self.tried: dict[str, Tried] = {}
        self.timing_seconds = 0.0
        self._dataset, self.has_test_data = dataset, test is not None
        self._test_data: DatasetLike | None = test
        self._test_judge: Judge | None = None
        self._class_judge: Judge | None = None
        layers = searched_layers(graph)
        if not layers:
            raise RecipeError("no layer of this model can be quantized", hint="There is nothing to search")
        if not len(dataset):
            raise DataError("a search needs samples", hint="Give data with at least one sample")
        target = self.kept.on_target
        pinned = pins_of(graph, request.pins, target)
        families = (
            families_of(graph, target) if request.family is ActivationFamily.AUTO else (request.family,)
        )
        self.statistics = self._calibrated(families)
        sensitivity = known.sensitivity
        if sensitivity is None or not _is_complete(sensitivity):
            sensitivity = self._estimated(known.store)
        self.rows = {row.name: row for row in sensitivity.layers}
        self.curve = sensitivity.curve
        started = time.process_time()  # a busy machine makes no pass longer than it is
        self.judge = Judge(self.opened, dataset, samples=request.samples, cancel=cancel)
        seconds = (time.process_time() - started) / worker_threads()
        names = [info.name for info in step_infos()]
        self.recovering, self._unrecovered = recovery_steps(request.recover, names, on, seconds, reporter)
        self._test_data = test or self._kept_apart()
        self._searched = {layer.name: layer for layer in layers}
        self.space = self._space(self._family(families), pinned, known.costs)
        first = resolved(self.kept, graph).steps[: len(self.before.steps)]
        # What the window predicts with, so that a plan says there what it says here.
        self.table = PredictionTable(
            graph.layers,
            costs=self.space.costs,
            sensitivity=self.rows,
            curve=self.curve,
            steps=first,
            changing=changing_steps(first, step_infos()),
            weight_bits=self.kept.on_target.weight_bits,
        )

    def _calibrated(self, families: Sequence[ActivationFamily]) -> Statistics | None:
        if tuple(families) == (ActivationFamily.WEIGHT_ONLY,) and not self.request.pins:
            return None
        return collected(
            self.graph,
            self._dataset,
            self.kept.calibration.samples,
            given=self._given.statistics,
            reporter=self.reporter,
            cancel=self.cancel,
        )

    def _estimated(self, store: ResultStore | None) -> SensitivityResult:
        return fisher_sensitivity(
            self.graph,
            self._dataset,
            samples=self.request.samples,
            precisions=searched_precisions(),
            reference="int4",
            statistics=self.statistics,
            store=store,
            reporter=self.reporter,
            cancel=self.cancel,
        )

    def _family(self, families: Sequence[ActivationFamily]) -> ActivationFamily:
        """The family whose 8-bit form is nearest to FP32, of those fast enough where latency is bounded."""
        plans = {}
        for family in families:
            recipe = base_recipe(self.graph, family, self.kept)
            plans[family] = self._measured(recipe, f"INT8 {family.value}", fits=False)
        able, ratio = list(plans), self.request.budget.max_latency_ratio
        if ratio is not None and len(plans) > 1:
            self.time(list(plans.values()))
            fastest = min(plans, key=lambda family: plans[family].latency_ratio or 0.0)
            able = [f for f, plan in plans.items() if (plan.latency_ratio or 0.0) <= ratio] or [fastest]
        if self.request.ships and len(plans) > 1:
            self.time(list(plans.values()))
            limit = self.request.budget.max_drop or 0.0
            keeping = [f for f in able if not _loses(plans[f].measurement, limit)]
            if keeping:
                # Of one size, as all hold their weights in 8 bits: the fastest that keeps the accuracy.
                return min(keeping, key=lambda family: plans[family].latency_ratio or math.inf)
        return min(able, key=lambda family: plans[family].measurement.kl)

    def _space(
        self, family: ActivationFamily, pinned: Mapping[str, LayerScheme], costs: CostTable | None
    ) -> SearchSpace:
        packs = self.request.budget.max_size_bytes is not None
        target = self.kept.on_target
        schemes = (eight_bit_scheme(layer, family, target) for layer in self._searched.values())
        containers = {container_name(scheme) for scheme in schemes}
        containers |= {container_name(scheme) for scheme in pinned.values()} | (
            {"weight-int4"} if packs else set()
        )
        scope = ActivationScope.WEIGHTED if family is ActivationFamily.WEIGHTED else ActivationScope.ALL
        if costs is None and self.request.budget.max_latency_ratio is not None:
            started = time.perf_counter()
            costs = cost_table(
                self.graph,
                self.statistics,
                self._dataset,
                opened=self.opened,
                reporter=self.reporter,
                cancel=self.cancel,
            )
            self.timing_seconds += time.perf_counter() - started
        return SearchSpace(
            graph=self.graph,
            family=family,
            rows=self.rows,
            groups=find_groups(self.graph),
            bytes=byte_costs(self.graph, self.statistics, containers - {"fp32"}, scope),
            costs=costs,
            pinned=pinned,
            border_ratio=self._border_ratio(family, costs),
            packs_file=packs,
            form=FileForm.UNPACKED if self.kept.unpacked else FileForm.PACKED,
            target=target,
        )

    def _border_ratio(self, family: ActivationFamily, costs: CostTable | None) -> dict[str, float]:
        """Time, as part of the FP32 run, that a layer costs at its borders when it alone leaves the integers.

        The sums of a solver know no pairs: borders are taken around the plan with everything at 8 bits. Two
        neighbours that leave together then pay for one border too many, which the prediction of the plan and
        its measured time put right.
        """
        if costs is None or costs.fp32_ms <= 0:
            return {}
        start = resolve(base_recipe(self.graph, family, self.kept), self.graph.layers).schemes
        border, found = costs.border, dict.fromkeys(start, 0.0)
        for edge in costs.edges:
            if not all(name in start and start[name].is_static for name in (edge.producer, edge.consumer)):
                continue
            into = border.quantize_ms + border.quantize_element_ms * edge.elements
            out = border.dequantize_ms + border.dequantize_element_ms * edge.elements
            found[edge.producer] += into / costs.fp32_ms
            found[edge.consumer] += out / costs.fp32_ms
        return found

    # -- plans -----------------------------------------------------------------------------------------

    def recipe(self, schemes: Mapping[str, LayerScheme]) -> Recipe:
        """The recipe of a plan: the family's 8-bit rules, then one exact rule per scheme that differs."""
        start = base_recipe(self.graph, self.space.family, self.kept)
        changed = {n: s for n, s in schemes.items() if start.scheme_for(self._searched[n]) != s}
        for scheme in dict.fromkeys(changed.values()):
            start = start.assign([name for name, own in changed.items() if own == scheme], scheme)
        if self.is_recovered(schemes):
            start = completed(replace(start, steps=(*start.steps, *self.recovering)))
        return start

    def measured(self, schemes: Mapping[str, LayerScheme], name: str = "") -> Tried:
        """Build and measure a plan; one that is known is not built again."""
        return self._measured(self.recipe(schemes), name, fits=True)

    def measured_recipe(self, recipe: Recipe, name: str) -> Tried:
        """As `measured`, for a plan of whatever family; one that is known keeps its name."""
        known = self.tried.get(recipe.digest)
        return known if known is not None else self._measured(recipe, name, fits=False)

    def is_known(self, schemes: Mapping[str, LayerScheme]) -> bool:
        """Whether a plan was measured."""
        return self.recipe(schemes).digest in self.tried

    def is_recovered(self, schemes: Mapping[str, LayerScheme]) -> bool:
        """Whether a plan is recovered before it is measured."""
        return bool(self.recovering) and needs_recovery(schemes)

    @property
    def is_spent(self) -> bool:
        """Whether as many plans were built, or recovered, as a search may build."""
        recovered = sum(self.is_recovered(one.schemes) for one in self.tried.values())
        return len(self.tried) >= MAX_BUILDS or recovered >= MAX_RECOVERED

    def _measured(self, recipe: Recipe, name: str, *, fits: bool) -> Tried:
        known = self.tried.get(recipe.digest)
        if known is not None:
            known.name = name or known.name
            known.fits = known.fits or fits
            return known
        self.cancel.raise_if_set()
        done = len(self.tried)
        self.reporter.progress(done, MAX_BUILDS, "plans", "Building and measuring plans")
        made, statistics = self.prepared(recipe)
        emission = emit_with_plan(made.graph, statistics, made.plan)
        model, schemes = emission.model, dict(emission.plan.schemes)
        one = Tried(recipe, made.plan, schemes, self.judge.measure(model), model_size(model), name, fits)
        self.tried[recipe.digest] = one
        return one

    def plan_of(self, recipe: Recipe) -> EffectivePlan:
        """What a recipe comes to."""
        return resolved(recipe, self.graph)

    @property
    def notes(self) -> list[str]:
        """What is to be said of the figures, a sentence each."""
        said = [self._unrecovered] if self._unrecovered else []
        later = (*self.later, *(step.name for step in self.recovering))
        if not later:
            return said
        names = ", ".join(later)
        return [
            *said,
            f"Predicted figures are without {names}, which depends on the precisions of a plan, but for what "
            "measured plans show; measured figures are with it.",
        ]

    def prepared(self, recipe: Recipe) -> tuple[Prepared, Statistics | None]:
        """What is quantized for a plan, and its statistics: steps that look at the plan make it anew."""
        if sum(step.is_on for step in recipe.steps) == len(self.before.steps):
            return Prepared(self.graph, self.plan_of(recipe), self.before.steps), self.statistics
        given = replace(self._given, statistics=self.statistics)
        quiet = NullReporter()
        made = prepare(self.opened, recipe, given, behind=self.before, reporter=quiet, cancel=self.cancel)
        if not made.plan.is_static:
            return made, None
        return made, observed_after(made, given, reporter=quiet, cancel=self.cancel)

    def _emitted(self, one: Tried) -> onnx.ModelProto:
        made, statistics = self.prepared(one.recipe)
        return emit(made.graph, statistics, made.plan)

    def predictor(self) -> KlModel:
        """The KL of plans, as corrected by everything measured so far."""
        learned = [one for one in self.tried.values() if one.fits]
        points = [(self.table.known_parts(one.plan), one.measurement.kl) for one in learned]
        return fitted_kl(points, recovered_prior() if self.recovering else None)

    def model(self) -> PredictionModel:
        """The prediction as corrected by everything measured so far."""
        latency = Factor(math.log(self._latency_factor()), LATENCY_LEVEL, LATENCY_SPREAD)
        return PredictionModel(kl=self.predictor(), law=self.law(), latency=latency, plans=len(self.tried))

    def law(self) -> AccuracyLaw | None:
        """Accuracy against KL, as corrected by everything measured so far; None for value outputs."""
        base = self.judge.base
        if base.metric is None:
            return None
        return accuracy_law(
            self.curve,
            [_evidence(one.measurement) for one in self.tried.values()],
            base=base.metric.value,
            samples=base.samples,
            labelled=self.judge.metric_name == "top1",
        )

    def parts(self, schemes: Mapping[str, LayerScheme]) -> dict[str, float]:
        """Estimated KL of a plan by precision."""
        searched = {name: scheme for name, scheme in schemes.items() if name in self._searched}
        return plan_parts(searched, self.rows, self.kept.on_target.weight_bits)

    # -- further measurements --------------------------------------------------------------------------

    def judge_on_test(self, one: Tried) -> Measurement:
        """The plan on the test data or samples kept apart; on those of the search where there are none."""
        if self._test_data is None:
            return one.measurement
        if one.test is None:
            if self._test_judge is None:
                self._test_judge = Judge(self.opened, self._test_data, samples=0, cancel=self.cancel)
            one.test = self._test_judge.measure(self._emitted(one))
        return one.test

    def judge_classes(self, one: Tried) -> Measurement:
        """The plan on as many samples as its classes are judged by: the test data, or more of the data."""
        if self._test_data is not None:
            return self.judge_on_test(one)
        samples = self._class_samples()
        if samples <= self.judge.base.samples:
            return one.measurement
        if one.by_class is None:
            if self._class_judge is None:
                self._class_judge = Judge(self.opened, self._dataset, samples=samples, cancel=self.cancel)
            one.by_class = self._class_judge.measure(self._emitted(one))
        return one.by_class

    def _kept_apart(self) -> DatasetLike | None:
        """Samples that no step of a plan is fitted to, to judge those that have such steps; None without."""
        fitted = {info.name for info in step_infos() if info.uses_data}
        steps = [s for s in (*self.kept.steps, *self.recovering) if s.is_on and s.name in fitted]
        if not steps:
            return None
        asked = [value for s in completed_steps(steps, step_infos()) if (value := s.settings.get("samples"))]
        seen = max(self.judge.base.samples, self.kept.calibration.samples, *map(int, asked))
        apart = SampleRange(self._dataset, self._class_samples(APART), start=seen)
        return apart if len(apart) >= FEWEST_APART * self.judge.base.samples else None

    def _class_samples(self, times: int = 1) -> int:
        """Samples that classes are judged by: a class has a tenth of them or less, so more than the search's.

        Bounded by the work, not by the time it takes, so that the same search gives the same plan.
        """
        work = sum(layer.macs or 0 for layer in self.opened.layers)
        most = times * CLASS_MACS // work if work else times * CLASS_SAMPLES
        return min(len(self._dataset), times * CLASS_SAMPLES, most)

    @property
    def judges_apart(self) -> bool:
        """Whether plans are finally judged on other samples than those of the search."""
        return self._test_data is not None

    @property
    def base(self) -> Measurement:
        """FP32 on the samples that plans are finally judged on."""
        return (self._test_judge or self.judge).base

    def _latency_factor(self) -> float:
        """What timed plans took over what the tables say of them: layers timed alone do not add up."""
        known = [
            one.latency_ratio / said
            for one in self.tried.values()
            if one.latency_ratio and (said := self.table.raw(one.plan).latency_ratio)
        ]
        return statistics.median(known) if known else 1.0

    def time(self, plans: Sequence[Tried]) -> None:
        """Latency of plans against FP32, interleaved."""
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="quantstudio-search-") as folder:
            paths = [Path(self.opened.summary.graph_path)]
            for index, one in enumerate(plans):
                paths.append(Path(folder) / f"plan{index}.onnx")
                model = self._emitted(one)
                write_model(model, paths[-1])
            found = interleaved_latency(
                paths, self.judge.first_feed(), budget=TIMING, reporter=self.reporter, cancel=self.cancel
            )
        base = undisturbed_ms(found.results[0])
        for one, result in zip(plans, found.results[1:], strict=True):
            one.latency_ms, one.latency_ratio = result.p50, undisturbed_ms(result) / base
        self.timing_seconds += time.perf_counter() - started


def undisturbed_ms(result: LatencyResult) -> float:
    """Time of a run that other programs hardly held up: they only ever add time.

    Where they take most of the processor a median says more of them than of the model, and a plan that is
    called slow by it is never chosen.
    """
    return float(np.quantile(result.samples_ms, UNDISTURBED)) if result.samples_ms else result.p50


def _loses(measured: Measurement, limit: float) -> bool:
    """Whether a plan loses more than a bound, beyond chance, or is no number at all."""
    drop = measured.drop
    if not math.isfinite(measured.kl):
        return True
    return drop is not None and drop.value > limit and drop.low > 0


def _evidence(measured: Measurement) -> Plan:
    lost = measured.drop.value / 100 if measured.drop is not None else None
    return Plan(measured.kl, measured.changed, lost, measured.samples)


def _is_complete(sensitivity: SensitivityResult) -> bool:
    """Whether known sensitivity has every precision of the weights, and of activations."""
    found = {precision for row in sensitivity.layers for precision in row.by_precision}
    return found >= set(searched_precisions())
