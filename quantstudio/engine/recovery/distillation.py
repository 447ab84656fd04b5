"""How far a network's outputs are from those it is to give, as a loss with gradients; no labels.

Class scores and decisions by the KL divergence of their probabilities (Hinton et al. 2015, arXiv:1503.02531,
at temperature 1), everything else by half the squared error in standard deviations, which is the KL
divergence of Gaussians. So the outputs of a network add up in nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import onnx
import torch
import torch.nn.functional as F  # noqa: N812  torch's own convention

from quantstudio.core.errors import DataError, MeasureError
from quantstudio.core.events import CancelToken
from quantstudio.core.hints import Hint, HintAction
from quantstudio.engine.data.dataset import Batch, Dataset
from quantstudio.engine.evaluation.judging import graph_reading
from quantstudio.engine.evaluation.outputs import Meaning
from quantstudio.engine.evaluation.reading import Kind, Reading
from quantstudio.engine.graph.graph import Graph

Tensor = torch.Tensor
# Samples of one step of training.
BATCH = 32
# Rounding noise of a float32 softmax, and of a sigmoid near either end.
_SMALLEST_PROBABILITY = 1e-12
_SMALLEST_DECISION = 1e-7


class _Form(StrEnum):
    CLASSES = "classes"
    DECISIONS = "decisions"
    VALUES = "values"


@dataclass(frozen=True, slots=True)
class OutputLoss:
    """The loss of one output.

    Attributes:
        name: The graph output.
        form: What its values are.
        class_axis: Axis of the classes.
        is_probability: Whether it holds probabilities, and no logits.
    """

    name: str
    form: _Form = _Form.VALUES
    class_axis: int = -1
    is_probability: bool = False

    @property
    def has_classes(self) -> bool:
        """Whether its values are scores of classes."""
        return self.form is _Form.CLASSES

    def tensor_in(self, model: onnx.ModelProto) -> tuple[str, bool]:
        """The tensor to compare, and whether it holds logits: what goes into the output's own Softmax.

        Its gradient does not vanish where a probability is nearly 1.
        """
        last = {_Form.CLASSES: "Softmax", _Form.DECISIONS: "Sigmoid"}.get(self.form)
        if self.is_probability and last is not None:
            for node in model.graph.node:
                if self.name in node.output and node.op_type == last:
                    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), -1)
                    if last == "Sigmoid" or axis == self.class_axis == -1:
                        return node.input[0], True
        return self.name, not self.is_probability

    def value(
        self,
        found: Tensor,
        wanted: Tensor,
        variance: float,
        *,
        has_logits: bool,
        temperature: float = 1.0,
    ) -> Tensor:
        """Divergence in nats, averaged over samples and positions.

        Args:
            found: The output.
            wanted: What it is to be.
            variance: Of its values.
            has_logits: Whether it holds logits, where it holds classes or decisions.
            temperature: Class scores are divided by it, and the divergence is multiplied with its square, so
                that gradients stay as large.
        """
        if self.form is _Form.CLASSES:
            axis = self._axis(found)
            p, q = (_log_softmax(one, axis, temperature, has_logits=has_logits) for one in (wanted, found))
            return temperature**2 * (p.exp() * (p - q)).sum(axis).mean()
        if self.form is _Form.DECISIONS:
            return _decision_divergence(found, wanted, has_logits=has_logits)
        return F.mse_loss(found.float(), wanted.float()) / (2 * variance)

    def same(self, found: Tensor, wanted: Tensor) -> float | None:
        """Share of equal answers; None where they are no classes."""
        if self.form is not _Form.CLASSES:
            return None
        axis = self._axis(found)
        return float((found.argmax(axis) == wanted.argmax(axis)).float().mean())

    def direction(
        self, found: Tensor, variance: float, generator: torch.Generator, *, has_logits: bool
    ) -> Tensor:
        """A random direction whose covariance is the curvature of `value` where nothing is off, times two.

        Args:
            found: The output.
            variance: Of its values.
            generator: Draws the signs.
            has_logits: Whether it holds logits, where it holds classes or decisions.
        """
        signs = torch.randint(0, 2, found.shape, generator=generator).to(found) * 2 - 1
        if self.form is _Form.CLASSES:
            axis = self._axis(found)
            p = found.float().softmax(axis) if has_logits else found.float().clamp_min(_SMALLEST_PROBABILITY)
            drawn = p.sqrt() * signs
            if not has_logits:
                return drawn / p
            return drawn - p * drawn.sum(axis, keepdim=True)
        if self.form is _Form.DECISIONS:
            p = found.float().sigmoid() if has_logits else found.float()
            p = p.clamp(_SMALLEST_DECISION, 1 - _SMALLEST_DECISION)
            power = p * (1 - p)
            return signs * (power.sqrt() if has_logits else power.rsqrt())
        return signs / math.sqrt(variance)

    def _axis(self, scores: Tensor) -> int:
        flat = scores.ndim > 2 and scores.shape[1] > 1 and all(size == 1 for size in scores.shape[2:])
        return 1 if flat else self.class_axis


def output_losses(graph: Graph, dataset: Dataset, cancel: CancelToken) -> tuple[OutputLoss, ...]:
    """The loss of every float output of a network, by what its outputs mean.

    Raises:
        MeasureError: no output holds float numbers, or the model does not run on the data.
        JobCancelled: `cancel` was set.
    """
    return losses_of(graph_reading(graph, dataset, cancel))


def losses_of(reading: Reading) -> tuple[OutputLoss, ...]:
    """The loss of every float output, by how they are read.

    Raises:
        MeasureError: no output holds float numbers.
    """
    if not reading.floats:
        raise MeasureError(
            "no output of the model holds float numbers, so there is nothing to learn from",
            hint="A form of it without the ArgMax or Cast at its end is needed",
        )
    return tuple(_loss_of(name, reading) for name in reading.floats)


def _loss_of(name: str, reading: Reading) -> OutputLoss:
    if name not in reading.judgement.outputs:
        return OutputLoss(name)
    form = reading.form
    if reading.kind is Kind.DECISIONS:
        return OutputLoss(name, _Form.DECISIONS, is_probability=reading.is_probability)
    if form is not None and form.binary:
        return OutputLoss(name, _Form.DECISIONS, is_probability=form.probabilities)
    if reading.kind is Kind.MASKS:
        if reading.class_axis == 0:
            return OutputLoss(name, _Form.DECISIONS, is_probability=reading.is_probability)
        return OutputLoss(name, _Form.CLASSES, reading.class_axis - 4, reading.is_probability)
    if form is not None and form.meaning in (Meaning.CLASSES, Meaning.TOKENS) and name == reading.output:
        return OutputLoss(name, _Form.CLASSES, -1, form.probabilities)
    return OutputLoss(name)


class Distillation:
    """The samples of a step, and how far a network's answers to them are from those it is to give.

    Args:
        losses: One an output.
        teacher: The network that knows the answers.
        student: The network that is measured, as a model: its logits may have other names.

    Attributes:
        losses: One an output.
        wanted: Tensors of the teacher that are compared.
        compared: Those of the student.
        has_logits: Whether they hold logits, where they hold classes or decisions.
    """

    def __init__(
        self, losses: Sequence[OutputLoss], teacher: onnx.ModelProto, student: onnx.ModelProto
    ) -> None:
        self.losses = losses
        asked = [(loss.tensor_in(teacher), loss.tensor_in(student)) for loss in losses]
        # Where only one of them has its logits at hand, both are compared by their probabilities.
        ends = [
            (a[0], b[0], a[1]) if a[1] == b[1] else (loss.name, loss.name, False)
            for loss, (a, b) in zip(losses, asked, strict=True)
        ]
        self.wanted = tuple(end[0] for end in ends)
        self.compared = tuple(end[1] for end in ends)
        self.has_logits = tuple(end[2] for end in ends)
        self._variances: tuple[float, ...] = (1.0,) * len(losses)

    def set_scale(self, answers: Sequence[Sequence[Tensor]]) -> None:
        """Take the variance of each output from the teacher's answers."""
        self._variances = tuple(
            max(float(torch.cat([one[place].flatten().float() for one in answers]).var(correction=0)), 1e-12)
            for place in range(len(self.losses))
        )

    def directions(self, answers: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
        """A random direction of every output: their covariances are what small errors cost, up to a factor.

        Args:
            answers: Outputs of the teacher.
            generator: Draws them.
        """
        return [
            loss.direction(answer.detach(), variance, generator, has_logits=has_logits)
            for loss, answer, variance, has_logits in zip(
                self.losses, answers, self._variances, self.has_logits, strict=True
            )
        ]

    def loss(self, found: Mapping[str, Tensor], wanted: Sequence[Tensor], temperature: float = 1.0) -> Tensor:
        """Divergence of one batch, over all outputs."""
        parts = [
            loss.value(found[name], answer, variance, has_logits=has_logits, temperature=temperature)
            for loss, name, answer, variance, has_logits in zip(
                self.losses, self.compared, wanted, self._variances, self.has_logits, strict=True
            )
        ]
        return torch.stack(parts).sum()

    def agreement(self, found: Mapping[str, Tensor], wanted: Sequence[Tensor]) -> float | None:
        """Share of classes two networks agree on, over all outputs that have any; None without."""
        same = [
            loss.same(found[name], answer)
            for loss, name, answer in zip(self.losses, self.compared, wanted, strict=True)
        ]
        known = [one for one in same if one is not None]
        return sum(known) / len(known) if known else None


def feed_size(dataset: Dataset, samples: int, held_out: float, most: int = BATCH) -> int:
    """Samples of a feed of `kept_batches`; the last may have fewer."""
    wanted = math.ceil(held_out * min(samples, len(dataset)))
    return dataset.fixed_batch or max(1, min(most, wanted))


def kept_batches(
    dataset: Dataset, samples: int, held_out: float, cancel: CancelToken, most: int = BATCH
) -> list[dict[str, Tensor]]:
    """The first samples as feeds of a few each, in memory: two feeds or more.

    Args:
        dataset: Where they are taken from.
        samples: How many, at most.
        held_out: Part of them that will only judge: a feed holds no more than that.
        cancel: Looked at between feeds.
        most: Most samples of a feed.

    Raises:
        DataError: there is one sample only, or all fit one batch of the model.
        JobCancelled: `cancel` was set.
    """
    count = min(samples, len(dataset))
    if count < 2:
        raise DataError(
            "one sample is not enough: some are trained on and others judge",
            hint=Hint("Give at least two samples, better some hundred", HintAction.CHOOSE_DATA),
        )
    feeds = []
    for batch in dataset.batches(feed_size(dataset, samples, held_out, most), stop=count):
        cancel.raise_if_set()
        feeds.append(_tensors(batch))
    if len(feeds) < 2:
        raise DataError(
            "all samples fit one batch of the model: some are to be trained on while others judge",
            hint=Hint("Give more samples", HintAction.CHOOSE_DATA),
        )
    return feeds


def _tensors(batch: Batch) -> dict[str, Tensor]:
    return {name: torch.tensor(array) for name, array in batch.feed.items()}


def _log_softmax(scores: Tensor, axis: int, temperature: float, *, has_logits: bool) -> Tensor:
    scores = scores.float()
    if not has_logits:
        scores = scores.clamp_min(_SMALLEST_PROBABILITY).log()
    return F.log_softmax(scores if temperature == 1.0 else scores / temperature, axis)


def _decision_divergence(found: Tensor, wanted: Tensor, *, has_logits: bool) -> Tensor:
    found, wanted = found.float(), wanted.float()
    if not has_logits:
        found, wanted = (
            torch.logit(one.clamp(_SMALLEST_DECISION, 1 - _SMALLEST_DECISION)) for one in (found, wanted)
        )
    share = torch.sigmoid(wanted)
    yes = F.logsigmoid(wanted) - F.logsigmoid(found)
    no = F.logsigmoid(-wanted) - F.logsigmoid(-found)
    return (share * yes + (1 - share) * no).mean()
