"""What the shape of a graph costs beside its layers: tensors between layers, and how long each is held."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx

from quantstudio.core.costs import LayerEdge, LiveTensor, activation_peak
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import reads

# Operators that write where they read, when nobody reads that again.
_IN_PLACE = frozenset(
    {
        "Add", "Cast", "Clip", "Div", "Elu", "Erf", "Flatten", "Gelu", "HardSigmoid", "HardSwish", "Identity",
        "LeakyRelu", "Mul", "Neg", "Relu", "Reshape", "Sigmoid", "Softmax", "Sqrt", "Squeeze", "Sub", "Tanh",
        "Unsqueeze",
    }
)  # fmt: skip


def layer_edges(graph: Graph) -> tuple[LayerEdge, ...]:
    """Tensors on their way from one layer to the next, with their size for one sample."""
    elements = tensor_elements(graph.proto.graph)
    layers = graph.layers
    return tuple(
        LayerEdge(
            layers[producer].name,
            layers[consumer].name,
            max((elements.get(name, 0) for name in layers[consumer].inputs), default=0),
        )
        for producer, consumer in graph.summary.edges
    )


def live_tensors(graph: Graph) -> tuple[LiveTensor, ...]:
    """Every activation of the main graph, from the node that makes it to the last one that reads it."""
    proto = graph.proto.graph
    elements = tensor_elements(proto)
    constants = {tensor.name for tensor in proto.initializer}
    names = {layer.name for layer in graph.layers}
    last = _last_reads(proto)
    found: dict[str, LiveTensor] = {
        value.name: LiveTensor("", elements.get(value.name, 0), -1, last.get(value.name, -1))
        for value in proto.input
    }
    # Names of a tensor that was written over another's memory lead to the first owner of it.
    place = {name: name for name in found}
    for step, node in enumerate(proto.node):
        read = [name for name in node.input if name and name not in constants and name in place]
        before = found[place[read[0]]] if read else None
        owner = node.name if node.name in names else before.layer if before is not None else ""
        for index, name in enumerate(n for n in node.output if n):
            end = last.get(name, step)
            size = elements.get(name, 0)
            reuses = (
                index == 0
                and before is not None
                and node.op_type in _IN_PLACE
                and node.name not in names
                and before.last == step
                and before.elements == size
            )
            if reuses and before is not None:
                place[name] = place[read[0]]
                found[place[name]] = LiveTensor(before.layer, size, before.first, end)
            else:
                place[name] = name
                found[name] = LiveTensor(owner, size, step, end)
    return tuple(found.values())


def held_bytes(tensors: Sequence[LiveTensor], integers: Collection[str]) -> float:
    """Largest sum of activations held at one time, those of integer layers taking one byte each."""
    sizes = [tensor.elements * (1 if tensor.layer in integers else 4) for tensor in tensors]
    return activation_peak(
        np.asarray(sizes, dtype=np.float64),
        np.asarray([tensor.first for tensor in tensors], dtype=np.intp),
        np.asarray([tensor.last for tensor in tensors], dtype=np.intp),
    )


def tensor_elements(graph: onnx.GraphProto) -> dict[str, int]:
    """Elements of every activation for one sample; dimensions nobody knows count as one."""
    values: Mapping[str, onnx.ValueInfoProto] = {
        value.name: value for value in (*graph.input, *graph.value_info, *graph.output)
    }
    return {
        name: math.prod(max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim)
        for name, value in values.items()
    }


def _last_reads(graph: onnx.GraphProto) -> dict[str, int]:
    """Index of the last node that reads each tensor, inside bodies too; outputs are held to the end."""
    last: dict[str, int] = {}
    for step, node in enumerate(graph.node):
        for name in reads(node):
            last[name] = step
    last.update({value.name: len(graph.node) for value in graph.output})
    return last
