"""Outlier channel splitting: shares the largest channels of a weight between two, its range shrinks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.figures import counted, percent
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import Granularity, Grid, Precision, integer_levels
from quantstudio.core.steps import Need, StepGroup
from quantstudio.core.target import target_named
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import as_array, as_tensor, attribute_value
from quantstudio.engine.graph.view import GraphView
from quantstudio.engine.model.derive import derived_graph, editable_copy
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import setting, step
from quantstudio.engine.recovery.pairs import Pair, find_pairs
from quantstudio.engine.recovery.rounded import rounded_weight

FloatArray = NDArray[np.float64]

# Squared error of a weight that is worth more channels.
_WORTH_IT = 0.98


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """How much may be added."""

    ratio: float = setting(
        0.05,
        "Largest growth",
        "Channels added to a layer, as a part of those it has; size and time grow with them.",
        low=0.001,
        high=1.0,
    )


@step(
    name="split",
    label="Split outlier channels",
    explanation="""The largest weight decides the step of all that share its scale. An input channel that
    holds such weights is read twice, each time with half of them, and the layer before writes it twice;
    outputs stay what they were. The halves are a part of a step apart, so that they do not round the
    same way. A layer is split as long as the error of its rounded weights falls. It is for one scale a
    weight, below 8 bits, where a few weights stand out; trained with batch normalisation few networks
    have them (a residual one on Fashion-MNIST: 0.01 dB at 4 bits). Layers grow by up to the given part.""",
    source="Zhao et al. 2019, Improving Neural Network Quantization without Retraining using Outlier Channel "
    "Splitting, arXiv:1901.09504, eq. 6 and section 3.3",
    needs=(Need.PLAN,),
    group=StepGroup.PREPARE,
    keeps_outputs=True,
)
def split_outliers(
    graph: Graph, context: StepContext, settings: SplitSettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with channels of large weights split; its float outputs stay what they were.

    Raises:
        BuildError: a weight holds NaN or infinity.
        JobCancelled: `cancel` was set; it is looked at before every layer.
    """
    model, view = editable_copy(graph), GraphView(graph.proto)
    layers = {layer.name: layer for layer in graph.layers}
    pairs = [pair for pair in find_pairs(graph) if _can_split(pair, layers[pair.second], view, context.plan)]
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    added: dict[str, int] = {}
    left: dict[str, float] = {}
    for position, pair in enumerate(pairs):
        cancel.raise_if_set()
        reporter.progress(position, len(pairs), "layers", f"Splitting {pair.second}")
        weight = np.asarray(as_array(tensors[pair.into.weight]), dtype=np.float32)
        found = _split(weight, _input_side(pair, view), layers[pair.second], context.plan, settings.ratio)
        if found is None:
            continue
        tensors[pair.into.weight].CopyFrom(as_tensor(pair.into.weight, found.weight))
        _repeat_outputs(tensors, pair, found.sources)
        added[pair.second], left[pair.second] = len(found.sources) - pair.out.channels, found.left
    details = {"layers": len(added), "added": added, "error_left": left}
    if not added:
        return StepOutcome(
            graph,
            f"Of {counted(len(pairs), 'layer')} none gains from splitting: the graph is as it was.",
            details,
        )
    median = percent(float(np.median(list(left.values()))), 0)
    summary = (
        f"Split {counted(sum(added.values()), 'channel')} of {counted(len(added), 'layer')}: the squared "
        f"error of their rounded weights is {median} of what it was (median)."
    )
    return StepOutcome(derived_graph(graph, model, summary), summary, details)


