"""Recipes by one word, and `auto`, which builds several and takes what its aim asks for."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from quantstudio.core import figures
from quantstudio.core.aim import DEFAULT_AIM, Aim
from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import BuildError, CalibrationError, DataError, MeasureError, ModelLoadError
from quantstudio.core.events import (
    NULL_REPORTER,
    CancelToken,
    NullReporter,
    Reporter,
    Severity,
    never_cancelled,
)
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.preset_recipes import preset_recipe
from quantstudio.core.recipe import CalibrationSettings, Recipe
from quantstudio.core.results import BuildResult, Interval
from quantstudio.core.schemes import AUTO, preset_scheme
from quantstudio.core.statistics import Statistics
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.evaluation.compare import compare
from quantstudio.engine.evaluation.latency import LatencyBudget
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.runner import StepInputs, completed, observed_after, prepare
from quantstudio.engine.quantization.build import build_variant
from quantstudio.engine.search.candidates import Candidate, auto_candidates, small_weights
from quantstudio.engine.search.judged import Judged, choose, floor_text, is_not_slower, loss_text
from quantstudio.engine.search.sample_range import SampleRange
from quantstudio.engine.search.speed import slowness, speed_against

# Samples `auto` judges accuracy on: KL of the outputs is known to a few percent with this many.
JUDGED_SAMPLES = 512
TIMING = LatencyBudget(seconds=3.0, min_rounds=25, max_rounds=200)
# A speed-up below this is not called one.
FASTER = 1.05


def build_preset(
    graph: Graph,
    dataset: Dataset | None,
    statistics: Statistics | None,
    preset: str,
    output: Path,
    *,
    kept: Recipe | None = None,
    aim: Aim = DEFAULT_AIM,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> tuple[Recipe, BuildResult]:
    """Build the variant a preset stands for.

    A scheme is given to every layer that can have it, and the next best form to the others. `auto` measures
    static INT8 everywhere, static INT8 around weighted layers only, dynamic INT8 and a mix of both, refuses
    what loses more than the floor of the task or is slower than FP32, and takes of the rest what `aim` asks
    for; the file it writes is timed against FP32 once more. Where nothing is left it stores the weights as
    INT8, if that holds the floor and is no slower either, and else keeps FP32; it says so.

    Args:
        graph: Normalised model.
        dataset: Samples to calibrate with and, for `auto`, to judge by.
        statistics: Activation statistics of the graph; None calibrates where they are needed.
        preset: The name of a scheme, for every layer that can have it, or "auto".
        output: Where the ONNX file goes.
        kept: Recipe of which steps, seed, range settings and target are taken over, whatever its precisions.
        aim: What `auto` looks for.
        reporter: Told of every stage.
        cancel: Looked at before every stage and batch.

    Returns:
        The recipe, and what was built.

    Raises:
        RecipeError: there is no such preset.
        DataError: the preset needs data and there is none.
    """
    own = completed((kept or Recipe()).bare)
    token = cancel or never_cancelled()
    if preset == AUTO:
        if dataset is None:
            raise DataError(
                "preset auto measures candidates and needs data",
                hint=Hint("Choose data", HintAction.CHOOSE_DATA),
            )
        builder = _Builder(graph, dataset, statistics)
        return _Auto(builder, dataset, output, own, aim, reporter, token).built()
    recipe = preset_recipe(preset_scheme(preset), graph.layers, own)
    if statistics is None and not _has_steps(own) and resolve(recipe, graph.layers).is_static:
        statistics = _calibrated(graph, dataset, own.calibration, reporter, token)
    builder = _Builder(graph, dataset, statistics)
    built = builder.build(recipe, output, reporter, token, measures_load=True)
    return recipe, _with_speed(graph, built, recipe, dataset, reporter, token)


def _with_speed(
    graph: Graph,
    built: BuildResult,
    recipe: Recipe,
    dataset: Dataset | None,
    reporter: Reporter,
    cancel: CancelToken,
) -> BuildResult:
    """The build, with a warning where it is slower than FP32: nobody quantizes for that."""
    if dataset is None or all(rule.scheme.is_float for rule in recipe.rules):
        return built
    reporter.progress(0, 1, "runs", "Timing against FP32")
    try:
        said = slowness(graph, built, dataset, cancel)
    except MeasureError as error:
        said = f"The file was not timed against FP32: {error.one_line}"
    if not said:
        return built
    reporter.message(said, Severity.WARNING)
    return replace(built, warnings=(*built.warnings, said))


@dataclass(frozen=True, slots=True)
class _Builder:
    """Builds recipes for one network, steps included.

    Attributes:
        graph: The network as it was opened.
        dataset: Samples; None where neither steps nor statistics need any.
        statistics: Activation statistics of the graph.
    """

    graph: Graph
    dataset: Dataset | None
    statistics: Statistics | None

    def build(
        self,
        recipe: Recipe,
        path: Path,
        reporter: Reporter,
        cancel: CancelToken,
        *,
        measures_load: bool = False,
    ) -> BuildResult:
        """As `quantize` builds it."""
        given = StepInputs(self.dataset, self.statistics)
        made = prepare(self.graph, recipe, given, reporter=reporter, cancel=cancel)
        statistics = self.statistics
        if made.steps and made.plan.is_static:
            statistics = observed_after(made, given, reporter=reporter, cancel=cancel)
        built = build_variant(
            made.graph,
            statistics,
            made.plan,
            path,
            measures_load=measures_load,
            reporter=reporter,
            cancel=cancel,
        )
        return replace(built, steps=made.steps)


def _has_steps(recipe: Recipe) -> bool:
    """Whether statistics of the graph as it was opened are not those that count."""
    return any(step.is_on for step in recipe.steps)


@dataclass(slots=True)
class _Auto:
    """One run of `auto`.

    Attributes:
        builder: Builds the candidates.
        dataset: What they are judged on.
        output: Where the chosen one goes.
        kept: Recipe of which everything but the precisions is kept.
        aim: What is looked for.
        reporter: Told of every stage.
        token: Looked at before every stage.
        judged: Candidates that were measured.
        slower: Names of those that turned out slower than FP32 once they were built to be shipped.
    """

    builder: _Builder
    dataset: Dataset
    output: Path
    kept: Recipe
    aim: Aim
    reporter: Reporter
    token: CancelToken
    judged: list[Judged] = field(default_factory=list)
    slower: dict[str, Interval] = field(default_factory=dict)

    def built(self) -> tuple[Recipe, BuildResult]:
        """The recipe, and what was built and timed of it."""
        graph = self.builder.graph
        self._calibrate()
        self.judged += self._tried(auto_candidates(graph, self.kept, self.aim))
        found = self._shipped()
        last = small_weights(graph, self.kept)
        if found is None and all(one.candidate.name != last.name for one in self.judged):
            # Weights alone are smaller, but the runtime may unpack them on every run: that is measured, too.
            self.judged += self._tried((last,), is_last=True)
            found = self._shipped()
        if found is not None:
            chosen, built, speedup = found
            return chosen.candidate.recipe, replace(built, preset=self._chosen_text(chosen, built, speedup))
        built = self.builder.build(self.kept, self.output, self.reporter, self.token)
        return self.kept, replace(built, preset=self._kept_text())

    def _calibrate(self) -> None:
        graph, kept = self.builder.graph, self.kept
        is_static = any("static-int8" in layer.schemes for layer in graph.layers)
        if self.builder.statistics is not None or not is_static or _has_steps(kept):
            return
        try:
            observed = _calibrated(graph, self.dataset, kept.calibration, self.reporter, self.token)
        except CalibrationError as error:
            self.reporter.message(f"{error.one_line} Static precisions are left out", Severity.WARNING)
            return
        self.builder = replace(self.builder, statistics=observed)

    def _tried(self, candidates: Sequence[Candidate], *, is_last: bool = False) -> list[Judged]:
        """Each candidate built and measured; one that cannot be built is left out, unless it `is_last`."""
        with tempfile.TemporaryDirectory(prefix="quantstudio-auto-") as folder:
            built: dict[Path, Candidate] = {}
            for index, candidate in enumerate(candidates):
                self.token.raise_if_set()
                self.reporter.progress(index, len(candidates), "candidates", f"Trying {candidate.name}")
                path = Path(folder) / f"candidate{index}.onnx"
                try:
                    self.builder.build(candidate.recipe, path, NULL_REPORTER, self.token)
                except (BuildError, CalibrationError, ModelLoadError) as error:
                    if is_last:
                        raise
                    # One candidate that cannot be built is not a reason to do without the others.
                    self.reporter.message(f"{candidate.name}: {error.one_line}", Severity.WARNING)
                    continue
                built[path] = candidate
            return _judged(self.builder, built, self.reporter, self.token)

    def _shipped(self) -> tuple[Judged, BuildResult, Interval] | None:
        """The best candidate that is no slower than FP32 in the file that is written, timed against it."""
        while True:
            chosen = choose([one for one in self.judged if one.candidate.name not in self.slower], self.aim)
            if chosen is None:
                return None
            built = self.builder.build(chosen.candidate.recipe, self.output, self.reporter, self.token)
            self.reporter.progress(0, 1, "runs", f"Timing {chosen.candidate.name} against FP32")
            speedup = speed_against(self.builder.graph, self.output, self.dataset, self.token)
            if is_not_slower(speedup):
                return chosen, built, speedup
            self.slower[chosen.candidate.name] = speedup

    # What it says.

    def _chosen_text(self, chosen: Judged, built: BuildResult, speedup: Interval) -> str:
        share = built.size_bytes / self.builder.graph.summary.file_bytes
        said = [f"Chose {chosen.candidate.name}, {self.aim.text}: {_speed_text(speedup)}, "]
        said.append(f"{figures.percent(share, 0)} of its size")
        if chosen.headline is not None:
            said.append(f", {loss_text(chosen.headline)} ({floor_text(chosen.headline)})")
        return f"{''.join(said)}. {self._tried_text()}"

    def _kept_text(self) -> str:
        if not self.judged:
            return "FP32 is kept: no layer has an integer form that could be built."
        return f"FP32 is kept: nothing tried holds the floor and is no slower. {self._tried_text()}"

    def _refusal(self, one: Judged) -> str:
        """Why a candidate is not taken, with its figure; empty where only a better one stood before it."""
        if one.headline is None:
            return "nothing could be judged"
        if not one.holds:
            return f"{loss_text(one.headline)}, {floor_text(one.headline)}"
        speedup = self.slower.get(one.candidate.name, one.result.speedup)
        if speedup is not None and (one.is_slower or one.candidate.name in self.slower):
            return f"slower than FP32 ({speedup.value:.2f} times its speed)"
        return ""

    def _tried_text(self) -> str:
        samples = min(len(self.dataset), JUDGED_SAMPLES)
        tried = "; ".join(one.text for one in self.judged)
        refused = [
            f"{one.candidate.name} ({reason})" for one in self.judged if (reason := self._refusal(one))
        ]
        said = f"Measured on {samples} calibration samples: {tried}."
        return f"{said} Refused: {'; '.join(refused)}." if refused else said


def _speed_text(speedup: Interval) -> str:
    """The speed against FP32, called faster only where it is."""
    if speedup.value >= FASTER and speedup.low > 1:
        return f"{speedup.value:.2f} times as fast as FP32"
    return f"as fast as FP32 ({speedup.value:.2f} times)"


def _judged(
    builder: _Builder,
    candidates: Mapping[Path, Candidate],
    reporter: Reporter,
    cancel: CancelToken,
) -> list[Judged]:
    if not candidates or builder.dataset is None:
        return []
    measured = compare(
        Path(builder.graph.summary.graph_path),
        list(candidates),
        SampleRange(builder.dataset, JUDGED_SAMPLES),
        names=["FP32", *(candidate.name for candidate in candidates.values())],
        latency_budget=TIMING,
        footprint=False,
        reporter=_Quiet(reporter),
        cancel=cancel,
    )
    results = measured.variants[1:]
    return [Judged(*pair) for pair in zip(candidates.values(), results, strict=True)]


def _calibrated(
    graph: Graph,
    dataset: Dataset | None,
    calibration: CalibrationSettings,
    reporter: Reporter,
    cancel: CancelToken,
) -> Statistics:
    if dataset is None:
        raise DataError(
            "static quantization needs calibration data",
            hint=Hint("Choose calibration data", HintAction.CHOOSE_DATA),
        )
    return calibrate(graph, dataset, samples=calibration.samples, reporter=reporter, cancel=cancel)


class _Quiet(NullReporter):
    """Passes progress on and keeps the candidates' warnings out of the log."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        """Pass on."""
        self._reporter.progress(done, total, unit, label)
