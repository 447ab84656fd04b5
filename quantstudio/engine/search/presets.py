"""Recipes by one word, and `auto`, which builds several and keeps what measures best."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import BuildError, CalibrationError, DataError, ModelLoadError
from quantstudio.core.events import (
    NULL_REPORTER,
    CancelToken,
    NullReporter,
    Reporter,
    Severity,
    never_cancelled,
)
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import DYNAMIC_INT8, FP32, STATIC_INT8, WEIGHT_INT8
from quantstudio.core.recipe import ActivationScope, CalibrationSettings, LayerRule, Recipe, uniform_recipe
from quantstudio.core.results import BuildResult, VariantResult
from quantstudio.core.schemes import AUTO, preset_scheme
from quantstudio.core.statistics import Statistics
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.data.dataset import Batch, Dataset
from quantstudio.engine.evaluation.compare import compare
from quantstudio.engine.evaluation.latency import LatencyBudget
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.runner import StepInputs, completed, observed_after, prepare
from quantstudio.engine.quantization.build import build_variant

# Samples `auto` judges accuracy on: KL of the outputs is known to a few percent with this many.
JUDGED_SAMPLES = 512
TIMING = LatencyBudget(seconds=3.0, min_rounds=25, max_rounds=200)
# A mean KL below this (nats) moves accuracy by less than the reference networks' own uncertainty on 10,000
# images: candidates below it count as equally accurate.
NEGLIGIBLE_KL = 2e-3
# The same for outputs that are not class scores: noise power relative to the signal (35 dB).
NEGLIGIBLE_NOISE = 3e-4
# Speeds this close to the fastest are the same on a machine with other work.
SAME_SPEED = 0.97
# Convolutions with fewer channels than a vector register holds run slower on integers than in float.
MIN_CHANNELS = 16
# Share of the parameters a candidate must quantize to be worth trying beside static INT8.
MIN_SHARE = 0.1
# How much worse than the best a candidate may be and still count as within the noise.
LOSS_RATIO = 1.5
# Points of accuracy a candidate may lose against the best candidate on the judged samples.
DROP_MARGIN_POINTS = 0.5
# Points of accuracy against FP32 beyond which a candidate is not a result, unless the samples cannot tell.
LARGEST_DROP_POINTS = 1.0
# Share of predictions that may change where there are no labels.
LARGEST_DISAGREEMENT = 0.05


@dataclass(frozen=True, slots=True)
class Candidate:
    """One recipe `auto` tries."""

    name: str
    recipe: Recipe

    def with_kept(self, kept: Recipe) -> Candidate:
        """The same with steps, seed and target of another recipe."""
        recipe = replace(self.recipe, target=kept.target, steps=kept.steps, seed=kept.seed)
        return replace(self, recipe=recipe)


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate with what was measured of it."""

    candidate: Candidate
    result: VariantResult

    @property
    def loss(self) -> float:
        """Mean KL from FP32 where outputs are classes, else noise power relative to the signal."""
        agreement = self.result.agreement
        if agreement is None:
            return math.inf
        if not math.isnan(agreement.kl):
            return agreement.kl
        return 10 ** (-agreement.sqnr_db / 10)

    @property
    def has_kl(self) -> bool:
        """Whether `loss` is a KL divergence."""
        return self.result.agreement is not None and not math.isnan(self.result.agreement.kl)

    @property
    def speedup(self) -> float:
        """Times faster than FP32."""
        return self.result.speedup.value if self.result.speedup is not None else 0.0

    @property
    def may_be_as_fast(self) -> bool:
        """Whether the interval of the speed-up holds 1."""
        return self.result.speedup is not None and self.result.speedup.high >= 1.0

    @property
    def drop_points(self) -> float:
        """Points of accuracy lost; without class labels, points of predictions that changed."""
        result = self.result
        if result.drop is not None and result.drop_method == "mcnemar":
            return result.drop.value
        if result.agreement is not None and not math.isnan(result.agreement.top1):
            return 100 * (1 - result.agreement.top1)
        return 0.0

    @property
    def is_broken(self) -> bool:
        """Whether it loses more than anyone would accept."""
        result = self.result
        if result.drop is not None and result.drop_method == "mcnemar":
            return result.drop.value > LARGEST_DROP_POINTS and result.drop.low > 0
        if result.agreement is not None and not math.isnan(result.agreement.top1):
            return result.agreement.top1 < 1 - LARGEST_DISAGREEMENT
        return False

    @property
    def text(self) -> str:
        """Its figures in a few words."""
        parts = [f"{self.speedup:.2f}x FP32"]
        result = self.result
        if result.drop is not None and result.drop_method == "mcnemar":
            parts.append(f"{result.drop.value:+.2f} points lost")
        agreement = result.agreement
        if agreement is not None and not math.isnan(agreement.top1):
            parts.append(f"{agreement.top1:.1%} agreement")
        if agreement is not None:
            parts.append(
                f"KL {agreement.kl:.1e}" if not math.isnan(agreement.kl) else f"{agreement.sqnr_db:.1f} dB"
            )
        return f"{self.candidate.name} ({', '.join(parts)})"


