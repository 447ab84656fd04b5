"""The training behind `tune`: batches, the best state, what is written down."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from quantstudio.core.errors import DataError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.figures import counted
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.recovered import LayerRecovered
from quantstudio.core.statistics import Statistics
from quantstudio.core.target import target_named
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import worker_threads
from quantstudio.engine.model.derive import derived_graph, editable_copy
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.recovery.adam import Adam
from quantstudio.engine.recovery.distillation import BATCH, Distillation, output_losses
from quantstudio.engine.recovery.layer_errors import LayerErrors
from quantstudio.engine.recovery.lessons import Lesson, Lessons, samples_a_step
from quantstudio.engine.recovery.trained_weights import TrainedParts, write_initializers
from quantstudio.engine.recovery.training_settings import TuneSettings
from quantstudio.engine.torch_graph.device import resolve_device, torch_settings
from quantstudio.engine.torch_graph.module import TorchGraph

Tensor = torch.Tensor
# How often the held-out part is looked at.
_LOOKS = 8
# Scales move every weight of a channel at once: a smaller rate than biases'.
_SCALE_RATE = 0.3
# What is won on the samples that judge must be this many of its standard errors: less is won by chance, and
# lost on others. With fewer batches than that nothing is known of them.
_BEYOND_CHANCE, _FEWEST_BATCHES = 2.0, 5
# Part of the steps over which the rate grows.
_WARM_UP = 0.1


def tuned(
    graph: Graph, context: StepContext, settings: TuneSettings, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with scales, table entries and biases that were trained towards the float network.

    Raises:
        DataError: too few samples, or outputs that are not finite.
        JobCancelled: `cancel` was set.
    """
    with torch_settings(worker_threads()):
        return _Tuning(graph, context, settings, reporter, cancel).outcome()


@dataclass(slots=True)
class _Best:
    """The best state seen.

    Attributes:
        loss: Its loss on the held-out part.
        step: Steps of training before it.
        state: The parameters.
    """

    loss: float
    step: int
    state: list[Tensor]


