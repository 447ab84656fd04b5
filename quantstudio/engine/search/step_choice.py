"""Which steps of a recipe help: built with and without them, and measured."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from quantstudio.core.errors import DataError, JobCancelled, QuantStudioError
from quantstudio.core.events import CancelToken, NullReporter, Reporter, Severity
from quantstudio.core.figures import number, percent, significant
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import VariantResult
from quantstudio.core.steps import Step
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.evaluation.compare import compare
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.discovery import step_infos
from quantstudio.engine.pipeline.runner import StepInputs, observed_after, prepare
from quantstudio.engine.quantization.build import build_variant
from quantstudio.engine.search.first_samples import FirstSamples
from quantstudio.engine.search.presets import JUDGED_SAMPLES
from quantstudio.engine.search.time_box import TimeBox

# All combinations of this many steps are tried; of more, each is tried behind those that helped.
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

    Every combination of a few is built and compared with FP32 on the first samples of the calibration data; a
    longer one must be better by more than the noise. Of many, see `with_steps_that_help`.

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
    asked = [step for step in recipe.steps if step.is_on]
    if len(asked) > MAX_COMBINED:
        bare = replace(recipe, steps=())
        return with_steps_that_help(graph, bare, asked, inputs, reporter=reporter, cancel=cancel)
    candidates = list(_combinations(asked))
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
    return replace(recipe, steps=best.steps), _why(best, tried, inputs.dataset)


def with_steps_that_help(
    graph: Graph,
    recipe: Recipe,
    candidates: Sequence[Step],
    inputs: StepInputs,
    *,
    seconds: float = 0.0,
    reporter: Reporter,
    cancel: CancelToken,
) -> tuple[Recipe, str]:
    """The recipe with those further steps that each measure better than the recipe without.

    They are tried one after the other, each behind those that were kept; what is returned is never worse
    than the recipe was. A step that fails on this network is named and left out.

    Args:
        graph: Normalised model.
        recipe: Recipe with the steps it has now.
        candidates: Steps to try, in the order they are best run in.
        inputs: What the steps may use; the data is what they are judged on.
        seconds: When this much time is over the step under way is given up, and what was best so far is the
            answer; 0 for as long as it takes. The recipe as it is is always measured.
        reporter: Told of every candidate, and in a message how it did.
        cancel: Looked at before every candidate and batch.

    Returns:
        The recipe, and why these steps, for a person.

    Raises:
        DataError: there is no data to judge on.
        JobCancelled: `cancel` was set.
    """
    dataset = inputs.dataset
    if dataset is None:
        raise DataError(
            "choosing steps means measuring them", hint=Hint("Choose data", HintAction.CHOOSE_DATA)
        )
    box = TimeBox(cancel, seconds)
    trial = _Trial(graph, recipe, inputs, dataset, reporter)
    reporter.progress(0, len(candidates) + 1, "candidates", f"Trying {_names(recipe.steps)}")
    best = trial.tried(recipe.steps, cancel)
    tried, left = [best], list(candidates)
    while left and not box.is_over:
        step = left.pop(0)
        done = len(candidates) - len(left)
        reporter.progress(done, len(candidates) + 1, "candidates", f"Trying {_names([step])}")
        try:
            one = trial.tried(_placed(best.steps, step), box)
        except JobCancelled:
            cancel.raise_if_set()
            left.insert(0, step)
            break
        except QuantStudioError as error:
            reporter.message(f"{step.name} left out: {error.what}", Severity.WARNING)
            continue
        is_better = one.loss < best.loss * WORTH_A_STEP
        reporter.message(f"{'Kept' if is_better else 'Left out'} {step.name}: {one.text}")
        tried.append(one)
        best = one if is_better else best
    why = _why(best, tried, dataset)
    if left:
        why += f" The time was over before {_names(left)} could be tried."
    return replace(recipe, steps=best.steps), why


def _placed(steps: Sequence[Step], step: Step) -> tuple[Step, ...]:
    """A further step before the first that is best run behind it, by what steps are for."""
    order = {info.name: place for place, info in enumerate(step_infos())}
    own = order[step.name]
    at = next((i for i, one in enumerate(steps) if order.get(one.name, -1) > own), len(steps))
    return (*steps[:at], step, *steps[at:])


@dataclass(frozen=True, slots=True)
class _Trial:
    """Builds and measures one list of steps after the other."""

    graph: Graph
    recipe: Recipe
    inputs: StepInputs
    dataset: Dataset
    reporter: Reporter

    def tried(self, steps: tuple[Step, ...], cancel: CancelToken) -> _Tried:
        cancel.raise_if_set()
        with tempfile.TemporaryDirectory(prefix="quantstudio-steps-") as folder:
            path = Path(folder) / "candidate.onnx"
            _build(self.graph, replace(self.recipe, steps=steps), self.inputs, path, cancel)
            return _measured(self.graph, self.dataset, [steps], [path], cancel)[0]


def _why(best: _Tried, tried: Sequence[_Tried], dataset: Dataset) -> str:
    samples = min(len(dataset), JUDGED_SAMPLES)
    return (
        f"Chose {_names(best.steps)}. Measured on {samples} calibration samples: "
        f"{'; '.join(one.text for one in tried)}."
    )


def _combinations(steps: Sequence[Step]) -> Iterator[tuple[Step, ...]]:
    """Candidates, shorter ones first, each in the order of the recipe."""
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
    return " then ".join(step.name for step in steps if step.is_on) or "no step"