def build_preset(
    graph: Graph,
    dataset: Dataset | None,
    statistics: Statistics | None,
    preset: str,
    output: Path,
    *,
    kept: Recipe | None = None,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> tuple[Recipe, BuildResult]:
    """Build the variant a preset stands for.

    `auto` measures static INT8 everywhere, static INT8 around weighted layers only, dynamic INT8 and a mix of
    both, drops what is slower than FP32 or plainly less accurate, and keeps the most accurate, or the fastest
    of those whose difference is within the noise. Where nothing is left it stores the weights as INT8, if
    that measures no slower than FP32 either, and else keeps FP32; it says so.

    Args:
        graph: Normalised model.
        dataset: Samples to calibrate with and, for `auto`, to judge by.
        statistics: Activation statistics of the graph; None calibrates where they are needed.
        preset: The name of a scheme, for every layer that can have it, or "auto".
        output: Where the ONNX file goes.
        kept: Recipe of which steps, seed, range settings and target are taken over, whatever its precisions.
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
        return _build_auto(_Builder(graph, dataset, statistics), output, own, reporter, token)
    recipe = replace(own, rules=(LayerRule(preset_scheme(preset)),))
    if statistics is None and not _has_steps(own) and resolve(recipe, graph.layers).is_static:
        statistics = _calibrated(graph, dataset, own.calibration, reporter, token)
    return recipe, _Builder(graph, dataset, statistics).build(recipe, output, reporter, token)


def auto_candidates(graph: Graph, calibration: CalibrationSettings) -> tuple[Candidate, ...]:
    """What `auto` tries for a graph: only what differs from the others there."""
    layers = [layer for layer in graph.layers if layer.quantizable]
    static = [layer for layer in layers if "static-int8" in layer.schemes]
    dynamic = [layer for layer in layers if "dynamic-int8" in layer.schemes]
    candidates = []
    if static:
        candidates.append(Candidate("static", uniform_recipe(STATIC_INT8, calibration=calibration)))
        candidates.append(
            Candidate(
                "static on weighted layers",
                uniform_recipe(
                    STATIC_INT8, calibration=calibration, activation_scope=ActivationScope.WEIGHTED
                ),
            )
        )
        narrow = _narrow_convolutions(graph)
        if narrow and len(narrow) < len(static):
            recipe = uniform_recipe(STATIC_INT8, calibration=calibration).assign(narrow, FP32)
            candidates.append(Candidate("static, narrow convolutions float", recipe))
    # Where next to all weights belong to convolutions it would be FP32 under another name.
    if dynamic and (not static or _parameters(dynamic) >= MIN_SHARE * _parameters(layers)):
        candidates.append(Candidate("dynamic", uniform_recipe(DYNAMIC_INT8, calibration=calibration)))
    if dynamic and any(layer.op_type == "Conv" for layer in static):
        rules = (
            LayerRule(STATIC_INT8, op_types=("Conv",)),
            LayerRule(DYNAMIC_INT8, op_types=("Gemm", "MatMul")),
        )
        recipe = Recipe(rules, calibration, ActivationScope.ALL)
        candidates.append(Candidate("static convolutions, dynamic products", recipe))
    return tuple(candidates)


def _parameters(layers: Sequence[LayerInfo]) -> int:
    return sum(layer.parameters for layer in layers)


def _narrow_convolutions(graph: Graph) -> list[str]:
    """Convolutions that read the model's input or have few channels."""
    inputs = {tensor.name for tensor in graph.summary.inputs}
    return [
        layer.name
        for layer in graph.layers
        if layer.op_type == "Conv"
        and "static-int8" in layer.schemes
        and (layer.weight_shape[0] < MIN_CHANNELS or inputs.intersection(layer.inputs))
    ]


def choose(judged: list[Judged]) -> Judged | None:
    """The most accurate candidate not slower than FP32, or the fastest of those within the noise of it.

    Of equally fast ones the first listed wins.
    """
    sound = [one for one in judged if not one.is_broken and math.isfinite(one.loss)]
    # On a busy machine a candidate can measure slower by chance: what is not proven slower is second choice.
    able = [one for one in sound if one.speedup >= 1.0] or [one for one in sound if one.may_be_as_fast]
    if not able:
        return None
    best = min(able, key=lambda one: one.loss)
    negligible = NEGLIGIBLE_KL if best.has_kl else NEGLIGIBLE_NOISE
    limit = max(LOSS_RATIO * best.loss, negligible)
    close = [
        one for one in able if one.loss <= limit and one.drop_points <= best.drop_points + DROP_MARGIN_POINTS
    ]
    fastest = max(one.speedup for one in close or [best])
    return next(one for one in close or [best] if one.speedup >= SAME_SPEED * fastest)


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

    def build(self, recipe: Recipe, path: Path, reporter: Reporter, cancel: CancelToken) -> BuildResult:
        """As `quantize` builds it."""
        given = StepInputs(self.dataset, self.statistics)
        made = prepare(self.graph, recipe, given, reporter=reporter, cancel=cancel)
        statistics = self.statistics
        if made.steps and made.plan.is_static:
            statistics = observed_after(made, given, reporter=reporter, cancel=cancel)
        built = build_variant(made.graph, statistics, made.plan, path, reporter=reporter, cancel=cancel)
        return replace(built, steps=made.steps)


def _has_steps(recipe: Recipe) -> bool:
    """Whether statistics of the graph as it was opened are not those that count."""
    return any(step.is_on for step in recipe.steps)


def _build_auto(
    builder: _Builder, output: Path, kept: Recipe, reporter: Reporter, token: CancelToken
) -> tuple[Recipe, BuildResult]:
    graph, dataset = builder.graph, builder.dataset
    assert dataset is not None
    candidates = [one.with_kept(kept) for one in auto_candidates(graph, kept.calibration)]
    is_static = any("static-int8" in layer.schemes for layer in graph.layers)
    if builder.statistics is None and is_static and not _has_steps(kept):
        try:
            observed = _calibrated(graph, dataset, kept.calibration, reporter, token)
            builder = replace(builder, statistics=observed)
        except CalibrationError as error:
            reporter.message(f"{error.one_line} Static precisions are left out", Severity.WARNING)
    judged = _tried(builder, candidates, reporter, token)
    chosen = choose(judged)
    fallback = None
    if chosen is None:
        # Weights alone are smaller, but the runtime may unpack them on every run: that is measured, too.
        last = (_small_weights(kept.calibration).with_kept(kept),)
        (fallback,) = _tried(builder, last, reporter, token, is_last=True)
        chosen = choose([fallback])
    recipe = chosen.candidate.recipe if chosen else kept
    built = builder.build(recipe, output, reporter, token)
    samples = min(len(dataset), JUDGED_SAMPLES)
    return recipe, replace(built, preset=_explained(judged, chosen, fallback, samples))


def _small_weights(calibration: CalibrationSettings) -> Candidate:
    return Candidate("weights as INT8", uniform_recipe(WEIGHT_INT8, calibration=calibration))


def _tried(
    builder: _Builder,
    candidates: Sequence[Candidate],
    reporter: Reporter,
    token: CancelToken,
    *,
    is_last: bool = False,
) -> list[Judged]:
    """Each candidate built and measured; one that cannot be built is left out, unless there is no other."""
    with tempfile.TemporaryDirectory(prefix="quantstudio-auto-") as folder:
        built: dict[Path, Candidate] = {}
        for index, candidate in enumerate(candidates):
            token.raise_if_set()
            reporter.progress(index, len(candidates), "candidates", f"Trying {candidate.name}")
            path = Path(folder) / f"candidate{index}.onnx"
            try:
                builder.build(candidate.recipe, path, NULL_REPORTER, token)
            except (BuildError, CalibrationError, ModelLoadError) as error:
                if is_last:
                    raise
                # One candidate that cannot be built is not a reason to do without the others.
                reporter.message(f"{candidate.name}: {error.one_line}", Severity.WARNING)
                continue
            built[path] = candidate
        return _judged(builder, built, reporter, token)


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
        FirstSamples(builder.dataset, JUDGED_SAMPLES),
        names=["FP32", *(candidate.name for candidate in candidates.values())],
        latency_budget=TIMING,
        footprint=False,
        reporter=_Quiet(reporter),
        cancel=cancel,
    )
    results = measured.variants[1:]
    return [Judged(*pair) for pair in zip(candidates.values(), results, strict=True)]


