"""The application without a screen: what is known, and all one can do; also for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from quantstudio.core.aim import DEFAULT_AIM, Aim, aim_named
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.errors import DataError, MeasureError, ModelLoadError, QuantStudioError, RecipeError
from quantstudio.core.findings import StatisticsFile
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.judgement import INFERRED, Judging
from quantstudio.core.precision import LayerScheme
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.results import CompareResult, SensitivityResult
from quantstudio.core.samples import DEFAULT_SAMPLE, sample
from quantstudio.core.schemes import as_scheme
from quantstudio.core.search_results import (
    ActivationFamily,
    Recover,
    SearchBudget,
    SearchResult,
    family_named,
    recover_named,
)
from quantstudio.core.steps import SettingValue, StepInfo
from quantstudio.core.variants import Variant
from quantstudio.jobs.backends.backend import BackendFactory
from quantstudio.jobs.backends.process import ProcessBackend
from quantstudio.jobs.pump import Pump
from quantstudio.jobs.queue import CallSoon, JobQueue
from quantstudio.jobs.rows import JobRow, NoticeLevel
from quantstudio.project.store import Project
from quantstudio.workspace.doctor import Doctor
from quantstudio.workspace.documents import Documents
from quantstudio.workspace.edits import Edits
from quantstudio.workspace.given import bytes_of, given_data, opened_project, there
from quantstudio.workspace.known import Known
from quantstudio.workspace.levels import Levels
from quantstudio.workspace.opening import Opening, let_go
from quantstudio.workspace.output_judge import OutputJudge
from quantstudio.workspace.runs.improvement import Improvement
from quantstudio.workspace.runs.runs import Runs
from quantstudio.workspace.runs.searches import Searches
from quantstudio.workspace.search_terms import SearchTerms
from quantstudio.workspace.sessions import Sessions
from quantstudio.workspace.summaries import Summaries
from quantstudio.workspace.turns import Turns

if TYPE_CHECKING:
    from quantstudio.core.predict.table import Prediction


class Workspace(Known):
    """A model that is open, with what is known of it and what can be done to it.

    In a script every method waits for its work, shows how far it is, and gives back what was found::

        import quantstudio as qs

        with qs.Workspace("net.onnx", data="train.npz", transform="scale=1/255 layout=NCHW") as ws:
            ws.quantize("static-int8")
            print(ws.measure().to_frame())
            ws.export("net.int8.onnx")

    What was computed is kept in the project and never computed twice. The window works with the same object
    without waiting: `runs` returns at once, and signals tell.

    Attributes:
        jobs: The queue of engine work.
        opening: Puts a project, a model or data in the place of what is open.
        edits: Changes of recipe and plans, each one undo step.
        runs: Engine work that is not waited for.
        improvement: What each step of the recipe wins, and which others would.
        levels: Values the weights of a channel take.
        searches: Searches for mixed precision.
        output_judge: Finds out what the outputs mean.
        documents: Files that are opened and written.
        sessions: Others than the one that is open.
        summaries: What lists of sessions show of what is open.
        doctor: Finds out how data becomes what the model wants.

    Args:
        model: An .onnx, .pt2, TorchScript or .safetensors file to open; None for what the project holds.
        data: Calibration data: an npz file, a folder of images, `module:callable`, or a `DataSpec`.
        transform: What is done to each sample: "scale=1/255 mean=0.286 std=0.353 layout=NCHW".
        test: Data that accuracy is measured on; the calibration data without it.
        samples: Use only the first so many samples of the data; 0 for all.
        trust: Agree to run files that are programs (.pt2, TorchScript, `module:callable`).
        factory: `module:callable` that makes the network a .safetensors or state_dict file belongs to.
        batch_axes: Axis of the samples by input or output, where the model's symbols do not say.
        judging: What the outputs are; what is left empty is inferred.
        project: Where everything is kept: a .qstudio file, made if it is not there. None keeps it in an
            unsaved project.
        progress: Whether to show how far work is, on a terminal or in a notebook.
        backend: What runs the jobs; worker processes by default. `jobs.backends.inline.InlineBackend` runs
            them in the calling thread, where a debugger sees them.
        call_soon: Takes functions on any thread and runs them on the owner's. An owner with a loop of its own
            gives it, and then nothing here waits.

    Raises:
        QuantStudioError: of the class that says what is wrong (`core.errors`): `ModelLoadError`, `DataError`,
            `TrustRequiredError`, `ProjectError`, ...
    """

    def __init__(
        self,
        model: str | Path | None = None,
        data: str | Path | DataSpec | None = None,
        *,
        transform: str = "",
        test: str | Path | DataSpec | None = None,
        samples: int = 0,
        trust: bool = False,
        factory: str = "",
        batch_axes: Mapping[str, int] | None = None,
        judging: Judging = INFERRED,
        project: str | Path | Project | None = None,
        progress: bool = True,
        backend: BackendFactory = ProcessBackend,
        call_soon: CallSoon | None = None,
    ) -> None:
        pump = Pump()
        self._is_closed = False
        self._turns = Turns(pump, progress=progress) if call_soon is None else None
        super().__init__(opened_project(project), call_soon or pump.call_soon)
        self.jobs = JobQueue(backend, call_soon or pump.call_soon)
        self.opening = Opening(self)
        self.edits = Edits(self)
        self.runs = Runs(self, self.opening, self.edits, self.jobs)
        self.improvement = Improvement(self, self.edits, self.runs, self.jobs)
        self.levels = Levels(self, self.jobs)
        self.searches = Searches(self, self.edits, self.runs, self.jobs)
        self.output_judge = OutputJudge(self, self.jobs)
        self.documents = Documents(self, self.opening, self.edits, self.runs, self.jobs)
        self.sessions = Sessions(self)
        self.summaries = Summaries(self)
        self.opening.leaving.connect(self.summaries.keep)
        self.doctor = Doctor(self, self.jobs)
        self.opening.leaving.connect(self.jobs.abandon)
        self.jobs.idle.connect(self.summaries.keep)
        self.opening.logged.connect(self.jobs.logged.emit)
        self.jobs.failed.connect(self._on_job_failed)
        try:
            self._begin(model, trust=trust, factory=factory)
            if data is not None or test is not None:
                self.use_data(
                    data,
                    test,
                    transform=transform,
                    samples=samples,
                    trust=trust,
                    batch_axes=batch_axes,
                    judging=judging,
                )
        except BaseException:
            self.close()
            raise

    @classmethod
    def sample(cls, name: str = DEFAULT_SAMPLE, *, progress: bool = True) -> Self:
        """A bundled sample with its data: "digits_resnet", "digits_mobilenet" or "digits_transformer".

        Raises:
            DataError: there is no sample of that name.
        """
        chosen = sample(name)
        return cls(
            chosen.model, chosen.train, transform=chosen.transform, test=chosen.test, progress=progress
        )

    # Data and the plan.

    def use_data(
        self,
        data: str | Path | DataSpec | None,
        test: str | Path | DataSpec | None = None,
        *,
        transform: str = "",
        samples: int = 0,
        trust: bool = False,
        batch_axes: Mapping[str, int] | None = None,
        judging: Judging = INFERRED,
    ) -> None:
        """Use other data. What was found with data that was used before is known again at once.

        Args:
            data: Calibration data.
            test: Data that accuracy is measured on; the calibration data without it.
            transform: What is done to each sample of both.
            samples: Use only the first so many samples of both; 0 for all.
            trust: Agree to run `module:callable`.
            batch_axes: Axis of the samples by input or output, where the model's symbols do not say.
            judging: What the outputs are; what is left empty is inferred.

        Raises:
            DataError: it cannot be read or does not fit the model; the data before stays.
        """
        if self.model is None:
            raise DataError(
                "data needs a model that it fits", hint=Hint("Open a model first", HintAction.OPEN_MODEL)
            )
        axes = tuple((batch_axes or {}).items())
        calibration, judged = (
            given_data(one, DataSpec("", parse_transform(transform), samples, trust, axes, judging))
            for one in (data, test)
        )
        for spec in (calibration, judged):
            if spec is not None:
                self._finish(partial(self.runs.check_data, spec, lambda _found: None))
        self._finish(lambda: self.opening.set_data(calibration, judged))

    def set(self, pattern: str, precision: str | LayerScheme, *, op_type: str = "") -> None:
        """Put the layers that match in a precision, as one edit that `undo` takes back.

        Args:
            pattern: A layer's name, or a pattern with * and ?.
            precision: One of `core.schemes.NAMED_SCHEMES` ("fp32", "static-int8", "weight-int4", ...) or a
                scheme.
            op_type: Only layers of this operator ("Conv", "MatMul", ...).

        Raises:
            RecipeError: no layer matches, the precision is unknown, or a layer named one by one cannot have
                it.
        """
        scheme = as_scheme(precision)
        rule = LayerRule(scheme, (pattern,), (op_type,) if op_type else ()).by_node(self.layers)
        if not any(rule.matches(layer) for layer in self.layers):
            raise RecipeError(f"no layer matches {pattern!r}", hint="See `layers` for their names")
        if rule.is_exact:
            self._finish(lambda: self.edits.set_scheme(rule.names, scheme))
        else:
            self._finish(lambda: self.edits.add_rule(rule))

    def add_step(self, name: str, **settings: SettingValue) -> None:
        """Append a step that changes the network before it is quantized, as one edit that `undo` takes back.

        What it did is in `Variant.build.steps` after `quantize`; `edits` sets, moves and removes steps.

        Args:
            name: A step ("equalize", "bias", ...); see `list_steps` for all and what they do.
            settings: What differs from the defaults of the step.

        Raises:
            RecipeError: there is no such step, or a setting is unknown or does not fit.
        """
        self.list_steps()
        self._finish(lambda: self.edits.add_step(name, **settings))

    def list_steps(self) -> tuple[StepInfo, ...]:
        """Every step a recipe may hold: what it does, its settings with ranges and units, what it needs."""
        if not self.steps:
            self._finish(self.runs.describe_steps)
        return self.steps

    def undo(self) -> None:
        """Take back the last edit; everything that was known before it is known again."""
        self._finish(self.edits.undo)

    def redo(self) -> None:
        """Bring back the edit taken back last."""
        self._finish(self.edits.redo)

    # Work that is waited for.

    def calibrate(self) -> StatisticsFile:
        """Activation statistics over the calibration data.

        Raises:
            CalibrationError: there is no data.
        """
        self._finish(self.runs.add_calibration)
        return there(self.statistics_file)

    def sensitivity(
        self,
        precisions: Sequence[str] = (),
        *,
        exact: Sequence[str] = (),
        all_but: bool = False,
        accumulated: bool = False,
    ) -> SensitivityResult:
        """How much the output suffers (KL divergence, nats) when one layer alone is quantized.

        Layers are those of the network behind the steps of the plan that come before its precisions.

        Args:
            precisions: Precisions to estimate, besides the usual ones.
            exact: Layers to measure one by one, instead of an estimate of all.
            all_but: Of measured layers, also with all the others quantized.
            accumulated: Of measured layers, also the error of their output with all before them quantized.

        Raises:
            CalibrationError: there is no data.
        """

        def start() -> None:
            self.runs.add_calibration()
            self.runs.add_sensitivity(
                precisions=precisions, exact=exact, all_but=all_but, accumulated=accumulated
            )

        self._finish(start)
        from quantstudio.workspace.report_data import known_sensitivity

        return there(known_sensitivity(self))

    def quantize(self, recipe: str | Path | Recipe | None = None, *, aim: str | Aim = DEFAULT_AIM) -> Variant:
        """Build the plan as it is, or another recipe, which then becomes the plan's as one undo step.

        Args:
            recipe: A preset ("static-int8", "dynamic-int8", "weight-int4", "float16", "auto", ...), a recipe
                or its .json file, or None for the plan as it is.
            aim: What the preset "auto" looks for: "fast", "small" or "accurate".

        Raises:
            RecipeError: the aim or the preset is unknown, or a layer cannot have what is asked.
            DataError: it needs calibration data and there is none.
        """
        wanted = aim_named(aim)
        if isinstance(recipe, str) and not recipe.endswith(".json"):
            self._finish(lambda: self.runs.quantize_preset(recipe, wanted))
        else:
            if isinstance(recipe, Recipe):
                self._finish(lambda: self.edits.set_recipe(recipe, "Set a recipe"))
            elif recipe is not None:
                self._finish(lambda: self.documents.import_recipe(str(recipe)))
            self._finish(self.runs.quantize)
        return there(self.current_variant)

    def search(
        self,
        *,
        max_drop: float | None = None,
        max_class_drop: float | None = None,
        max_size_mb: float | None = None,
        max_latency_ratio: float | None = None,
        average_bits: float | None = None,
        max_share_above_8: float | None = None,
        family: str | ActivationFamily = ActivationFamily.AUTO,
        pins: Sequence[LayerRule] = (),
        judged_on_test: bool = True,
        recover: str | Recover = Recover.AUTO,
    ) -> SearchResult:
        """The best mixed-precision plan within bounds; it becomes a plan of its own, built and measured.

        Where accuracy is the only bound it is the one with the smallest file, of equally small ones the
        fastest; `notes` of the result say so where nothing wins over INT8 everywhere.

        Every plan it tries is built with the steps of the plan now.

        Args:
            max_drop: Points of accuracy it may lose.
            max_class_drop: Points any one class may lose, beyond chance; twice `max_drop` by default, 100 for
                no bound.
            max_size_mb: Megabytes the file may take.
            max_latency_ratio: Part of the FP32 time it may take.
            average_bits: Mean bits per weight.
            max_share_above_8: Part of the layers, 0 to 1, that may stay float; by default only if needed.
            family: Activations in the plans: "auto", "static", "dynamic", "weight-only", ...
            pins: Rules that fix the layers they match.
            judged_on_test: Whether the test data has the last word on the accuracy.
            recover: What wins back what few bits lose before a plan is measured: "auto", "gptq" or "none".

        Raises:
            RecipeError: no plan keeps the bounds, or one of them makes no sense.
            CalibrationError: there is no data.
        """
        budget = SearchBudget(
            max_drop=max_drop,
            max_size_bytes=bytes_of(max_size_mb),
            max_latency_ratio=max_latency_ratio,
            average_bits=average_bits,
            max_share_above_8=max_share_above_8,
            max_class_drop=max_class_drop,
        )
        terms = SearchTerms(budget, family_named(family), tuple(pins), judged_on_test, recover_named(recover))
        self._finish(lambda: self.searches.start(terms))
        return there(self.search_result)

    def measure(self, *, every: bool = False) -> CompareResult:
        """Accuracy, latency, size and memory of the plan, beside FP32, built first where needed.

        Args:
            every: Measure every variant built so far, interleaved.

        Raises:
            CalibrationError: there is no data.
        """
        from quantstudio.workspace.report_data import comparison

        self._finish(self.runs.measure_every if every else self.runs.measure)
        found = comparison([v for v in self.variants if v.is_base or v.is_current or every])
        if found is None:
            raise MeasureError("nothing was measured", hint=Hint("Quantize first", HintAction.QUANTIZE))
        return found

    def predict(self, recipe: Recipe | None = None) -> Prediction:
        """What the plan, or another recipe, will cost; nothing is built.

        `Prediction.left_out` names the steps of which it cannot know what they win or cost.

        The tables it needs (sensitivity, costs) are made the first time.

        Raises:
            ModelLoadError: no model is open.
        """

        def start() -> None:
            if self.calibration_data is not None:
                self.runs.add_calibration()
                self.runs.add_sensitivity()
            self.runs.add_costs()

        if self.model is not None:
            self._finish(start)
        found = self.prediction if recipe is None else self.predicted(recipe)
        if found is None:
            raise ModelLoadError("no model is open", hint="Give one to Workspace")
        return found

    def report(self, path: str | Path) -> Path:
        """Write everything known now as one self-contained HTML file.

        Raises:
            QuantStudioError: it cannot be written.
        """
        self._finish(lambda: self.documents.write_report(str(path)))
        return Path(path)

    def export(self, path: str | Path, *, with_recipe: bool = True) -> Path:
        """Write the plan's ONNX file, built first where needed, and beside it its recipe.

        Raises:
            QuantStudioError: it cannot be built or written; an old file stays whole.
        """
        self._finish(lambda: self.documents.export(str(path), with_recipe=with_recipe))
        return Path(path)

    def save(self, path: str | Path) -> Path:
        """Copy the project into a .qstudio file and go on there.

        Raises:
            QuantStudioError: it cannot be written.
        """
        self._finish(lambda: self.documents.save_as(str(path)))
        return self.project.path

    # The end.

    def close(self) -> None:
        """End the work and let go of the project; nothing is lost, and later calls are refused."""
        if self._is_closed:
            return
        self._is_closed = True
        self.summaries.keep()
        self.findings.flush()
        self.jobs.close()
        self.background.close()
        # One in which a model is open is taken up again at the next start, touched or not.
        if self.model is None:
            let_go(self.project)
        else:
            self.project.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Inside.

    def _begin(self, model: str | Path | None, *, trust: bool, factory: str) -> None:
        if model is not None:
            self._finish(lambda: self.documents.open_model(str(model), trust=trust, factory=factory))
            there(self.model)
        elif self._turns is not None and self.model is not None:
            self._finish(self.documents.resume)

    def _finish(self, start: Callable[[], object]) -> None:
        if self._turns is None:
            raise RuntimeError(
                "whoever has a loop of its own does not wait: use `runs` and listen to signals"
            )
        if self._is_closed:
            # Nobody is left who would do the work: waiting for it would never end.
            raise QuantStudioError("the workspace is closed", hint="Make another, or work inside its `with`")
        self._turns.finish(self, self.jobs, start)

    def _on_job_failed(self, row: JobRow) -> None:
        self.notify(NoticeLevel.ERROR, f"{row.title} failed: {row.outcome}", row.hint)
