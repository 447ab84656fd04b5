"""How far a network's outputs moved: KL divergence for classifiers, normalised squared error for the rest.

Both are a KL divergence between output distributions: of the class probabilities, or of Gaussians with unit
variance around outputs that were divided by their standard deviation over the data (1/2 * squared distance).
So sensitivities of any network are in nats, add up over layers, and have one second-order form: the output's
Gauss-Newton matrix.
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
from quantstudio.engine.graph.graph import Graph

Array = NDArray[np.generic]
Scores = NDArray[np.float64]

_FLOAT_TYPES = ("float32", "float64", "float16", "bfloat16")

# What only writes scores in another form, such as [N, C] as [N, C, 1, 1].
_RESHAPES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})

# Below this a probability is rounding noise of a float32 softmax.
_SMALLEST_PROBABILITY = 1e-12


class OutputKind(StrEnum):
    """What a network's outputs mean."""

    CLASSES = "classes"
    VALUES = "values"


@dataclass(frozen=True, slots=True)
class Objective:
    """Which outputs are compared, and how.

    Attributes:
        kind: Class scores, or plain values.
        outputs: Graph outputs compared.
        tensors: The tensor of each output that carries logits or values; the input of a last Softmax where
            there is one, so that it can be differentiated without dividing by tiny probabilities.
        is_probability: Whether the graph output itself is a probability (behind a Softmax).
        class_axis: Axis of the classes in the tensor of a class output, counted from the end.
    """

    kind: OutputKind
    outputs: tuple[str, ...]
    tensors: tuple[str, ...]
    is_probability: bool = False
    class_axis: int = -1


def objective_of(graph: Graph, labels: NDArray[np.int64] | NDArray[np.float32] | None) -> Objective:
    """What to compare for this graph.

    Class scores when the labels are classes, a Softmax comes last, or (without labels) the only float output
    has at least two values on its last axis or is [N, classes, 1, ...]; otherwise values, all float outputs
    together. With class labels and several outputs the first float output counts. Scores of rank 4 and more
    are taken as [N, classes, H, W], others as [..., classes].

    Raises:
        MeasureError: no output holds float numbers.
    """
    floats = [output for output in graph.summary.outputs if output.dtype in _FLOAT_TYPES]
    if not floats:
        raise MeasureError(
            "no output of the model holds float numbers, so there is nothing to compare",
            hint="A form of it without the ArgMax or Cast at its end is needed",
        )
    producers = {name: node for node in graph.proto.graph.node for name in node.output}
    first = floats[0]
    shape: Sequence[int | str | None] = first.shape
    name = first.name
    classes = _flat_classes(shape)
    if classes is not None:
        shape, name = _behind_reshapes(graph.proto.graph, producers, name, shape, classes)
    softmax = producers.get(name)
    if softmax is not None and softmax.op_type != "Softmax":
        softmax = None
    has_classes = labels is not None and np.issubdtype(labels.dtype, np.integer)
    last = first.shape[-1] if first.shape else None
    looks_like_scores = len(floats) == 1 and (classes is not None or (isinstance(last, int) and last >= 2))
    if softmax is not None or has_classes or (labels is None and looks_like_scores):
        rank = len(shape)
        is_second = rank >= 4 or classes is not None
        axis = _softmax_axis(softmax, rank) if softmax is not None else (1 - rank if is_second else -1)
        tensor = softmax.input[0] if softmax is not None else name
        return Objective(OutputKind.CLASSES, (first.name,), (tensor,), softmax is not None, axis)
    names = tuple(output.name for output in floats)
    return Objective(OutputKind.VALUES, names, names)


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
        return log_softmax(np.log(np.maximum(moved, _SMALLEST_PROBABILITY)))
    return log_softmax(moved)


class SpreadTally:
    """Standard deviation of each output over the data, batch by batch."""

    def __init__(self, outputs: int) -> None:
        self._count = np.zeros(outputs)
        self._mean = np.zeros(outputs)
        self._squares = np.zeros(outputs)

    def add(self, outputs: Sequence[Array]) -> None:
        """Count the values of one batch.

        Source: Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", eq. (1.5): sums of
        squares would lose everything where the mean is large against the spread.
        """
        for i, output in enumerate(outputs):
            values = np.asarray(output, dtype=np.float64)
            if not values.size:
                continue
            mean, before = float(values.mean()), self._count[i]
            total = before + values.size
            shift = mean - self._mean[i]
            self._squares[i] += (
                float(np.square(values - mean).sum()) + shift**2 * before * values.size / total
            )
            self._mean[i] += shift * values.size / total
            self._count[i] = total

    def deviations(self) -> tuple[float, ...]:
        """One per output; 1 for a constant one."""
        found = np.sqrt(self._squares / np.maximum(self._count, 1))
        return tuple(float(deviation) if deviation > 0 else 1.0 for deviation in found)


def output_deviations(outputs: Sequence[Array]) -> tuple[float, ...]:
    """Standard deviation of each value output over the data; 1 for a constant one."""
    tally = SpreadTally(len(outputs))
    tally.add(outputs)
    return tally.deviations()


def divergence(
    base: Sequence[Array], other: Sequence[Array], objective: Objective, deviations: Sequence[float] = ()
) -> Scores:
    """Divergence of each sample's outputs, nats, [N]; the mean over positions for outputs that have several.

    Args:
        base: FP32 outputs, samples first.
        other: Outputs of the changed network, same shapes.
        objective: What the outputs are.
        deviations: From `output_deviations` of the base; only for values.

    Returns:
        KL(base || other) of the class probabilities, or half the squared distance in standard deviations,
        averaged over the values of a sample and summed over outputs.
    """
    if objective.kind is OutputKind.CLASSES:
        p, q = log_probabilities(base[0], objective), log_probabilities(other[0], objective)
        per_position = kl_divergence(p, q)
        return np.asarray(per_position.reshape(len(per_position), -1).mean(axis=1))
    total = np.zeros(len(base[0]))
    for a, b, deviation in zip(base, other, deviations, strict=True):
        distance = (np.asarray(b, np.float64) - np.asarray(a, np.float64)) / deviation
        total += 0.5 * np.square(distance).reshape(len(distance), -1).mean(axis=1)
    return total


def predicted_classes(scores: Array, objective: Objective) -> NDArray[np.int64]:
    """Class with the highest score, per sample and position."""
    return np.asarray(np.asarray(scores).argmax(axis=class_axis(scores, objective)), dtype=np.int64)
