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
from quantstudio.core.recovered import StepTried
from quantstudio.core.results import VariantResult
from quantstudio.core.steps import Need, Step, StepGroup
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.evaluation.compare import compare
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.discovery import step_infos
from quantstudio.engine.pipeline.runner import StepInputs, observed_after, prepare, resolved
from quantstudio.engine.quantization.build import build_variant
from quantstudio.engine.search.presets import JUDGED_SAMPLES
from quantstudio.engine.search.sample_range import SampleRange
from quantstudio.engine.search.time_box import TimeBox

# All combinations of this many steps are tried; of more, each is tried behind those that helped.
MAX_COMBINED = 3
# A loss this much smaller is worth another step; less is within the noise of the samples.
WORTH_A_STEP = 0.95
# Weights of so many bits or fewer collapse when each is rounded to what is next to it.
LOW_BITS = 3
# With a divergence this small and every answer as before nothing is left that the samples could tell.
NOTHING_LEFT_KL = 2e-3


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
    def is_as_before(self) -> bool:
        """Whether the samples cannot tell it from FP32."""
        agreement = self.result.agreement
        return agreement is not None and agreement.top1 == 1.0 and agreement.kl < NOTHING_LEFT_KL

    def unlike(self, samples: int) -> tuple[float, str]:
        """The share that is lost, and of what: answers where outputs are classes, else their power."""
        agreement = self.result.agreement
        if agreement is None:
            return math.nan, ""
        if math.isnan(agreement.kl):
            return 10 ** (-agreement.sqnr_db / 10), f"error of the outputs, of their power, {samples} samples"
        return 1 - agreement.top1, f"answers unlike FP32's, {samples} calibration samples"

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
    than the recipe was. A step that fails on this network is named and left out. Within a
    time no more are tried where every answer is FP32's already.

    Args:
        graph: Normalised model.
        recipe: Recipe with the steps it has now.
        candidates: Steps to try, in the order they are best run in; at low bits those that choose weights
            together are tried first, and those behind which all of it would run anew last.
        inputs: What the steps may use; the data is what they are judged on.
        seconds: When this much time is over the step under way is given up, and what was best so far is the
            answer; 0 for as long as it takes. The recipe as it is is always measured.
        reporter: Told of every candidate, and in a part and a message how it did.
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
    trial.tell("", best, best, is_kept=True)
    tried, left = [best], _in_trying_order(candidates, graph, recipe)
    while left and not box.is_over and not (seconds and best.is_as_before):
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
            trial.tell(step.name, best, None, is_kept=False)
            continue
        is_better = one.loss < best.loss * WORTH_A_STEP
        reporter.message(f"{'Kept' if is_better else 'Left out'} {step.name}: {one.text}")
        trial.tell(step.name, best, one, is_kept=is_better)
        tried.append(one)
        best = one if is_better else best
    why = _why(best, tried, dataset)
    if left:
        is_late = box.is_over or not best.is_as_before
        ended = (
            f"The time was over before {_names(left)} could be"
            if is_late
            else "Every answer is FP32's: no more was"
        )
        why += f" {ended} tried."
    return replace(recipe, steps=best.steps), why


def _in_trying_order(candidates: Sequence[Step], graph: Graph, recipe: Recipe) -> list[Step]:
    """What wins most for its time first: a step behind those that were kept costs its own time alone."""
    formats = [scheme.weights for scheme in resolved(recipe, graph).schemes.values()]
    if not any(one.is_integer and one.bits <= LOW_BITS for one in formats):
        return list(candidates)
    infos = {info.name: info for info in step_infos()}

    def turn(step: Step) -> tuple[bool, bool, bool]:
        info = infos.get(step.name)
        if info is None:
            return True, True, True
        return (
            info.group is StepGroup.PREPARE,
            Need.GRADIENTS in info.needs,
            info.group is not StepGroup.ROUND,
        )

    return sorted(candidates, key=turn)


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

    def tell(self, name: str, before: _Tried, now: _Tried | None, *, is_kept: bool) -> None:
        """Tell how a step did; None where it does not fit."""
        samples = min(len(self.dataset), JUDGED_SAMPLES)
        without, measure = before.unlike(samples)
        left = now.unlike(samples)[0] if now is not None else None
        if measure:
            self.reporter.found(StepTried(name, without, left, measure, is_kept))


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
        SampleRange(dataset, JUDGED_SAMPLES),
        names=["FP32", *(_names(steps) for steps in candidates)],
        latency=False,
        footprint=False,
        reporter=NullReporter(),
        cancel=cancel,
    )
    return [_Tried(*pair) for pair in zip(candidates, found.variants[1:], strict=True)]


def _names(steps: Sequence[Step]) -> str:
    return " then ".join(step.name for step in steps if step.is_on) or "no step"
