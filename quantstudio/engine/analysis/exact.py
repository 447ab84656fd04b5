"""Exact sensitivity: one layer at a time really quantized and run in ONNX Runtime, no approximation.

Weights are replaced by overriding the initializer of one model file, which saves copying and serialising
the model for every layer. Activations get a fake-quantizer written in plain float operators in front of the
layer, so that no optimizer can turn it into something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from quantstudio.core.affine import IntegerGrid, affine_qparams
from quantstudio.core.errors import MeasureError
from quantstudio.core.events import CancelToken
from quantstudio.core.layers import LayerInfo
from quantstudio.engine.analysis.divergence import (
    Array,
    Objective,
    OutputKind,
    Scores,
    divergence,
    output_deviations,
    predicted_classes,
)
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.model.graph import Graph
from quantstudio.engine.runtime import Optimization, open_session, run, worker_threads

# Feeds up to this size stay in memory over all layers; larger data sets are read again for each.
_FEEDS_KEPT_BYTES = 512 * 2**20
# A run cannot be interrupted: batches stay small so that a cancelled job ends soon.
_BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One layer at one precision.

    Attributes:
        divergence: Of each sample, nats, [N].
        hits: Whether each sample's class is right; None without class labels.
    """

    divergence: Scores
    hits: NDArray[np.bool_] | None