def _explained(judged: list[Judged], chosen: Judged | None, fallback: Judged | None, samples: int) -> str:
    tried = "; ".join(one.text for one in (*judged, *([fallback] if fallback else [])))
    if fallback is None and chosen is not None:
        why = f"Chose {chosen.candidate.name}."
    else:
        why = (
            "None is faster than FP32 without losing accuracy"
            if judged
            else "No layer has an integer form that computes on integers"
        )
        why += (
            ", and weights stored as INT8 run slower or lose accuracy, too: FP32 is kept."
            if chosen is None
            else ", so only the weights are stored as INT8: a smaller file, not a faster one."
        )
    return f"{why} Measured on {samples} calibration samples: {tried}."


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


class FirstSamples:
    """The first samples of a data set, as a data set of their own."""

    def __init__(self, dataset: Dataset, count: int) -> None:
        self._dataset = dataset
        self._count = min(count, len(dataset))

    def __len__(self) -> int:
        """Number of samples."""
        return self._count

    @property
    def labels(self) -> NDArray[np.int64] | NDArray[np.float32] | None:
        """Labels of these samples."""
        labels = self._dataset.labels
        return None if labels is None else labels[: self._count]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self._dataset.class_names

    @property
    def segments(self) -> Mapping[str, NDArray[Any]]:
        """None: nothing is judged by segment here."""
        return {}

    def batches(self, size: int, *, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Samples in order."""
        last = self._count if stop is None else min(stop, self._count)
        return self._dataset.batches(size, start=start, stop=last)


class _Quiet(NullReporter):
    """Passes progress on and keeps the candidates' warnings out of the log."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        """Pass on."""
        self._reporter.progress(done, total, unit, label)
