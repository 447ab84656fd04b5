"""How far a network's outputs moved, in nats: by what its outputs mean.

* Class scores, for each sample, position or pixel: KL divergence of the class probabilities.
* Values that are yes or no, each for itself: KL divergence of each probability, averaged.
* Everything else (numbers, vectors, boxes, signals, what nobody knows): half the squared error in standard
  deviations of the output over the data. Of boxes, coordinates and scores each have their own deviation:
  pixels would drown shares.

All are a KL divergence between output distributions; the last of Gaussians with unit variance around outputs
that were divided by their standard deviation. So sensitivities of any network are in nats, add up over
layers, and have one second-order form: the output's Gauss-Newton matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import onnx
from numpy.typing import NDArray

from quantstudio.core.distributions import kl_divergence, log_softmax
from quantstudio.core.errors import MeasureError
from quantstudio.core.events import CancelToken, never_cancelled
from quantstudio.engine.evaluation.judging import graph_reading
from quantstudio.engine.evaluation.outputs import Meaning
from quantstudio.engine.evaluation.probe import DatasetLike
from quantstudio.engine.evaluation.reading import Kind, Reading
from quantstudio.engine.evaluation.sample_axis import SampleAxis
from quantstudio.engine.graph.graph import Graph

Array = NDArray[np.generic]
Scores = NDArray[np.float64]
Deviation = float | Scores

# What only writes scores in another form, such as [N, C] as [N, C, 1, 1].
_RESHAPES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})

# Below this a probability is rounding noise of a float32 softmax.
SMALLEST_PROBABILITY = 1e-12
# And of a float32 Sigmoid, near either end.
SMALLEST_DECISION = 1e-7
FIRST = SampleAxis(0)


class OutputKind(StrEnum):
    """What a network's outputs mean."""

    CLASSES = "classes"
    DECISIONS = "decisions"
    VALUES = "values"


@dataclass(frozen=True, slots=True)
class Objective:
    """Which outputs are compared, and how.

    Attributes:
        kind: Class scores, yes or no value by value, or plain values.
        outputs: Graph outputs compared.
        tensors: The tensor of each output that carries logits or values; the input of a last Softmax or
            Sigmoid where there is one, so that it can be differentiated without dividing by tiny
            probabilities.
        is_probability: Whether the graph output itself is a probability.
        class_axis: Axis of the classes in the tensor of a class output, counted from the end.
        axes: Where the samples are in each output.
        has_logits: Whether the tensors hold logits, also where outputs are probabilities.
        split: Of boxes with their scores in one table: axis of the numbers of a candidate, counted from the
            end, and how many of them are the box.
    """

    kind: OutputKind
    outputs: tuple[str, ...]
    tensors: tuple[str, ...]
    is_probability: bool = False
    class_axis: int = -1
    axes: tuple[SampleAxis, ...] = ()
    has_logits: bool = True
    split: tuple[int, int] | None = None

    def axis(self, position: int) -> SampleAxis:
        """Where the samples are in one output."""
        return self.axes[position] if self.axes else FIRST

    @property
    def has_whole_outputs(self) -> bool:
        """Whether an output carries no sample axis, so that feeds must be single samples."""
        return any(axis.axis < 0 for axis in self.axes)

    @property
    def key(self) -> str:
        """Tells results kept under it from those of outputs that are read in another way."""
        axes = [(axis.axis, axis.fold) for axis in self.axes]
        form = (self.is_probability, self.class_axis, self.split, self.has_logits)
        return f"{self.kind} {self.outputs} {axes} {form}"

    def rows(self, position: int, output: Array, held: int, count: int) -> Array:
        """One output with samples first; scores of one class a sample as [count, classes].

        Raises:
            MeasureError: its axis does not hold the samples.
        """
        found = self.axis(position).rows(output, held, count, self.outputs[position])
        return class_rows(found) if self.kind is OutputKind.CLASSES else found


def objective_of(graph: Graph, dataset: DatasetLike, cancel: CancelToken | None = None) -> Objective:
    """What to compare for this graph: what its outputs mean, judged as a comparison judges them.

    Raises:
        MeasureError: no output holds float numbers, or the model does not run on the data.
        JobCancelled: `cancel` was set.
    """
    return objective_from(graph, graph_reading(graph, dataset, cancel or never_cancelled()))


