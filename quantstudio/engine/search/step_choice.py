"""Which steps of a recipe help: built with and without them, and measured."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from quantstudio.core.errors import DataError
from quantstudio.core.events import CancelToken, NullReporter, Reporter
from quantstudio.core.figures import number, percent, significant
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import VariantResult
from quantstudio.core.steps import Step
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.evaluation.compare import compare
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.runner import StepInputs, observed_after, prepare
from quantstudio.engine.quantization.build import build_variant
from quantstudio.engine.search.first_samples import FirstSamples
from quantstudio.engine.search.presets import JUDGED_SAMPLES

# All combinations of this many steps are tried; of more, each beginning of the list.
MAX_COMBINED = 3
# A loss this much smaller is worth another step; less is within the noise of the samples.
WORTH_A_STEP = 0.95


@dataclass(frozen=True, slots=True)
class _Tried:
    steps: tuple[Step, ...]
    result: VariantResult

    @property
    def loss(self) -> float:
        """Mean KL from FP32 where outputs are classes, else noise power relative to the signal."""
        agreement = self.result.agreement
        if agreement is None:
            return math.inf
        return agreement.kl if not math.isnan(agreement.kl) else 10 ** (-agreement.sqnr_db / 10)

    @property
    def text(self) -> str:
        """Its figures in a few words."""
        agreement = self.result.agreement
        if agreement is None:
            return _names(self.steps)
        if math.isnan(agreement.kl):
            return f"{_names(self.steps)} ({number(agreement.sqnr_db)} dB)"
        return (
            f"{_names(self.steps)} ({percent(agreement.top1, 1)} agreement, KL {significant(agreement.kl)})"
        )


def with_best_steps(
    graph: Graph, recipe: Recipe, inputs: StepInputs, *, reporter: Reporter, cancel: CancelToken
) -> tuple[Recipe, str]:
    """The recipe with those of its steps that measure best.

    Every combination is built and compared with FP32 on the first samples of the calibration data; a longer
    one must be better by more than the noise.

    Args:
        graph: Normalised model.
        recipe: Recipe with the steps to choose from.
        inputs: What the steps may use; the data is what they are judged on.
        reporter: Told of every candidate.
        cancel: Looked at before every candidate and batch.

    Returns:
        The recipe, and why these steps, for a person.

    Raises:
        DataError: there is no data to judge on.
    """
    if inputs.dataset is None:
        raise DataError(
            "choosing steps means measuring them", hint=Hint("Choose data", HintAction.CHOOSE_DATA)
        )
    candidates = list(_combinations([step for step in recipe.steps if step.is_on]))
    with tempfile.TemporaryDirectory(prefix="quantstudio-steps-") as folder:
        paths = []
        for index, steps in enumerate(candidates):
            cancel.raise_if_set()
            reporter.progress(index, len(candidates), "candidates", f"Trying {_names(steps)}")
            paths.append(Path(folder) / f"candidate{index}.onnx")
            _build(graph, replace(recipe, steps=steps), inputs, paths[-1], cancel)
        tried = _measured(graph, inputs.dataset, candidates, paths, cancel)
    best = tried[0]
    for one in tried[1:]:
        if one.loss < best.loss * (WORTH_A_STEP if len(one.steps) > len(best.steps) else 1.0):
            best = one
    samples = min(len(inputs.dataset), JUDGED_SAMPLES)
    why = (
        f"Chose {_names(best.steps)}. Measured on {samples} calibration samples: "
        f"{'; '.join(one.text for one in tried)}."
    )
    return replace(recipe, steps=best.steps), why


def _combinations(steps: Sequence[Step]) -> Iterator[tuple[Step, ...]]:
    """Candidates, shorter ones first, each in the order of the recipe."""
    if len(steps) > MAX_COMBINED:
        yield from (tuple(steps[:count]) for count in range(len(steps) + 1))
        return
    for count in range(len(steps) + 1):
        yield from combinations(steps, count)


def _build(graph: Graph, recipe: Recipe, inputs: StepInputs, path: Path, cancel: CancelToken) -> None:
    quiet = NullReporter()
    prepared = prepare(graph, recipe, inputs, reporter=quiet, cancel=cancel)
    statistics = inputs.statistics
    if prepared.plan.is_static:
        statistics = observed_after(prepared, inputs, reporter=quiet, cancel=cancel)
    build_variant(prepared.graph, statistics, prepared.plan, path, reporter=quiet, cancel=cancel)


def _measured(
    graph: Graph,
    dataset: Dataset,
    candidates: Sequence[tuple[Step, ...]],
    paths: Sequence[Path],
    cancel: CancelToken,
) -> list[_Tried]:
    found = compare(
        Path(graph.summary.graph_path),
        paths,
        FirstSamples(dataset, JUDGED_SAMPLES),
        names=["FP32", *(_names(steps) for steps in candidates)],
        latency=False,
        footprint=False,
        reporter=NullReporter(),
        cancel=cancel,
    )
    return [_Tried(*pair) for pair in zip(candidates, found.variants[1:], strict=True)]


def _names(steps: Sequence[Step]) -> str:
    return " then ".join(step.name for step in steps) or "no step"