class _Tuning:
    """One training under way."""

    def __init__(
        self,
        graph: Graph,
        context: StepContext,
        settings: TuneSettings,
        reporter: Reporter,
        cancel: CancelToken,
    ) -> None:
        self.graph, self.context, self.settings = graph, context, settings
        self.reporter, self.cancel = reporter, cancel
        self.device = resolve_device(context.device)
        original = context.original or graph
        self.distillation = Distillation(
            output_losses(original, context.dataset, cancel), original.proto, graph.proto
        )
        statistics = context.statistics(graph) if context.plan.is_static else None
        self.student = self._quantized(graph, statistics)
        teacher = TorchGraph(original.proto, self.distillation.wanted).to(self.device)
        reference = context.unrounded or graph
        size = samples_a_step(graph, settings.steps)
        # Gradients of few samples are noise for the most part: Krizhevsky 2014, arXiv:1404.5997, section 5.
        self.rate = settings.rate * math.sqrt(size / BATCH)
        self.lessons = Lessons(
            context.dataset,
            settings.samples,
            teacher,
            self.distillation,
            context.seed,
            cancel,
            is_fitted=reference.digest != graph.digest,
            most=size,
        )
        self.errors = LayerErrors(reference, context.plan, self.lessons.first)
        self.stopped = ""

    def outcome(self) -> StepOutcome:
        """Train, and write the best state down if it is better than none."""
        spreads = self.errors.spreads
        bits = target_named(self.context.plan.target).weight_bits
        parts = TrainedParts(self.student, self.graph, self.context.plan.schemes, bits, spreads)
        if not parts.scale_parameters and not parts.bias_parameters:
            return StepOutcome(
                self.graph, "No quantized layer has scales or biases of its own.", {"steps": 0}
            )
        starts, errors = self._held_losses(), self.errors.measured(self.student)
        before = _mean(starts)
        if not math.isfinite(before):
            raise DataError(
                "the quantized network's outputs are not finite on the calibration data",
                hint=Hint("Choose other data, or other precisions", HintAction.CHOOSE_DATA),
            )
        best = self._train(parts, before)
        if best.step == 0:
            return self._unchanged(before)
        parts.restore(best.state)
        model = editable_copy(self.graph)
        write_initializers(model, dict(parts.written()))
        made = derived_graph(self.graph, model, "Tuned scales and biases.")
        self.student = self._quantized(
            made, self.context.statistics(made) if self.context.plan.is_static else None
        )
        ends = self._held_losses()
        if not _is_won(starts, ends):
            return self._unchanged(before)
        after = _mean(ends)
        self._tell(errors, self.errors.measured(self.student))
        summary = (
            f"Trained {counted(len(parts.weights), 'weight')} and {len(parts.biases)} sets of biases "
            f"for {counted(best.step, 'step')}: the divergence from the float network fell from "
            f"{before:.2g} to {after:.2g} nats on {self.lessons.judged_on}."
            f"{self.stopped}"
        )
        return StepOutcome(made, summary, self._details(before, after, best.step))

    def _unchanged(self, before: float) -> StepOutcome:
        summary = (
            f"Changed nothing: no state was nearer to the float network than {before:.2g} nats on "
            f"{self.lessons.judged_on}, beyond chance.{self.stopped}"
        )
        return StepOutcome(self.graph, summary, self._details(before, before, 0))

    def _details(self, before: float, after: float, steps: int) -> dict[str, float | int]:
        return {"before": before, "after": after, "steps": steps, "held_out": self.lessons.held_samples}

    def _train(self, parts: TrainedParts, before: float) -> _Best:
        best = _Best(before, 0, parts.state())
        rate, steps = self.rate, self.settings.steps
        optimizer = Adam(
            (parts.scale_parameters, rate * _SCALE_RATE),
            (parts.entry_parameters, rate),
            (parts.bias_parameters, rate),
        )
        every = max(1, math.ceil(steps / _LOOKS))
        for done in range(1, steps + 1):
            self.cancel.raise_if_set()
            self.reporter.progress(done - 1, steps, "steps", "Tuning scales and biases")
            parts.apply()
            loss = self._loss(self.lessons.next())
            if not bool(torch.isfinite(loss)):
                self.stopped = f" Stopped at step {done}: the loss was no longer a number."
                break
            torch.autograd.backward(loss)
            optimizer.step(_share_of_rate(done, steps))
            if done % every == 0 or done == steps:
                with torch.no_grad():
                    parts.apply()
                found = _mean(self._held_losses())
                # Where the rate has fallen to zero is better than it looks: the best of many looks is luck.
                if found < (before if done == steps else best.loss):
                    best = _Best(found, done, parts.state())
        self.reporter.progress(steps, steps, "steps", "Tuning scales and biases")
        return best

    def _loss(self, lesson: Lesson) -> Tensor:
        found = self.student.run(lesson.feed, self.distillation.compared)
        return self.distillation.loss(found, lesson.answers)

    def _held_losses(self) -> list[float]:
        with torch.no_grad():
            return [float(self._loss(lesson)) for lesson in self.lessons.held]

    def _quantized(self, graph: Graph, statistics: Statistics | None) -> FakeQuantized:
        made = FakeQuantized(graph, statistics, self.context.plan).to(self.device)
        made.requires_grad_(False)
        made.weights = {slot: weight.to(self.device) for slot, weight in made.weights.items()}
        return made

    def _tell(self, before: dict[str, float], after: dict[str, float]) -> None:
        for layer, error in before.items():
            self.reporter.found(LayerRecovered(layer, error, after.get(layer), self.errors.measure))


def _mean(losses: list[float]) -> float:
    return sum(losses) / len(losses)


def _is_won(before: list[float], after: list[float]) -> bool:
    """Whether losses of the same batches fell, by more than they would by chance."""
    won = [one - other for one, other in zip(before, after, strict=True)]
    mean, count = _mean(won), len(won)
    if not mean > 0 or count < _FEWEST_BATCHES:
        return mean > 0
    spread = math.sqrt(sum((one - mean) ** 2 for one in won) / (count - 1))
    return mean > _BEYOND_CHANCE * spread / math.sqrt(count)


def _share_of_rate(step: int, steps: int) -> float:
    """Part of the learning rate for a step, from 1: it grows over the first tenth and falls to zero.

    Behind steps that left the network near an optimum, full steps before Adam knows how large gradients are
    lead away from it. Loshchilov & Hutter 2017, SGDR, arXiv:1608.03983, eq. 5, with a linear start.
    """
    start = _WARM_UP * steps
    left = min(1.0, (steps - step + 1) / max(steps - start, 1.0))
    return min(1.0, step / max(start, 1.0)) * 0.5 * (1 - math.cos(math.pi * left))
