"""What the buttons set off: engine work in the right order, each result kept under its key."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from quantstudio.core.aim import DEFAULT_AIM, Aim
from quantstudio.core.codec import from_json
from quantstudio.core.costs import CostTable
from quantstudio.core.data_spec import ON_CALIBRATION, DataSpec
from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import CalibrationError, DataError
from quantstudio.core.events import Part
from quantstudio.core.figures import counted, number, size
from quantstudio.core.findings import CALIBRATION, COSTS, WEIGHTS, StatisticsFile
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.layers import ModelSummary
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import CompareResult, LayerSensitivity, QuantizeResult, SensitivityResult
from quantstudio.core.schemes import AUTO
from quantstudio.core.signals import Signal
from quantstudio.core.steps import StepList
from quantstudio.core.task_results import CalibrationFile
from quantstudio.core.variants import Variant
from quantstudio.jobs.queue import JobQueue, Work
from quantstudio.jobs.spec import JobSpec, Lane
from quantstudio.workspace.edits import Edits
from quantstudio.workspace.known import Known
from quantstudio.workspace.leaving import OPEN
from quantstudio.workspace.opening import Opening
from quantstudio.workspace.runs import job_specs
from quantstudio.workspace.runs.builds import (
    is_file,
    keep_build,
    keep_measurements,
    measures_alone,
    plan_of_preset,
    with_endings,
)
from quantstudio.workspace.runs.outcomes import at_precisions, few, measured_text
from quantstudio.workspace.runs.sensitivity import SensitivityKeys, put_rows, put_run, sensitivity_keys
from quantstudio.workspace.subject import SENSITIVITY_SAMPLES, Subject


@dataclass(frozen=True)
class _Asked:
    """What a build was sent off with."""

    subject: Subject
    recipe: Recipe
    plan: str
    statistics: str


class Runs:
    """Queues jobs and returns at once. A step finds out when its turn comes whether there is anything to do.

    Attributes:
        build_told: What a build of a recipe tells before it ends, such as of its steps.

    Args:
        known: What is open.
        opening: Where models come in.
        edits: What a preset changes.
        jobs: The queue.
    """

    def __init__(self, known: Known, opening: Opening, edits: Edits, jobs: JobQueue) -> None:
        self._known = known
        self._opening = opening
        self._edits = edits
        self._jobs = jobs
        self.build_told: Signal[[Recipe, Part]] = Signal()

    # What the buttons do.

    def analyze(self) -> None:
        """Weight statistics and the sensitivity of every layer."""
        group = new_group()
        self.add_weights(group)
        self.add_calibration(group)
        self.add_sensitivity(group, again=True)
        self.add_costs(group)

    def analyze_at(self, precisions: Sequence[str]) -> None:
        """Estimate every layer in further precisions; what is known stays and is not computed again."""
        if precisions:
            group = new_group()
            self.add_calibration(group)
            self.add_sensitivity(group, precisions=tuple(precisions))

    def calibrate(self) -> None:
        """Run the calibration data through the model again."""
        self.add_calibration(again=True)

    def exact_sensitivity(
        self,
        names: Sequence[str],
        *,
        precisions: Sequence[str] = (),
        all_but: bool = False,
        accumulated: bool = False,
    ) -> None:
        """Measure layers one at a time, and where asked with all the others quantized too.

        Without `precisions` in the usual ones.
        """
        if names:
            self.add_sensitivity(
                exact=tuple(names), precisions=tuple(precisions), all_but=all_but, accumulated=accumulated
            )

    def quantize(self, *, on_built: Callable[[], None] | None = None) -> None:
        """Build the recipe, calibrating first where that is missing."""
        group = new_group()
        self._calibrate_if_needed(group)
        self.add_build(group, on_built=on_built)

    def quantize_preset(self, preset: str, aim: Aim = DEFAULT_AIM) -> None:
        """Let a preset choose the precisions; its recipe becomes the plan's, as one undo step.

        `aim` is what the preset "auto" looks for.
        """
        group = new_group()
        self._calibrate_if_needed(group)
        self.add_build(group, preset=preset, aim=aim)

    def measure(self) -> None:
        """Measure the recipe as it is, building it first if needed; alone what has nothing to quantize."""
        group = new_group()
        if not measures_alone(self._known):
            self._calibrate_if_needed(group)
            self.add_build(group)
        self.add_measurement(group)

    def measure_every(self) -> None:
        """Measure every variant built so far, interleaved."""
        self.add_measurement(every=True)

    def run_all(self) -> None:
        """Everything from weights to measurement, what is known already left out."""
        group = new_group()
        self.add_weights(group)
        self.add_calibration(group)
        self.add_build(group)
        self.add_sensitivity(group)
        self.add_measurement(group)
        self.add_costs(group)

    # Opening.

    def open_model(
        self, path: str, *, trust: bool, factory: str, state: str, on_opened: Callable[[], None]
    ) -> None:
        """Open a model; what is known of the one before is replaced when it succeeds."""

        def opened(model: ModelSummary) -> str:
            self._opening.set_model(model, trusted=trust, factory=factory, state_path=state)
            on_opened()
            return f"{counted(len(model.layers), 'layer')}, {size(model.file_bytes)}"

        self._jobs.abandon()
        self._add(
            OPEN,
            f"Open {Path(state or path).name}",
            lambda: job_specs.open_model_job(path, trust=trust, factory=factory, state=state),
            opened,
            reads=partial(from_json, ModelSummary),
        )

    def check_data(self, spec: DataSpec, on_checked: Callable[[Mapping[str, Any]], None]) -> str:
        """Open a data set in the worker; `on_checked` gets what is in it. Returns the id of the job."""

        def checked(result: Mapping[str, Any]) -> str:
            on_checked(result)
            return f"{result.get('samples', 0)} samples"

        model = self._subject().model
        return self._add(
            f"data {spec}",
            f"Check {Path(spec.path).name}",
            lambda: job_specs.data_summary_job(model, spec),
            checked,
            lane=Lane.QUICK,
        )

    def expect_checks(self) -> None:
        """Somebody is choosing data: the worker that is going to check it gets ready."""
        self._jobs.prepare(Lane.QUICK)

    def devices(self, on_found: Callable[[Mapping[str, Any]], None]) -> None:
        """Ask the worker what is installed to compute on."""

        def found(result: Mapping[str, Any]) -> str:
            on_found(result)
            return ", ".join([*result["providers"], *result["torch_devices"]])

        self._add("devices", "List devices", job_specs.devices_job, found, lane=Lane.QUICK)

    def describe_steps(self, group: str | None = None) -> None:
        """Ask the worker which steps there are, unless it said so in this session.

        Args:
            group: Of work that waits for the answer; None where nothing does.
        """

        def found(steps: StepList) -> str:
            self._known.set_steps(steps.steps)
            return counted(len(steps.steps), "step")

        if self._known.are_steps_described:
            return
        key, lane = ("steps", Lane.QUICK) if group is None else ("steps first", Lane.WORK)
        job, reads = job_specs.steps_job, partial(from_json, StepList)
        work = Work(key, "List steps", job, found, group=group or "", reads=reads, lane=lane, is_aside=True)
        self._jobs.add(replace(work, is_of_program=group is None))

    # Analysis.

    def add_weights(self, group: str = "") -> None:
        """Weight statistics, unless every layer has them."""
        asked: list[Subject] = []

        def make() -> JobSpec | None:
            subject, file = self._subject(), self._known.weights_file
            owners = {layer.name for layer in subject.model.layers if layer.weight_name}
            if owners <= set(self._known.weights) or (file is not None and is_file(file.path)):
                return None
            asked.append(subject)
            return job_specs.weights_job(subject.model)

        def finished(result: Mapping[str, Any]) -> str:
            subject, path = asked[-1], str(result["path"])
            self._known.findings.put(WEIGHTS, subject.weights_key, StatisticsFile(path))
            owners = {layer.name for layer in subject.model.layers if layer.weight_name}
            if not owners <= set(self._known.weights):
                self._known.arrays.load_weights(path)
            return counted(result.get("layers", 0), "layer")

        self._add("weights", "Weight statistics", make, finished, group=group)

    def add_calibration(self, group: str = "", *, again: bool = False) -> None:
        """Activation statistics, unless they are there for this data (or `again`)."""
        asked: list[tuple[str, int]] = []

        def make() -> JobSpec | None:
            data = self._needed_data()
            subject, recipe = self._subject(), self._known.recipe
            file = self._known.statistics_file_of(recipe)
            if file is not None and is_file(file.path) and not again:
                return None
            # The recipe may ask for others, and the data be another, by the time it is done.
            asked.append((subject.calibration_key, recipe.calibration.samples))
            return job_specs.calibrate_job(subject.model, data, recipe.calibration.samples)

        def finished(found: CalibrationFile) -> str:
            key, samples = asked[-1]
            self._known.arrays.load_activations(found.path)
            file = StatisticsFile(found.path, found.digest, samples)
            self._known.findings.put(CALIBRATION, key, file, row=str(samples))
            return f"{found.tensors} tensors over {found.samples} samples"

        reads = partial(from_json, CalibrationFile)
        self._add("calibrate", "Calibrate", make, finished, group=group, reads=reads)

    def add_sensitivity(
        self,
        group: str = "",
        *,
        exact: Sequence[str] = (),
        again: bool = False,
        precisions: Sequence[str] = (),
        all_but: bool = False,
        accumulated: bool = False,
    ) -> None:
        """Sensitivity of every layer by output Fisher, in these precisions at least, or exactly of some.

        `all_but` and `accumulated` are measured only where asked, see `LayerSensitivity`. An estimate is
        known once a run over all samples has finished with it; a row may hold one that was stopped half way,
        which the engine then goes on with. What it has kept it does not compute again, with `again` neither.
        """
        method = "exact" if exact else "fisher"
        asked: list[SensitivityKeys] = []
        self._know_steps(group)

        def make() -> JobSpec | None:
            known, data = self._known, self._needed_data()
            run, ground = known.sensitivity_run, known.ground
            estimated = set(run.precisions) if run is not None and run.method != "exact" else set()
            missing = [name for name in precisions if exact or again or name not in estimated]
            if not exact and not again and known.sensitivity_curve is not None and not missing:
                return None
            subject = self._subject()
            asked.append(sensitivity_keys(subject, ground.graph))
            known.keep_steps()
            return job_specs.sensitivity_job(
                subject.model,
                data,
                method=method,
                samples=SENSITIVITY_SAMPLES,
                recipe=replace(known.recipe.bare, steps=ground.steps),
                layers=exact,
                all_but=all_but,
                accumulated=accumulated,
                precisions=missing,
                # An estimate runs in torch, a measurement in ONNX Runtime.
                device=known.options.provider if exact else known.options.device,
            )

        def on_part(part: Part) -> None:
            if isinstance(part, LayerSensitivity):
                put_rows(self._known.findings, asked[-1], [part])

        def finished(found: SensitivityResult) -> str:
            put_run(self._known.findings, asked[-1], found)
            return f"{counted(len(found.layers), 'layer')} over {found.samples} samples, {found.method}"

        more = at_precisions(precisions)
        title = f"Exact sensitivity of {few(exact)}{more}" if exact else f"Sensitivity{more}"
        what = " ".join((*exact, *precisions, *("all but",) * all_but, *("accumulated",) * accumulated))
        self._add(
            f"sensitivity {method} {what}",
            title,
            make,
            finished,
            on_part=on_part,
            group=group,
            reads=partial(from_json, SensitivityResult),
        )

    def add_costs(self, group: str = "") -> None:
        """Bytes and times for the predictions, once for a model and the steps before its precisions."""
        asked: list[str] = []
        self._know_steps(group)

        def make() -> JobSpec | None:
            known, subject = self._known, self._subject()
            if known.costs is not None:
                return None
            ground, file = known.ground, known.statistics_file
            asked.append(subject.costs_key(ground.graph))
            known.keep_steps()
            return job_specs.costs_job(
                subject.model,
                known.calibration_data,
                statistics=file.path if file is not None else "",
                recipe=replace(known.recipe.bare, steps=ground.steps),
            )

        def finished(costs: CostTable) -> str:
            self._known.findings.put(COSTS, asked[-1], costs)
            return f"FP32 takes {number(costs.fp32_ms, 2)} ms" if costs.fp32_ms else "sizes of every scheme"

        reads = partial(from_json, CostTable)
        self._add("costs", "Cost tables", make, finished, group=group, reads=reads, lane=Lane.TIMING)

    # Building and measuring.

    def add_build(
        self,
        group: str = "",
        *,
        preset: str = "",
        aim: Aim = DEFAULT_AIM,
        on_built: Callable[[], None] | None = None,
        of: Recipe | None = None,
        name: str = "",
    ) -> None:
        """Build the recipe as it is in its turn, a preset, which becomes it, or one with its own `name`."""
        made: list[_Asked] = []
        chosen_by = f"{preset}-{aim}" if preset == AUTO else preset

        def make() -> JobSpec | None:
            known, subject = self._known, self._subject()
            recipe = of or known.recipe
            current = known.variant_of(recipe)
            if not preset and current is not None and is_file(current.path):
                if on_built is not None:
                    on_built()
                return None
            resolve(recipe, subject.model.layers)
            file = known.statistics_file_of(recipe)
            path, digest = (file.path, file.digest) if file is not None else ("", "")
            made.append(_Asked(subject, recipe, name or known.active_plan, digest))
            return job_specs.quantize_job(
                subject.model,
                recipe,
                output=job_specs.variant_path(subject.model, recipe, digest, chosen_by),
                statistics=path,
                data=known.calibration_data,
                preset=preset,
                aim=aim,
            )

        def finished(result: QuantizeResult) -> str:
            asked = made[-1]
            recipe = result.recipe if preset else with_endings(asked.recipe, result, self._known.steps)
            is_edited = self._known.recipe != asked.recipe
            plan = "" if preset and is_edited else asked.plan
            plan = plan_of_preset(self._known, asked.subject, recipe, plan) if preset else plan
            keep_build(self._known, asked.subject, result.build, recipe, plan, asked.statistics)
            if not is_edited and (preset or recipe != asked.recipe):  # else that stays on the screen
                by_preset = f"Choose precisions by preset {chosen_by}"
                self._edits.set_recipe(recipe, by_preset if preset else "End training")
            if on_built is not None:
                on_built()
            return f"{size(result.build.size_bytes)} in {number(result.build.seconds, 1)} s"

        title = f"Quantize ({chosen_by or name})" if chosen_by or name else "Quantize"
        reads, key = partial(from_json, QuantizeResult), f"quantize {chosen_by}{of.digest if of else ''}"

        def on_part(part: Part) -> None:
            self.build_told.emit(made[-1].recipe, part)

        self._add(key, title, make, finished, on_part=on_part, group=group, reads=reads)

    def add_measurement(
        self, group: str = "", *, every: bool = False, variants: Callable[[], Collection[str]] | None = None
    ) -> None:
        """Measure the current variant, those `variants` names when its turn comes, or all, interleaved."""
        asked: dict[str, str] = {}
        rows: list[str] = []

        def is_asked(one: Variant) -> bool:
            return every or (one.is_current if variants is None else one.key in variants())

        def make() -> JobSpec | None:
            known, subject = self._known, self._subject()
            chosen = [v for v in known.variants if not v.is_base and is_asked(v) and is_file(v.path)]
            if not chosen and not measures_alone(known):
                return None
            data = known.measured_on or self._needed_data()
            asked.update({v.path: subject.measurement_key(v.key) for v in chosen})
            asked[""] = subject.measurement_key(subject.model.digest)
            rows.append(known.options.measurement_row)
            return job_specs.compare_job(
                subject.model,
                data,
                [Path(v.path) for v in chosen],
                [known.variants[0].name, *(v.name for v in chosen)],
                options=known.options,
            )

        def finished(found: CompareResult) -> str:
            keep_measurements(self._known.findings, found, asked, rows[-1], are_all=every)
            return measured_text(
                found, where=ON_CALIBRATION if self._known.is_measured_on_calibration else ""
            )

        title = "Measure every variant" if every else "Measure"
        key = "measure every" if every else "measure" if variants is None else "measure found"
        reads = partial(from_json, CompareResult)
        self._add(key, title, make, finished, group=group, reads=reads, lane=Lane.TIMING)

    # Inside.

    def _know_steps(self, group: str) -> None:
        """What is found behind the steps of the plan hangs on which of them look at precisions."""
        if any(step.is_on for step in self._known.recipe.steps):
            self.describe_steps(group)

    def _calibrate_if_needed(self, group: str) -> None:
        if self._known.calibration_data is not None:
            self.add_calibration(group)

    def _add(
        self,
        key: str,
        title: str,
        make: Callable[[], JobSpec | None],
        on_success: Callable[[Any], str],
        *,
        on_part: Callable[[Part], None] | None = None,
        group: str = "",
        reads: Callable[[Any], Any] | None = None,
        lane: Lane = Lane.WORK,
    ) -> str:
        return self._jobs.add(Work(key, title, make, on_success, on_part, group, reads=reads, lane=lane))

    def _subject(self) -> Subject:
        if self._known.subject is None:
            raise DataError("no model is open", hint=Hint("Open a model first", HintAction.OPEN_MODEL))
        return self._known.subject

    def _needed_data(self) -> DataSpec:
        self._subject()
        data = self._known.calibration_data
        if data is None:
            raise CalibrationError("there is no data yet", hint=Hint("Choose data", HintAction.CHOOSE_DATA))
        return data


def new_group() -> str:
    """A name for work that belongs together."""
    return uuid.uuid4().hex
