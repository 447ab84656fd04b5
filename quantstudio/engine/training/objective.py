"""What a training is after: labels, the original network's answers, or both; and how it is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from quantstudio.core.errors import DataError, RecipeError
from quantstudio.core.events import CancelToken
from quantstudio.core.hints import Hint, HintAction
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.evaluation.judging import graph_reading
from quantstudio.engine.evaluation.reading import Reading
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.view import GraphView
from quantstudio.engine.recovery.distillation import Distillation, losses_of
from quantstudio.engine.torch_graph.module import TorchGraph
from quantstudio.engine.training.losses import LabelLoss, Own, label_loss, own_loss, own_value
from quantstudio.engine.training.samples import Feed, Picked

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be learned.

    Attributes:
        teacher: Part of the teacher's answers beside the labels.
        temperature: Of these.
        features: Nodes whose outputs are compared as well.
        loss: The user's own loss, `module:callable`; empty without.
        needs_labels: Whether labels are what it is about.
    """

    teacher: float = 1.0
    temperature: float = 1.0
    features: tuple[str, ...] = ()
    loss: str = ""
    needs_labels: bool = False


class Objective:
    """The loss of a batch, and the share of right answers.

    Args:
        graph: The network that is trained.
        original: The network it is to answer as.
        dataset: The samples.
        wanted: What is to be learned.
        device: Where the teacher computes.
        cancel: Looked at while outputs are read.

    Attributes:
        outputs: Tensors of the student the loss is made of.
        uses_labels: Whether labels count.
        is_distilled: Whether the teacher is asked.
        judges_by_labels: Whether `right` goes by the labels, and not by the original network's answers.

    Raises:
        DataError: labels are asked for and there are none that fit.
        RecipeError: a feature is not in both networks.
        MeasureError: no output holds float numbers, or the model does not run on the data.
        TrustRequiredError: the user's loss is not trusted.
    """

    def __init__(
        self,
        graph: Graph,
        original: Graph,
        dataset: Dataset,
        wanted: Wanted,
        device: torch.device,
        cancel: CancelToken,
    ) -> None:
        self._wanted = wanted
        self._own: Own | None = own_loss(wanted.loss, trusted=dataset.trusted)
        reading = graph_reading(original, dataset, cancel)
        self._distillation = Distillation(losses_of(reading), original.proto, graph.proto)
        self._labels = self._label_loss(reading, dataset)
        self.uses_labels = self._own is not None or (self._labels is not None and wanted.teacher < 1)
        if wanted.needs_labels and not self.uses_labels and wanted.teacher < 1 and dataset.labels is not None:
            raise DataError(
                "the labels are no targets of this network's outputs",
                hint=Hint("Train without labels, or say what the outputs mean", HintAction.CHOOSE_DATA),
            )
        self.judges_by_labels = self._labels is not None
        share = wanted.teacher if self.uses_labels else 1.0
        self._share = share if self._own is None else 0.0
        self.is_distilled = self._share > 0 or bool(wanted.features)
        self._features = _features(wanted.features, original, graph)
        teacher_outputs = [*self._distillation.wanted, *self._features]
        self._teacher = TorchGraph(original.proto, teacher_outputs).to(device)
        own = graph.proto.graph.output if self._own is not None else ()
        self.outputs = tuple(
            dict.fromkeys([*self._distillation.compared, *self._features, *(one.name for one in own)])
        )
        self._own_outputs = tuple(one.name for one in own)
        self._judged = self._distillation.compared[_place_of(reading, self._distillation)]
        self._scales: list[float] = []

    def _label_loss(self, reading: Reading, dataset: Dataset) -> LabelLoss | None:
        place = _place_of(reading, self._distillation)
        return label_loss(
            reading,
            dataset,
            self._distillation.compared[place],
            is_probability=not self._distillation.has_logits[place],
        )

    def answers(self, feed: Feed) -> list[Tensor]:
        """What the original network says of a batch, and its features."""
        asked = {name: feed[name] for name in self._teacher.input_names if name in feed}
        names = [*self._distillation.wanted, *self._features]
        with torch.no_grad():
            found = self._teacher.run(asked, names)
        return [found[name] for name in names]

    def set_scale(self, answers: Sequence[Sequence[Tensor]]) -> None:
        """Take the spread of outputs and features from some of the teacher's answers."""
        count = len(self._distillation.wanted)
        self._distillation.set_scale([one[:count] for one in answers])
        self._scales = [
            max(float(torch.cat([one[place].flatten() for one in answers]).var(correction=0)), 1e-12)
            for place in range(count, count + len(self._features))
        ]

    def loss(self, found: Mapping[str, Tensor], answers: Sequence[Tensor], picked: Picked) -> Tensor:
        """Of one batch, averaged over its samples.

        Raises:
            MeasureError: the user's loss fails.
        """
        if self._own is not None:
            outputs = {name: found[name] for name in self._own_outputs}
            return own_value(self._own, self._wanted.loss, outputs, picked.labels)
        parts: list[Tensor] = []
        if self._share < 1 and self._labels is not None and picked.labels is not None:
            parts.append((1 - self._share) * self._labels.value(found, picked.labels))
        if self._share > 0:
            count = len(self._distillation.wanted)
            told = self._distillation.loss(found, answers[:count], self._wanted.temperature)
            parts.append(self._share * told)
        for place, (name, scale) in enumerate(zip(self._features, self._scales, strict=True)):
            answer = answers[len(self._distillation.wanted) + place]
            parts.append((found[name] - answer).square().mean() / (2 * scale))
        return torch.stack(parts).sum()

    def right(self, found: Mapping[str, Tensor], answers: Sequence[Tensor], picked: Picked) -> float | None:
        """Share of right answers in a batch: as the labels say, else as the original network says."""
        if self._labels is not None and picked.labels is not None:
            return self._labels.right(found, picked.labels)
        return self._distillation.agreement(found, answers[: len(self._distillation.wanted)])

    def float_right(self, answers: Sequence[Tensor], picked: Picked) -> float | None:
        """The same of the original network."""
        found = dict(zip(self._distillation.compared, answers, strict=False))
        return self.right(found, answers, picked)


def _place_of(reading: Reading, distillation: Distillation) -> int:
    names = [loss.name for loss in distillation.losses]
    judged = [name for name in reading.judgement.outputs if name in names]
    return names.index(judged[0]) if judged else 0


def _features(nodes: Sequence[str], original: Graph, graph: Graph) -> tuple[str, ...]:
    """The tensors that nodes write in both networks."""
    found = []
    views = GraphView(original.proto), GraphView(graph.proto)
    for name in nodes:
        outputs = [next((one.output[0] for one in view.nodes if one.name == name), None) for view in views]
        if outputs[0] is None or outputs[0] != outputs[1]:
            raise RecipeError(
                f"there is no node {name!r} in both networks",
                hint="Name nodes whose outputs the original network and the trained one have in common",
            )
        shapes = [view.shapes.get(str(outputs[0])) for view in views]
        if shapes[0] != shapes[1]:
            raise RecipeError(
                f"the output of {name!r} has other shapes in the two networks",
                hint="Compare nodes that were not made narrower",
            )
        found.append(str(outputs[0]))
    return tuple(found)