def objective_from(graph: Graph, reading: Reading) -> Objective:
    """What to compare where outputs are read in this way.

    Raises:
        MeasureError: no output holds float numbers.
    """
    form = reading.form
    if reading.kind is Kind.DECISIONS or (form is not None and form.binary):
        is_probability = reading.is_probability if form is None else form.probabilities
        return _decisions(graph, reading, is_probability)
    if reading.kind is Kind.MASKS and reading.output in reading.floats:
        if reading.class_axis == 0:
            return _decisions(graph, reading, reading.is_probability)
        # Counted from the end, as [N, C, H, W] or [N, H, W, C] with samples first.
        return _classes(graph, reading, reading.class_axis - 4, reading.is_probability)
    if form is not None and form.meaning in (Meaning.CLASSES, Meaning.TOKENS):
        return _classes(graph, reading, -1, form.probabilities)
    names = tuple(name for name in reading.judgement.outputs if name in reading.floats) or reading.floats
    if not names:
        raise MeasureError(
            "no output of the model holds float numbers, so there is nothing to compare",
            hint="A form of it without the ArgMax or Cast at its end is needed",
        )
    axes = tuple(reading.axes[name] for name in names)
    split = None
    head = reading.head
    if head is not None and head.scores == head.boxes:
        split = (-2 if head.channels_first else -1, 4)
    return Objective(OutputKind.VALUES, names, names, axes=axes, split=split)


def _classes(graph: Graph, reading: Reading, class_axis: int, is_probability: bool) -> Objective:
    name, axis = reading.output, reading.axes[reading.output]
    producers = {one: node for node in graph.proto.graph.node for one in node.output}
    info = next(output for output in graph.summary.outputs if output.name == name)
    shape: Sequence[int | str | None] = info.shape
    tensor = name
    classes = _flat_classes(shape)
    if classes is not None and axis == FIRST:
        shape, tensor = _behind_reshapes(graph.proto.graph, producers, name, shape, classes)
        class_axis = 1 - len(shape)
    softmax = producers.get(tensor)
    if softmax is not None and softmax.op_type == "Softmax":
        axis_of = _softmax_axis(softmax, len(shape))
        return Objective(OutputKind.CLASSES, (name,), (softmax.input[0],), True, axis_of, (axis,))
    # Probabilities that no Softmax of the graph makes, at least none in this form, have no logits.
    return Objective(
        OutputKind.CLASSES, (name,), (tensor,), is_probability, class_axis, (axis,), not is_probability
    )


def _decisions(graph: Graph, reading: Reading, is_probability: bool) -> Objective:
    producers = {one: node for node in graph.proto.graph.node for one in node.output}
    names = tuple(name for name in reading.judgement.outputs if name in reading.floats)
    axes = tuple(reading.axes[name] for name in names)
    tensors = []
    for name, axis in zip(names, axes, strict=True):
        node = producers.get(name)
        while node is not None and node.op_type in _RESHAPES and axis == FIRST:
            node = producers.get(node.input[0])
        tensors.append(node.input[0] if node is not None and node.op_type == "Sigmoid" else name)
    has_logits = not is_probability or all(t not in names for t in tensors)
    return Objective(
        OutputKind.DECISIONS,
        names,
        tuple(tensors) if has_logits else names,
        is_probability,
        -1,
        axes,
        has_logits,
    )


def _flat_classes(shape: Sequence[int | str | None]) -> int | None:
    """Classes of scores [N, classes, 1, ...]; None for another form."""
    if len(shape) < 2 or not isinstance(shape[1], int) or shape[1] < 2 or any(n != 1 for n in shape[2:]):
        return None
    return shape[1]


def _behind_reshapes(
    graph: onnx.GraphProto,
    producers: Mapping[str, onnx.NodeProto],
    name: str,
    shape: Sequence[int | str | None],
    classes: int,
) -> tuple[Sequence[int | str | None], str]:
    """The first tensor with these scores, before operators that only write them in another form."""
    known = {value.name: value.type.tensor_type.shape.dim for value in graph.value_info}
    while (node := producers.get(name)) is not None and node.op_type in _RESHAPES:
        before = [dim.dim_value or None for dim in known.get(node.input[0], ())]
        if _flat_classes(before) != classes:
            break
        shape, name = before, node.input[0]
    return shape, name


def class_rows(output: Array) -> Array:
    """A class output [N, C, 1, ...] as [N, C]; one of another form as it is."""
    is_flat = output.ndim > 2 and output.shape[1] > 1 and all(size == 1 for size in output.shape[2:])
    return output.reshape(output.shape[:2]) if is_flat else output


def class_axis(scores: Array, objective: Objective) -> int:
    """Axis of the classes in scores, which may be rows of them by now."""
    return -1 if scores.ndim == 2 else objective.class_axis


def _softmax_axis(node: onnx.NodeProto, rank: int) -> int:
    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), -1)
    return axis if axis < 0 else axis - rank