class ExactScorer:
    """Runs a graph with one layer changed at a time against the FP32 outputs of the same samples.

    Attributes:
        outputs: FP32 outputs.
        base_hits: Whether FP32 gets each sample right; None without class labels.
    """

    def __init__(
        self, graph: Graph, dataset: Dataset, objective: Objective, *, samples: int, cancel: CancelToken
    ) -> None:
        """Run FP32 once.

        Raises:
            MeasureError: the model does not run on this data.
        """
        self._graph = graph
        self._dataset = dataset
        self._objective = objective
        self._samples = min(samples, len(dataset))
        self._cancel = cancel
        self._kept: list[tuple[dict[str, Array], int]] | None = None
        self._model = Path(graph.summary.graph_path)
        self._session = self._open()
        self.outputs = self._run(self._session)
        self._deviations = output_deviations(self.outputs) if objective.kind is OutputKind.VALUES else ()
        self._labels = self._class_labels()
        self.base_hits = self._hits(self.outputs)
        self._consumers = _consumer_counts(graph.proto.graph)

    # -- scoring ---------------------------------------------------------------------------------------

    def weights(self, layer: LayerInfo, weight: NDArray[np.float32]) -> Measured:
        """The layer with its weights replaced.

        Raises:
            MeasureError: the changed weight does not reach the output although it should.
        """
        if layer.scope or self._consumers.get(layer.weight_name, 0) != 1:
            # A tied weight belongs to other layers too, and one inside a body cannot be overridden.
            return self._measure(self._open(_with_own_weight(self._graph.proto, layer, weight)))
        measured = self._measure(self._open(overrides={layer.weight_name: weight}))
        if not measured.divergence.any() and not self._is_same_weight(layer, weight):
            # An optimizer may drop an override without a word: only a rewritten model can tell that from a
            # layer without influence.
            measured = self._measure(self._open(_with_own_weight(self._graph.proto, layer, weight)))
        return measured

    def activations(
        self, layer: LayerInfo, ranges: Mapping[str, tuple[float, float]], grid: IntegerGrid
    ) -> Measured:
        """The layer with fake-quantized inputs."""
        model = _with_fake_quantizers(self._graph.proto, layer, ranges, grid)
        return self._measure(self._open(model))

    def observed_ranges(self, names: tuple[str, ...]) -> dict[str, tuple[float, float]]:
        """Smallest and largest value of inner float tensors over all samples."""
        fed = {value.name for value in self._graph.proto.graph.input}
        inner = [name for name in names if name not in fed]
        model = _copy(self._graph.proto)
        present = {output.name for output in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in inner if n not in present)
        session = self._open(model)
        found: dict[str, tuple[float, float]] = {}
        for feed, count in self._feeds():
            self._cancel.raise_if_set()
            values = dict(zip(inner, run(session, feed, inner), strict=True)) if inner else {}
            values.update({name: feed[name][:count] for name in names if name in fed})
            for name, value in values.items():
                if value.size and np.issubdtype(value.dtype, np.floating):
                    low, high = float(value.min()), float(value.max())
                    before = found.get(name, (low, high))
                    found[name] = (min(low, before[0]), max(high, before[1]))
        return found

    # -- running ---------------------------------------------------------------------------------------

    def _open(
        self, model: onnx.ModelProto | None = None, overrides: Mapping[str, Array] | None = None
    ) -> ort.InferenceSession:
        return open_session(
            self._model if model is None else model.SerializeToString(),
            threads=worker_threads(),
            optimization=Optimization.BASIC,
            overrides=overrides,
        )

    def _measure(self, session: ort.InferenceSession) -> Measured:
        outputs = self._run(session)
        return Measured(
            divergence(self.outputs, outputs, self._objective, self._deviations), self._hits(outputs)
        )

    def _run(self, session: ort.InferenceSession) -> list[Array]:
        parts: list[list[Array]] = [[] for _ in self._objective.outputs]
        for feed, count in self._feeds():
            self._cancel.raise_if_set()
            for part, value in zip(parts, run(session, feed, self._objective.outputs), strict=True):
                if not value.ndim or len(value) < count:
                    raise MeasureError(
                        f"output of shape {value.shape} does not have one row a sample",
                        hint="Sensitivity needs the samples on the first axis of the outputs",
                    )
                rows = self._dataset.fixed_batch or count
                part.append(value[: len(value) * count // rows])
        return [np.concatenate(part) for part in parts]

    def _feeds(self) -> Iterator[tuple[dict[str, Array], int]]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[tuple[dict[str, Array], int]] | None = []
        size = 0
        for batch in self._dataset.batches(_BATCH, stop=self._samples):
            feed: dict[str, Array] = dict(batch.feed)
            size += sum(array.nbytes for array in feed.values())
            if kept is not None and size <= _FEEDS_KEPT_BYTES:
                kept.append((feed, batch.count))
            else:
                kept = None
            yield feed, batch.count
        self._kept = kept

    def _class_labels(self) -> NDArray[np.int64] | None:
        labels = self._dataset.labels
        if self._objective.kind is not OutputKind.CLASSES or labels is None:
            return None
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or self.outputs[0].ndim != 2:
            return None
        return np.asarray(labels[: self._samples], dtype=np.int64)

    def _hits(self, outputs: list[Array]) -> NDArray[np.bool_] | None:
        if self._labels is None:
            return None
        return np.asarray(predicted_classes(outputs[0], self._objective) == self._labels)

    def _is_same_weight(self, layer: LayerInfo, weight: NDArray[np.float32]) -> bool:
        original = initializer_arrays(self._graph.proto, {layer.weight_name}).get(layer.weight_name)
        return original is not None and np.array_equal(original, weight)


def check_override(graph: Graph, layer: LayerInfo, scorer: ExactScorer) -> None:
    """Prove on one layer that overriding an initializer changes what runs, and with the right result.

    Raises:
        MeasureError: the runtime ignores the override, or computes something else with it.
    """
    original = initializer_arrays(graph.proto, {layer.weight_name})[layer.weight_name]
    halved = np.asarray(original * np.float32(0.5), dtype=np.float32)
    overridden = scorer.weights(layer, halved).divergence
    rewritten = scorer._measure(scorer._open(_with_own_weight(graph.proto, layer, halved))).divergence
    if not np.allclose(overridden, rewritten, rtol=1e-2, atol=1e-6):
        raise MeasureError(
            "the runtime does not honour a replaced weight, so exact sensitivity would be wrong",
            where=layer.name,
            hint="Report this with the version of onnxruntime",
        )


def initializer_arrays(proto: onnx.ModelProto, names: set[str]) -> dict[str, NDArray[np.float32]]:
    """Float initializers by name, from the main graph and all bodies."""
    found: dict[str, NDArray[np.float32]] = {}
    for graph in _graphs(proto.graph):
        for tensor in graph.initializer:
            if tensor.name in names and tensor.name not in found:
                found[tensor.name] = np.array(numpy_helper.to_array(tensor), dtype=np.float32)
    return found


# -- changed copies of the model -------------------------------------------------------------------


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(body)


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    return model


def _consumer_counts(graph: onnx.GraphProto) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in _graphs(graph):
        for node in part.node:
            for name in node.input:
                counts[name] = counts.get(name, 0) + 1
    return counts


def _find(model: onnx.ModelProto, layer: LayerInfo) -> tuple[onnx.GraphProto, int]:
    """The graph that holds the layer's node, and the node's position there."""
    for graph in _graphs(model.graph):
        for i, node in enumerate(graph.node):
            if node.name == layer.name:
                return graph, i
    raise MeasureError("the layer is not in the graph", where=layer.name, hint="Open the model again")


def _with_own_weight(
    proto: onnx.ModelProto, layer: LayerInfo, weight: NDArray[np.float32]
) -> onnx.ModelProto:
    """A copy where this one node reads its own changed weight."""
    model = _copy(proto)
    graph, position = _find(model, layer)
    name = f"{layer.weight_name}::changed"
    graph.initializer.append(numpy_helper.from_array(weight, name))
    node = graph.node[position]
    for i, operand in enumerate(node.input):
        if operand == layer.weight_name:
            node.input[i] = name
    return model


def _with_fake_quantizers(
    proto: onnx.ModelProto, layer: LayerInfo, ranges: Mapping[str, tuple[float, float]], grid: IntegerGrid
) -> onnx.ModelProto:
    """A copy where this one node reads rounded activations: clip(round(x / s), lo - z, hi - z) * s."""
    model = _copy(proto)
    graph, position = _find(model, layer)
    node = graph.node[position]
    made: list[onnx.NodeProto] = []
    for i, name in enumerate(node.input):
        if name not in ranges or name not in layer.inputs:
            continue
        scale, zero_point = affine_qparams(*ranges[name], grid)
        tag = f"{layer.name}::{i}"
        constants: dict[str, float] = {
            "scale": float(scale),
            "low": float(grid.low - zero_point),
            "high": float(grid.high - zero_point),
        }
        for key, value in constants.items():
            graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"{tag}::{key}"))
        made += [
            helper.make_node("Div", [name, f"{tag}::scale"], [f"{tag}::a"], name=f"{tag}::div"),
            helper.make_node("Round", [f"{tag}::a"], [f"{tag}::b"], name=f"{tag}::round"),
            helper.make_node(
                "Clip", [f"{tag}::b", f"{tag}::low", f"{tag}::high"], [f"{tag}::c"], name=f"{tag}::clip"
            ),
            helper.make_node("Mul", [f"{tag}::c", f"{tag}::scale"], [f"{tag}::d"], name=f"{tag}::mul"),
        ]
        node.input[i] = f"{tag}::d"
    for offset, extra in enumerate(made):
        graph.node.insert(position + offset, extra)
    return model
