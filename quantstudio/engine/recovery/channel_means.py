"""Means of tensors per channel over calibration samples, in the float network and in a quantized one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from quantstudio.core.events import CancelToken
from quantstudio.engine.data.dataset import Batch, Dataset
from quantstudio.engine.graph.cut import CutGraph
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import reads, used_names
from quantstudio.engine.graph.runtime import CPU, Optimization, open_session, run, worker_threads

FloatArray = NDArray[np.float64]

_BATCH = 32


@dataclass(slots=True)
class ChannelMean:
    """Running mean and spread of a tensor per channel.

    Attributes:
        axis: Axis that numbers the channels.
    """

    axis: int
    _count: int = 0
    _sum: FloatArray = field(default_factory=lambda: np.zeros(1))
    _squares: FloatArray = field(default_factory=lambda: np.zeros(1))

    def add(self, values: NDArray[np.generic]) -> None:
        """Take in some samples."""
        rows = np.moveaxis(values, self.axis, 0).reshape(values.shape[self.axis], -1).astype(np.float64)
        self._count += rows.shape[1]
        self._sum = self._sum + rows.sum(axis=1)
        self._squares = self._squares + (rows**2).sum(axis=1)

    @property
    def mean(self) -> FloatArray:
        """Mean per channel, shape [C]."""
        return self._sum / max(self._count, 1)

    @property
    def _variances(self) -> FloatArray:
        return self._squares / max(self._count, 1) - self.mean**2

    @property
    def deviations(self) -> FloatArray:
        """Standard deviation per channel, shape [C]."""
        return np.sqrt(np.maximum(self._variances, 0.0))

    @property
    def deviation(self) -> float:
        """Standard deviation over all channels together."""
        return float(np.sqrt(max(float(self._variances.mean()), 0.0)))


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples means are taken over.

    Attributes:
        dataset: Data set.
        count: How many, from the first on.
        cancel: Ends a run in progress, too.
    """

    dataset: Dataset
    count: int
    cancel: CancelToken

    @property
    def batch_size(self) -> int:
        """Samples of a batch; the last one may hold fewer."""
        return _BATCH

    def batches(self) -> Iterator[Batch]:
        """The samples, a few at a time."""
        for batch in self.dataset.batches(_BATCH, stop=min(self.count, len(self.dataset))):
            self.cancel.raise_if_set()
            yield batch

    def values(
        self, session: ort.InferenceSession, names: Sequence[str]
    ) -> Iterator[tuple[Batch, dict[str, NDArray[np.generic]]]]:
        """Tensors of every batch, without the samples that fill the last one up."""
        inputs = {one.name for one in session.get_inputs()}
        for batch in self.batches():
            given = {name: batch.feed[name] for name in names if name in batch.feed}
            asked = [name for name in names if name not in given]
            feed = {name: array for name, array in batch.feed.items() if name in inputs}
            found = run(session, feed, asked, cancel=self.cancel) if asked else []
            given.update(zip(asked, found, strict=True))
            yield batch, {name: _valid(array, batch) for name, array in given.items()}


def prefix_session(
    model: onnx.ModelProto, graph: Graph, outputs: Sequence[str], cancel: CancelToken
) -> Prefix:
    """A session over what some tensors of a model need, and what holds its weights."""
    part = CutGraph(
        Graph(model, graph.summary), outputs, threads=worker_threads(), provider=CPU, cancel=cancel
    )
    return Prefix(part, part.session(0, part.end, part.input_types, outputs))


@dataclass(frozen=True, slots=True)
class Prefix:
    """A session, with what must live as long as it does."""

    part: CutGraph
    session: ort.InferenceSession


def part_session(
    model: onnx.ModelProto, source: str, output: str, cancel: CancelToken
) -> ort.InferenceSession:
    """A session over the nodes from one tensor to another."""
    wanted, nodes = {output}, []
    for node in reversed(model.graph.node):
        if wanted.isdisjoint(node.output) or source in node.output:
            continue
        nodes.append(node)
        wanted.update(reads(node))
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.name = "part"
    part.graph.node.extend(nodes[::-1])
    part.graph.input.append(helper.make_tensor_value_info(source, TensorProto.FLOAT, None))
    part.graph.output.append(onnx.ValueInfoProto(name=output))
    used = set(used_names(part.graph))
    part.graph.initializer.extend(t for t in model.graph.initializer if t.name in used)
    return open_session(part, threads=worker_threads(), optimization=Optimization.BASIC, cancel=cancel)


def before_quantizing(model: onnx.ModelProto, tensor: str) -> str:
    """The tensor as it is before a Q/DQ pair, where the pair gives it its name."""
    makers: Mapping[str, onnx.NodeProto] = {name: node for node in model.graph.node for name in node.output}
    maker = makers.get(tensor)
    if maker is None or maker.op_type != "DequantizeLinear":
        return tensor
    quantizer = makers.get(maker.input[0])
    return tensor if quantizer is None or quantizer.op_type != "QuantizeLinear" else quantizer.input[0]


def _valid(array: NDArray[np.generic], batch: Batch) -> NDArray[np.generic]:
    held = max((len(one) for one in batch.feed.values() if one.ndim), default=batch.count)
    return array[: batch.count] if batch.count < held and array.ndim and len(array) == held else array
