"""Cross-layer equalization: evens out the ranges of channels, so that one scale per weight loses less.

A factor per channel is moved from one layer into the next, which changes no output: the first layer's
channels are divided by it, the second's multiplied. Behind a Clip the limit moves along: one per channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.figures import counted
from quantstudio.engine.graph.channel_limits import mark_limit
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.names import NameSource
from quantstudio.engine.graph.protos import as_array, as_tensor
from quantstudio.engine.model.derive import derived_graph, editable_copy
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import setting, step
from quantstudio.engine.recovery.pairs import ChannelView, Pair, find_pairs

FloatArray = NDArray[np.float64]

# Factors closer to 1 than this are the noise of float32 weights.
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True, slots=True)
class EqualizeSettings:
    """How far ranges are evened out."""

    rounds: int = setting(
        100,
        "Maximum rounds",
        "A layer in a chain belongs to two pairs, so all pairs are gone through again until nothing moves.",
        low=1,
        high=10_000,
        unit="rounds",
    )
    tolerance: float = setting(
        1e-3,
        "Tolerance",
        "Stops when no factor changes by more than this fraction of itself.",
        low=1e-6,
        high=1.0,
    )
    max_factor: float = setting(
        1000.0,
        "Largest factor",
        "Channels next to zero would otherwise be blown up, and their biases with them.",
        low=1.0,
        high=1e6,
        unit="×",
    )
    exact_limits: bool = setting(
        default=False,
        label="Exact limits in integers",
        explanation="""After a Clip such as ReLU6 every channel gets a limit of its own. The integers of a
        tensor share one range, so static variants leave these limits out; when this is on they keep them, as
        a float Min that costs time.""",
    )


@step(
    name="equalize",
    label="Equalize layers",
    explanation="""Moves a factor per channel from one layer into the next, so that all channels of a weight
    have ranges of about the same size. The float network computes the same as before. It helps where one
    scale covers a whole weight, most of all in depthwise networks, whose channels differ by orders of
    magnitude; with one scale per channel there is little left to win. It needs no data and takes
    milliseconds.""",
    source="Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, "
    "arXiv:1906.04721, eq. 11",
    keeps_outputs=True,
)
def equalize(
    graph: Graph, context: StepContext, settings: EqualizeSettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with the ranges of its channels evened out; its float outputs stay what they were."""
    del context
    pairs = find_pairs(graph)
    model = editable_copy(graph)
    weights = {
        tensor.name: np.asarray(as_array(tensor), dtype=np.float64)
        for tensor in model.graph.initializer
        if any(tensor.name in (pair.out.weight, pair.into.weight) for pair in pairs)
    }
    before = [spread(pair, weights) for pair in pairs]
    found = factors(pairs, weights, settings, reporter, cancel)
    moved = [
        (pair, s)
        for pair, s in zip(pairs, found.factors, strict=True)
        if np.abs(np.log(s)).max(initial=0.0) > _NEGLIGIBLE
    ]
    if not moved:
        return StepOutcome(graph, "Found nothing to even out: the graph is as it was.", {"pairs": 0})
    limits = _write(model, moved, exact_limits=settings.exact_limits)
    after = [spread(pair, found.weights) for pair in pairs]
    summary = (
        f"Evened out {counted(len(moved), 'pair')} of layers: the widest channel was "
        f"{np.median(before):.3g} times the narrowest, and is {np.median(after):.3g} times now (median)."
    )
    if limits:
        summary += f" {counted(limits, 'limit')} became one per channel."
    result = derived_graph(graph, model, summary)
    details = {
        "pairs": len(moved),
        "rounds": found.rounds,
        "limits": limits,
        "largest_factor": float(max(np.exp(np.abs(np.log(s)).max()) for _, s in moved)),
        "spread_before": float(np.median(before)),
        "spread_after": float(np.median(after)),
        "layers": sorted({name for pair, _ in moved for name in (pair.first, pair.second)}),
    }
    return StepOutcome(result, summary, details)


@dataclass(frozen=True, slots=True)
class Factors:
    """What equalization came to.

    Attributes:
        factors: What the channels of each pair's first layer are divided by, shape [C] each.
        weights: Every weight with the factors of its pairs.
        rounds: Rounds it took.
    """

    factors: list[FloatArray]
    weights: dict[str, FloatArray]
    rounds: int