def log_probabilities(scores: Array, objective: Objective) -> Scores:
    """Log-probabilities with the classes last, float64.

    Args:
        scores: A class output of the graph: logits, or probabilities.
        objective: Says which, and the class axis.
    """
    moved = np.moveaxis(np.asarray(scores, dtype=np.float64), class_axis(scores, objective), -1)
    if objective.is_probability:
        # A float32 softmax sums to 1 within 1e-7 only: unnormalised, that much divergence would be noise, and
        # below zero as often as above.
        return log_softmax(np.log(np.maximum(moved, SMALLEST_PROBABILITY)))
    return log_softmax(moved)


class SpreadTally:
    """Standard deviation of each output over the data, batch by batch."""

    def __init__(self, outputs: int, split: tuple[int, int] | None = None) -> None:
        self._split = split
        parts = outputs * (1 if split is None else 2)
        self._count = np.zeros(parts)
        self._mean = np.zeros(parts)
        self._squares = np.zeros(parts)
        self._shapes: list[tuple[int, ...]] = [()] * outputs

    def add(self, outputs: Sequence[Array]) -> None:
        """Count the values of one batch, samples first.

        Source: Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", eq. (1.5): sums of
        squares would lose everything where the mean is large against the spread.
        """
        for i, output in enumerate(outputs):
            self._shapes[i] = tuple(output.shape)
            if self._split is None:
                self._add_part(i, output)
            else:
                boxes, scores = np.split(output, [self._split[1]], axis=self._split[0])
                self._add_part(2 * i, boxes)
                self._add_part(2 * i + 1, scores)

    def _add_part(self, i: int, output: Array) -> None:
        values = np.asarray(output, dtype=np.float64)
        if not values.size:
            return
        mean, before = float(values.mean()), self._count[i]
        total = before + values.size
        shift = mean - self._mean[i]
        self._squares[i] += float(np.square(values - mean).sum()) + shift**2 * before * values.size / total
        self._mean[i] += shift * values.size / total
        self._count[i] = total

    def deviations(self) -> tuple[Deviation, ...]:
        """One per output, 1 for a constant one; of boxes and scores in one table an array that fits it."""
        found = np.sqrt(self._squares / np.maximum(self._count, 1))
        found[found == 0] = 1.0
        if self._split is None:
            return tuple(found.tolist())
        axis, boxes = self._split
        tables = []
        for i, shape in enumerate(self._shapes):
            size = shape[axis]
            one = np.where(np.arange(size) < boxes, found[2 * i], found[2 * i + 1])
            tables.append(one.reshape(size, *[1] * (-1 - axis)))
        return tuple(tables)


def output_deviations(
    outputs: Sequence[Array], split: tuple[int, int] | None = None
) -> tuple[Deviation, ...]:
    """Standard deviation of each value output over the data, samples first; see `SpreadTally.deviations`."""
    tally = SpreadTally(len(outputs), split)
    tally.add(outputs)
    return tally.deviations()


def divergence(
    base: Sequence[Array], other: Sequence[Array], objective: Objective, deviations: Sequence[Deviation] = ()
) -> Scores:
    """Divergence of each sample's outputs, nats, [N]; the mean over positions for outputs that have several.

    Args:
        base: FP32 outputs, samples first.
        other: Outputs of the changed network, same shapes.
        objective: What the outputs are.
        deviations: From `output_deviations` of the base; only for values.

    Returns:
        KL(base || other) of the class probabilities, or of each yes or no, or half the squared distance in
        standard deviations; averaged over the values of a sample and summed over outputs.
    """
    if objective.kind is OutputKind.CLASSES:
        p, q = log_probabilities(base[0], objective), log_probabilities(other[0], objective)
        per_position = kl_divergence(p, q)
        return np.asarray(per_position.reshape(len(per_position), -1).mean(axis=1))
    total = np.zeros(len(base[0]))
    if objective.kind is OutputKind.DECISIONS:
        for a, b in zip(base, other, strict=True):
            each = _decision_divergence(*(_shares(x, objective) for x in (a, b)))
            total += each.reshape(len(each), -1).mean(axis=1)
        return total
    for a, b, deviation in zip(base, other, deviations, strict=True):
        distance = (np.asarray(b, np.float64) - np.asarray(a, np.float64)) / deviation
        total += 0.5 * np.square(distance).reshape(len(distance), -1).mean(axis=1)
    return total


def _shares(values: Array, objective: Objective) -> Scores:
    """Probability of each yes."""
    x = np.asarray(values, dtype=np.float64)
    found = x if objective.is_probability else 1 / (1 + np.exp(-np.clip(x, -80, 80)))
    return np.asarray(np.clip(found, SMALLEST_DECISION, 1 - SMALLEST_DECISION))


def _decision_divergence(p: Scores, q: Scores) -> Scores:
    return np.asarray(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))


def predicted_classes(scores: Array, objective: Objective) -> NDArray[np.int64]:
    """Class with the highest score, per sample and position."""
    return np.asarray(np.asarray(scores).argmax(axis=class_axis(scores, objective)), dtype=np.int64)