@dataclass(frozen=True, slots=True)
class _Side:
    """How the input channels lie in a weight.

    Attributes:
        axis: Axis they run along.
        repeats: Rows of one channel next to each other.
    """

    axis: int
    repeats: int

    def rows(self, weight: FloatArray) -> FloatArray:
        """A row a channel, [C, ...]."""
        moved = np.moveaxis(weight, self.axis, 0)
        return moved.reshape(moved.shape[0] // self.repeats, -1)

    def weight(self, rows: FloatArray, like: NDArray[np.floating[Any]]) -> FloatArray:
        """The way back, for as many channels as there are now."""
        others = np.moveaxis(like, self.axis, 0).shape[1:]
        return np.moveaxis(rows.reshape(-1, *others), 0, self.axis)


@dataclass(frozen=True, slots=True)
class _Found:
    """A weight with channels split.

    Attributes:
        weight: With the halves at its end.
        sources: Which channel each of its channels is, [C + added].
        left: Squared error of the rounded weight over what it was.
    """

    weight: NDArray[np.float32]
    sources: NDArray[np.int64]
    left: float


def _can_split(pair: Pair, second: LayerInfo, view: GraphView, plan: EffectivePlan) -> bool:
    nodes = {node.name: node for node in view.nodes}
    both = (nodes[pair.first], nodes[pair.second])
    scheme = plan.schemes[pair.second]
    if scheme.weights.grid is not Grid.UNIFORM or scheme.granularity is Granularity.PER_GROUP:
        return False
    if any(node.op_type == "ConvTranspose" or attribute_value(node, "group", 1) != 1 for node in both):
        return False
    if pair.bias and len(view.consumers[pair.bias]) > 1:
        return False
    return second.channel_axis is not None and not _is_reshaped(both[0], pair.second, view)


def _is_reshaped(first: onnx.NodeProto, second: str, view: GraphView) -> bool:
    """Whether a Reshape on the way states how many channels there are."""
    node = first
    while node.name != second:
        node = view.consumers[node.output[0]][0]
        if node.op_type == "Reshape":
            return True
    return False


def _input_side(pair: Pair, view: GraphView) -> _Side:
    node = next(node for node in view.nodes if node.name == pair.second)
    if node.op_type == "Conv":
        return _Side(1, 1)
    axis = 1 if node.op_type == "Gemm" and attribute_value(node, "transB", 0) else 0
    return _Side(axis, view.main.constants[pair.into.weight].dims[axis] // pair.into.channels)


def _split(
    weight: NDArray[np.float32], side: _Side, layer: LayerInfo, plan: EffectivePlan, ratio: float
) -> _Found | None:
    """The weight with the channels split whose halves round best; None where that gains nothing."""

    def error(rows: FloatArray, sources: NDArray[np.int64]) -> float:
        """Squared error of what the copies of each channel come to together."""
        made = rounded_weight(side.weight(rows, weight).astype(np.float32), layer, plan)
        if made is None:
            return math.inf
        total = np.zeros_like(before)
        np.add.at(total, sources, side.rows(made.astype(np.float64)))
        return float(np.sum((total - before) ** 2))

    before = side.rows(weight.astype(np.float64))
    rows, sources = before, np.arange(len(before))
    plain = least = error(rows, sources)
    best: tuple[FloatArray, NDArray[np.int64]] | None = None
    for _ in range(max(1, int(ratio * len(before)))):
        rows, sources = _halved(rows, sources, _steps_of(side, weight, layer, plan))
        now = error(rows, sources)
        if now < least:
            best, least = (rows, sources), now
    if best is None or not least < plain * _WORTH_IT:
        return None
    made = np.ascontiguousarray(side.weight(best[0], weight), dtype=np.float32)
    return _Found(made, best[1], least / plain)


def _halved(
    rows: FloatArray, sources: NDArray[np.int64], step_of: Callable[[FloatArray], FloatArray]
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Split the channel with the weight that is largest on its grid."""
    steps = step_of(rows)
    worst = int(np.abs(rows / steps).max(axis=1).argmax())
    apart = np.broadcast_to(steps, rows.shape)[worst] / 4
    # Halves that were alike would round the same way, and their errors add up (Zhao et al., eq. 6).
    low, high = rows[worst] / 2 - apart, rows[worst] / 2 + apart
    made = np.concatenate([rows, high[None]])
    made[worst] = low
    return made, np.append(sources, sources[worst])


def _steps_of(
    side: _Side, weight: NDArray[np.float32], layer: LayerInfo, plan: EffectivePlan
) -> Callable[[FloatArray], FloatArray]:
    """The step of the grid at every weight, for rows as they are at a time."""
    scheme = plan.schemes[layer.name]
    bits = Precision.INT8.bits if scheme.is_weight_only else target_named(plan.target).weight_bits
    high = max(integer_levels(scheme.weights, bits)[1], 1)

    def of(rows: FloatArray) -> FloatArray:
        whole = np.abs(side.weight(rows, weight))
        if scheme.granularity is Granularity.PER_TENSOR or layer.channel_axis is None:
            return np.full((1, 1), max(float(whole.max()), 1e-30) / high)
        axis = layer.channel_axis % whole.ndim
        others = tuple(one for one in range(whole.ndim) if one != axis)
        widest = np.maximum(whole.max(axis=others, keepdims=True), 1e-30) / high
        return side.rows(np.ascontiguousarray(np.broadcast_to(widest, whole.shape)))

    return of


def _repeat_outputs(tensors: dict[str, onnx.TensorProto], pair: Pair, sources: NDArray[np.int64]) -> None:
    """Let the first layer write each channel as often as it is read now."""
    axis = pair.out.axes[0]
    weight = as_array(tensors[pair.out.weight])
    tensors[pair.out.weight].CopyFrom(as_tensor(pair.out.weight, np.take(weight, sources, axis=axis)))
    if pair.bias and as_array(tensors[pair.bias]).size > 1:
        bias = as_array(tensors[pair.bias])
        tensors[pair.bias].CopyFrom(as_tensor(pair.bias, np.take(bias, sources, axis=-1)))