def factors(
    pairs: tuple[Pair, ...],
    weights: dict[str, FloatArray],
    settings: EqualizeSettings,
    reporter: Reporter,
    cancel: CancelToken,
) -> Factors:
    """The factors at which the ranges of every pair are equal, channel by channel.

    With r1 and r2 the ranges of a channel in the first and second layer, s = sqrt(r1 r2) / r2 makes both
    sqrt(r1 r2). (Nagel et al. 2019, eq. 11; a channel that is zero on either side stays as it is.)
    """
    logs = [np.zeros(pair.out.channels) for pair in pairs]
    now = dict(weights)
    limit = np.log(settings.max_factor)
    rounds = 0
    for rounds in range(1, settings.rounds + 1):
        largest = 0.0
        for position, pair in enumerate(pairs):
            cancel.raise_if_set()
            first, second = pair.out.ranges(now[pair.out.weight]), pair.into.ranges(now[pair.into.weight])
            alive = (first > 0) & (second > 0)
            wanted = np.zeros_like(first)
            np.log(np.divide(first, second, where=alive, out=np.ones_like(first)), out=wanted)
            moved = np.clip(logs[position] + wanted / 2, -limit, limit) - logs[position]
            largest = max(largest, float(np.abs(moved).max(initial=0.0)))
            logs[position] += moved
            now[pair.out.weight] = pair.out.scaled(now[pair.out.weight], np.exp(-moved))
            now[pair.into.weight] = pair.into.scaled(now[pair.into.weight], np.exp(moved))
        reporter.progress(rounds, settings.rounds, "rounds", "Equalizing")
        if largest < settings.tolerance:
            break
    return Factors([np.exp(log) for log in logs], now, rounds)


def spread(pair: Pair, weights: dict[str, FloatArray]) -> float:
    """How many times wider the widest channel of the first layer is than the narrowest that is not zero."""
    ranges = pair.out.ranges(weights[pair.out.weight])
    alive = ranges[ranges > 0]
    return float(alive.max() / alive.min()) if alive.size else 1.0


def _write(model: onnx.ModelProto, moved: list[tuple[Pair, FloatArray]], *, exact_limits: bool) -> int:
    """Put the factors into the model; how many Clip nodes got a limit per channel."""
    editor = _Editor(model)
    for pair, s in moved:
        editor.scale(pair.out, 1 / s)
        editor.scale(pair.into, s)
        if pair.bias:
            editor.scale_bias(pair.bias_node, pair.bias, 1 / s)
        for clip, rank in pair.limits:
            editor.limit_channels(clip, s, rank, exact=exact_limits)
    editor.finish()
    return sum(len(pair.limits) for pair, _ in moved)


class _Editor:
    """Collects edits of constants in double precision and rounds once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.names = NameSource(model)
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.nodes = {node.name: node for node in model.graph.node}
        self.values: dict[str, FloatArray] = {}
        self.readers: dict[str, int] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers[name] = self.readers.get(name, 0) + 1

    def value(self, name: str) -> FloatArray:
        """A constant as it stands now."""
        if name not in self.values:
            self.values[name] = np.asarray(as_array(self.tensors[name]), dtype=np.float64)
        return self.values[name]

    def scale(self, channels: ChannelView, s: FloatArray) -> None:
        """Scale a weight per channel."""
        self.values[channels.weight] = channels.scaled(self.value(channels.weight), s)

    def scale_bias(self, node: str, name: str, s: FloatArray) -> None:
        """Scale a bias per channel; one that others read, too, or that is one value for all gets a copy."""
        value = self.value(name)
        shape = value.shape if value.size == s.size else s.shape
        value = np.broadcast_to(value.reshape(-1), s.shape) * s
        if self.readers[name] > 1:
            reader, old = self.nodes[node], name
            name = self.names.fresh(f"{node}_bias")
            for position, read in enumerate(reader.input):
                if read == old:
                    reader.input[position] = name
        self.values[name] = value.reshape(shape)

    def limit_channels(self, clip: str, s: FloatArray, rank: int, *, exact: bool) -> None:
        """Make of Clip(x, 0, c) a Relu and a Min with c / s, which is what it was before x was divided."""
        node = self.nodes[clip]
        high = float(as_array(self.tensors[node.input[2]]).reshape(-1)[0])
        limits = (high / s).astype(np.float32).reshape(-1, *[1] * max(rank - 2, 0))
        name = self.names.fresh(f"{clip}_limits")
        self.graph.initializer.append(as_tensor(name, limits))
        output, inner = node.output[0], self.names.fresh(f"{node.output[0]}_relu")
        relu = onnx.helper.make_node("Relu", [node.input[0]], [inner], name=node.name)
        least = onnx.helper.make_node("Min", [inner, name], [output], name=self.names.fresh(f"{clip}_Min"))
        if not exact:
            mark_limit(least)
        position = next(i for i, one in enumerate(self.graph.node) if one.name == clip)
        node.CopyFrom(relu)
        self.graph.node.insert(position + 1, least)

    def finish(self) -> None:
        """Write the constants back in single precision."""
        for name, value in self.values.items():
            made = as_tensor(name, value.astype(np.float32))
            if name in self.tensors:
                self.tensors[name].CopyFrom(made)
            else:
                self.graph.initializer.append(made)
