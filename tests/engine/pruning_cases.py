"""The exactness test of pruning: a network with units set to zero against the one without them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from quantstudio.engine.compression.dependencies import Dependencies, dependencies
from quantstudio.engine.compression.surgery import Cut, gone_labels, without_units
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import as_array
from tests.engine.quantization_cases import session

_PLAIN = ort.GraphOptimizationLevel.ORT_DISABLE_ALL

# Behind these what was zero is zero still; behind all others it is set to zero again.
_KEEP_ZERO = {
    "Relu", "LeakyRelu", "PRelu", "Tanh", "Erf", "HardSwish", "MaxPool", "AveragePool", "GlobalAveragePool",
    "Reshape", "Flatten", "Transpose", "Concat", "Split", "Slice", "Resize", "Mul", "Identity", "Squeeze",
    "Unsqueeze", "ReduceMean", "ReduceSum", "DepthToSpace", "Cast", "Expand", "Gelu",
}  # fmt: skip


def every_other(found: Dependencies, share: float = 0.5, seed: int = 0) -> dict[str, np.ndarray]:
    """Some units of every group, drawn at random; one at least stays."""
    rng = np.random.default_rng(seed)
    gone = {}
    for group in found.prunable:
        count = min(max(1, int(group.units * share)), group.units - 1)
        mask = np.zeros(group.units, dtype=bool)
        mask[rng.permutation(group.units)[:count]] = True
        gone[group.name] = mask
    return gone


def zeroed(graph: Graph, found: Dependencies, gone: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The whole network with the outputs of units set to zero where they are made."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.proto)
    cut = Cut(found.flow.labels, gone_labels(found, gone))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in nodes:
        model.graph.node.append(node)
        if node.op_type in ("LSTM", "GRU", "RNN"):
            _zero_rows(found, cut, node, tensors)
            continue
        if node.op_type in _KEEP_ZERO:
            continue
        last = model.graph.node[-1]
        for slot, name in enumerate(node.output):
            axes = found.flow.axes.get(name, ())
            for axis, labels in enumerate(axes):
                if labels is None or cut.mask(labels).all():
                    continue
                shape = [1] * len(axes)
                shape[axis] = len(labels)
                factor, inner = f"{name}.{axis}.alive", f"{name}.{axis}.whole"
                values = cut.mask(labels).astype(np.float32).reshape(shape)
                model.graph.initializer.append(numpy_helper.from_array(values, factor))
                last.output[slot], source = inner, inner
                last = model.graph.node.add()
                last.CopyFrom(helper.make_node("Mul", [source, factor], [name], f"{name}.{axis}.mask"))
                slot = 0
    return model


def _zero_rows(found, cut, node, tensors):
    """A hidden unit with zeros for weights and biases is zero at every step."""
    for name in node.input[1:]:
        if name not in tensors:
            continue
        values = np.array(as_array(tensors[name]))
        for axis, labels in enumerate(found.flow.constant_axes(tensors[name])):
            if labels is not None:
                np.moveaxis(values, axis, 0)[~cut.mask(labels)] = 0
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))


def check_exact(
    graph: Graph, feed: Mapping[str, np.ndarray], share: float = 0.5, seed: int = 0
) -> tuple[Dependencies, Graph]:
    """The pruned graph answers as the zeroed one does, and what it does not touch has the same bits."""
    found = dependencies(graph.proto)
    gone = every_other(found, share, seed)
    pruned = without_units(graph, found, gone, "Cut")
    expected = session(zeroed(graph, found, gone), _PLAIN).run(None, dict(feed))
    got = session(pruned.proto, _PLAIN).run(None, dict(feed))
    whole = session(graph.proto, _PLAIN).run(None, dict(feed))
    for one, other, before in zip(expected, got, whole, strict=True):
        assert one.shape == other.shape == before.shape
        scale = max(1.0, float(np.abs(one).max()))
        np.testing.assert_allclose(other, one, atol=1e-5 * scale, rtol=0)
        assert not gone or not np.allclose(other, before, atol=1e-3 * scale), "nothing was lost"
    _check_untouched(graph, pruned, found, gone)
    return found, pruned


def _check_untouched(graph, pruned, found, gone):
    cut = Cut(found.flow.labels, gone_labels(found, gone))
    left = {tensor.name: tensor for tensor in pruned.proto.graph.initializer}
    for tensor in graph.proto.graph.initializer:
        axes = found.flow.constant_axes(tensor)
        masks = [
            np.ones(size, bool) if a is None else cut.mask(a)
            for size, a in zip(tensor.dims, axes, strict=True)
        ]
        if tensor.name in left:
            kept = as_array(tensor)[np.ix_(*masks)] if masks else as_array(tensor)
            assert np.asarray(as_array(left[tensor.name])).tobytes() == np.asarray(kept, order="C").tobytes()
