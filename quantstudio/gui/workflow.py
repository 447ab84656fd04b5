"""What the buttons set off: engine jobs in the right order, their results handed to the session."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantstudio.core.codec import from_json
from quantstudio.core.costs import CostTable
from quantstudio.core.data_spec import ON_CALIBRATION, DataSpec
from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import CalibrationError, DataError
from quantstudio.core.events import LayerFinished
from quantstudio.core.figures import counted, number, percent, significant, size
from quantstudio.core.layers import ModelSummary
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import BuildResult, CompareResult, LayerSensitivity, SensitivityResult
from quantstudio.jobs.queue import Work
from quantstudio.jobs.spec import JobSpec
from quantstudio.project.values import Written, written
from quantstudio.workspace.names import variant_name
from quantstudio.workspace.runs import job_specs
from quantstudio.workspace.runs.streamed import weights_from_event
from quantstudio.workspace.state import BuiltVariant
from quantstudio.workspace.values import Variant

if TYPE_CHECKING:
    from quantstudio.gui.session import Session

SENSITIVITY_SAMPLES = 512


class Workflow:
    """Queues jobs for a session. A step finds out when its turn comes whether there is anything to do."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.options = job_specs.EngineOptions()

    # Opening.

    def open_model(
        self,
        path: str,
        *,
        trust: bool,
        factory: str,
        state: str,
        on_opened: Callable[[], None],
    ) -> None:
        """Open a model; what is known of the one before is replaced when it succeeds."""

        def opened(model: ModelSummary) -> str:
            self._session.adopt_model(model, trusted=trust, factory=factory, state_path=state)
            on_opened()
            return f"{counted(len(model.layers), 'layer')}, {size(model.file_bytes)}"

        self._session.job_queue.abandon()
        self._add(
            "open",
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

        model = self._model()
        return self._add(
            f"data {spec}",
            f"Check {Path(spec.path).name}",
            lambda: job_specs.data_summary_job(model, spec),
            checked,
        )

    def devices(self, on_found: Callable[[Mapping[str, Any]], None]) -> None:
        """Ask the worker what is installed to compute on."""

        def found(result: Mapping[str, Any]) -> str:
            on_found(result)
            return ", ".join([*result["providers"], *result["torch_devices"]])

        self._add("devices", "List devices", job_specs.devices_job, found)

    # Analysis.

    def weights(self, group: str = "") -> None:
        """Weight statistics, unless every layer has them."""

        def make() -> JobSpec | None:
            model = self._model()
            owners = {layer.name for layer in model.layers if layer.weight_name}
            is_known = owners <= set(self._session.weights) or _is_file(self._session.state.weights_path)
            return None if is_known else job_specs.weights_job(model)

        def finished(result: Mapping[str, Any]) -> str:
            self._session.adopt_weights_file(str(result["path"]))
            return counted(result.get("layers", 0), "layer")

        self._add("weights", "Weight statistics", make, finished, on_layer=self._on_weights, group=group)

    def calibrate(self, group: str = "", *, again: bool = False) -> None:
        """Activation statistics, unless they are there for this data (or `again`)."""
        asked: list[int] = []

        def make() -> JobSpec | None:
            state = self._session.state
            data = self._needed_data()
            wanted = self._session.recipe.calibration.samples
            if _is_file(state.statistics_path) and state.statistics_asked == wanted and not again:
                return None
            asked.append(wanted)  # the recipe may ask for others by the time it is done
            return job_specs.calibrate_job(self._model(), data, wanted)

        def finished(result: Mapping[str, Any]) -> str:
            self._session.adopt_calibration(str(result["path"]), str(result["digest"]), asked[-1])
            return f"{result['tensors']} tensors over {result['samples']} samples"

        self._add("calibrate", "Calibrate", make, finished, group=group)

    def sensitivity(
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

        def make() -> JobSpec | None:
            state = self._session.state
            run = state.sensitivity_run
            known = set(run.precisions) if run is not None and run.method != "exact" else set()
            missing = [name for name in precisions if exact or again or name not in known]
            if not exact and not again and state.curve is not None and not missing:
                return None
            return job_specs.sensitivity_job(
                self._model(),
                self._needed_data(),
                method=method,
                samples=SENSITIVITY_SAMPLES,
                statistics=state.statistics_path,
                layers=exact,
                all_but=all_but,
                accumulated=accumulated,
                precisions=missing,
                # An estimate runs in torch, a measurement in ONNX Runtime.
                device=self.options.provider if exact else self.options.device,
            )

        def finished(found: SensitivityResult) -> str:
            self._session.adopt_sensitivity_run(found)
            return f"{counted(len(found.layers), 'layer')} over {found.samples} samples, {found.method}"

        more = f" at {', '.join(precisions)}" if precisions else ""
        title = f"Exact sensitivity of {_few(exact)}{more}" if exact else f"Sensitivity{more}"
        what = " ".join((*exact, *precisions, *("all but",) * all_but, *("accumulated",) * accumulated))
        self._add(
            f"sensitivity {method} {what}",
            title,
            make,
            finished,
            on_layer=self._on_sensitivity,
            group=group,
            reads=partial(from_json, SensitivityResult),
        )

    def costs(self, group: str = "") -> None:
        """Bytes and times for the predictions, once for a model."""

        def make() -> JobSpec | None:
            state = self._session.state
            if state.costs is not None:
                return None
            return job_specs.costs_job(self._model(), state.calibration_data, state.statistics_path)

        def finished(found: tuple[CostTable, Written]) -> str:
            costs, text = found
            self._session.adopt_costs(costs, text)
            return f"FP32 takes {number(costs.fp32_ms, 2)} ms" if costs.fp32_ms else "sizes of every scheme"

        self._add("costs", "Cost tables", make, finished, group=group, reads=_costs_with_text)

    # Building and measuring.

    def quantize(
        self, group: str = "", *, preset: str = "", on_built: Callable[[], None] | None = None
    ) -> None:
        """Build the recipe as it is when the turn comes, or a preset, which then becomes the recipe."""
        made: dict[str, Any] = {}

        def make() -> JobSpec | None:
            session = self._session
            recipe, plan = session.recipe, session.active_plan
            current = session.current_variant
            if not preset and current is not None and _is_file(current.path):
                if on_built is not None:
                    on_built()
                return None
            resolve(recipe, session.layers)
            state = session.state
            digest = state.statistics_digest
            made.update(recipe=recipe, plan=plan, digest=digest)
            return job_specs.quantize_job(
                self._model(),
                recipe,
                output=job_specs.variant_path(self._model(), recipe, digest, preset),
                statistics=state.statistics_path,
                data=state.calibration_data,
                preset=preset,
            )

        def finished(result: Mapping[str, Any]) -> str:
            build = from_json(BuildResult, result["build"])
            recipe = from_json(Recipe, result["recipe"]) if preset else made["recipe"]
            is_edited = self._session.recipe != made["recipe"]
            if preset and not is_edited:  # whoever went on editing meanwhile keeps the plan on the screen
                self._session.set_recipe(recipe, f"Choose precisions by preset {preset}")
            self._session.adopt_build(self.named(build, recipe, made["plan"], made["digest"]))
            if on_built is not None:
                on_built()
            return f"{size(build.size_bytes)} in {number(build.seconds, 1)} s"

        title = f"Quantize ({preset})" if preset else "Quantize"
        self._add(f"quantize {preset}", title, make, finished, group=group)

    def measure(
        self, group: str = "", *, every: bool = False, variant: Callable[[], str] | None = None
    ) -> None:
        """Measure the current variant, the one `variant` names when its turn comes, or all, interleaved."""
        asked: list[DataSpec] = []

        def is_asked(one: Variant) -> bool:
            return one.is_current if variant is None else one.variant_hash == variant()

        def make() -> JobSpec | None:
            chosen = [
                v
                for v in self._session.variants
                if not v.is_base and (every or is_asked(v)) and _is_file(v.path)
            ]
            if not chosen:
                return None
            data = self._session.measured_on or self._needed_data()
            asked.append(data)
            return job_specs.compare_job(
                self._model(),
                data,
                [Path(v.path) for v in chosen],
                ["FP32", *(v.name for v in chosen)],
                options=self.options,
            )

        def finished(found: CompareResult) -> str:
            if asked != [self._session.measured_on]:
                return "not kept: other data was chosen meanwhile"
            base, *variants = found.variants
            self._session.adopt_comparison(base, {v.path: v for v in variants})
            return _measured(found, where=ON_CALIBRATION if self._session.is_measured_on_calibration else "")

        title = "Measure every variant" if every else "Measure"
        key = "measure every" if every else "measure" if variant is None else "measure found"
        self._add(key, title, make, finished, group=group, reads=partial(from_json, CompareResult))

    def resume(self) -> None:
        """Open the source again if the normalised graph is gone from the cache, then the cheap statistics."""
        state = self._session.state
        model = state.model
        if model is None:
            return
        if not Path(model.graph_path).is_file():
            self._session.documents.reopen()
        else:
            self.weights()

    def run_all(self) -> None:
        """Everything from weights to measurement, what is already known left out."""
        group = new_group()
        self.weights(group)
        self.calibrate(group)
        self.quantize(group)
        self.sensitivity(group)
        self.measure(group)
        self.costs(group)

    def named(self, build: BuildResult, recipe: Recipe, plan: str, digest: str) -> BuiltVariant:
        """A build under a name of its own, or under that of the same build before."""
        state = self._session.state
        same = next((one for one in state.built if one.build.variant == build.variant), None)
        if same is not None:
            return replace(same, build=build)
        name = variant_name(recipe, self._session.layers, {one.name for one in state.built})
        return BuiltVariant(name, plan, recipe, digest, build)

    # Inside.

    def _add(
        self,
        key: str,
        title: str,
        make: Callable[[], JobSpec | None],
        on_success: Callable[[Any], str],
        *,
        on_layer: Callable[[LayerFinished], None] | None = None,
        group: str = "",
        reads: Callable[[Any], Any] | None = None,
    ) -> str:
        work = Work(key, title, make, on_success, on_layer, group, reads=reads)
        return self._session.job_queue.add(work)

    def _model(self) -> ModelSummary:
        if self._session.model is None:
            raise DataError("no model is open", hint="Open a model first")
        return self._session.model

    def _needed_data(self) -> DataSpec:
        data = self._session.calibration_data
        if data is None:
            raise CalibrationError("there is no data yet", hint="Choose data with Model, Data")
        return data

    def _on_weights(self, event: LayerFinished) -> None:
        row = weights_from_event(event)
        if row is not None:
            self._session.adopt_weights([row])

    def _on_sensitivity(self, event: LayerFinished) -> None:
        self._session.adopt_sensitivity([from_json(LayerSensitivity, event.values)])


def new_group() -> str:
    """A name for work that belongs together."""
    return uuid.uuid4().hex


def _costs_with_text(values: object) -> tuple[CostTable, Written]:
    """A cost table, with the text its project keeps: thousands of tensors are too long for a turn."""
    return from_json(CostTable, values), written(values)


def _is_file(path: str) -> bool:
    """Whether a file of the cache is still there; the cache may be emptied at any time."""
    return bool(path) and Path(path).is_file()


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return listed[0] if len(listed) == 1 else f"{len(listed)} layers"


def _measured(found: CompareResult, *, where: str) -> str:
    last = found.variants[-1]
    parts = []
    if "top1" in last.metrics:
        parts.append(f"top-1 {percent(last.metrics['top1'])}")
    elif "rmse" in last.metrics:
        parts.append(f"RMS error {significant(last.metrics['rmse'], 4)}")
    if last.speedup is not None:
        parts.append(f"{number(last.speedup.value, 2)}× the speed of FP32")
    parts.append(f"{found.samples} samples {where}".rstrip())
    return ", ".join(parts)
