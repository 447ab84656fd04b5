"""Layers whose outputs have a constant added per channel, and where that constant lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.names import NameSource
from quantstudio.engine.graph.protos import as_array, as_tensor, attribute_value
from quantstudio.engine.graph.view import GraphView

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BiasTarget:
    """One layer whose bias can be changed.

    Attributes:
        layer: The layer.
        node: Node that adds the bias: the layer itself, or the Add behind a product.
        slot: Input of that node that holds it.
        source: Tensor the layer reads.
        output: Tensor with the bias added.
        channel_axis: Axis of the output that numbers the channels.
        channels: Number of channels.
        beta: What the node multiplies the bias with.
    """

    layer: str
    node: str
    slot: int
    source: str
    output: str
    channel_axis: int
    channels: int
    beta: float = 1.0


def find_targets(graph: Graph) -> tuple[BiasTarget, ...]:
    """Every layer of the main graph with weights and a constant bias or room for one, as they are run."""
    view = GraphView(graph.proto)
    layers = {layer.name for layer in graph.layers if layer.weight_name and not layer.scope}
    return tuple(_targets(view, layers))


def bias_of(model: onnx.ModelProto, target: BiasTarget) -> FloatArray:
    """What a layer has added to its outputs, shape [C] or one value for all; zero where it has no bias."""
    node = next(node for node in model.graph.node if node.name == target.node)
    name = node.input[target.slot] if len(node.input) > target.slot else ""
    held = next((tensor for tensor in model.graph.initializer if name and tensor.name == name), None)
    if held is None:
        return np.zeros(())
    value = np.asarray(as_array(held), dtype=np.float64) * target.beta
    return value.reshape(-1) if value.size > 1 else value.reshape(())


def set_bias(model: onnx.ModelProto, target: BiasTarget, shift: FloatArray) -> None:
    """Add a shift per channel to the bias of a layer, in place.

    Args:
        model: Model to edit.
        target: The layer.
        shift: What its outputs are to be raised by, shape [C].
    """
    node = next(node for node in model.graph.node if node.name == target.node)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    name = node.input[target.slot] if len(node.input) > target.slot else ""
    old = np.asarray(as_array(tensors[name]), dtype=np.float64) if name else np.zeros(())
    raised = np.broadcast_to(old.reshape(-1) if old.size > 1 else old, shift.shape) + shift / target.beta
    shape = old.shape if old.size == shift.size else shift.shape
    values = raised.astype(np.float32).reshape(shape)
    readers = sum(list(one.input).count(name) for one in model.graph.node) if name else 0
    if readers == 1:
        tensors[name].CopyFrom(as_tensor(name, values))
        return
    own = NameSource(model).fresh(f"{target.layer}_bias")
    model.graph.initializer.append(as_tensor(own, values))
    if len(node.input) > target.slot:
        node.input[target.slot] = own
    else:
        node.input.append(own)


def _targets(view: GraphView, layers: set[str]) -> Iterator[BiasTarget]:
    for node in view.nodes:
        if node.name not in layers or view.is_constant(node.input[0]):
            continue
        shape = view.main.constants[node.input[1]].dims if view.is_constant(node.input[1]) else None
        if not shape:
            continue
        if node.op_type in ("Conv", "ConvTranspose") and len(shape) > 2:
            yield from _convolution(view, node, list(shape))
        elif node.op_type == "Gemm" and len(shape) == 2:
            yield from _gemm(view, node, list(shape))
        elif node.op_type == "MatMul" and len(shape) == 2:
            yield from _product(view, node, shape[1])


def _convolution(view: GraphView, node: onnx.NodeProto, shape: list[int]) -> Iterator[BiasTarget]:
    groups = int(attribute_value(node, "group", 1))
    channels = shape[0] if node.op_type == "Conv" else shape[1] * groups
    if _is_row(view, node, channels):
        yield BiasTarget(node.name, node.name, 2, node.input[0], node.output[0], 1, channels)


def _gemm(view: GraphView, node: onnx.NodeProto, shape: list[int]) -> Iterator[BiasTarget]:
    channels = shape[0] if attribute_value(node, "transB", 0) else shape[1]
    beta = float(attribute_value(node, "beta", 1.0))
    if beta and _is_row(view, node, channels):
        yield BiasTarget(node.name, node.name, 2, node.input[0], node.output[0], 1, channels, beta)


def _product(view: GraphView, node: onnx.NodeProto, channels: int) -> Iterator[BiasTarget]:
    product = node.output[0]
    readers = view.consumers[product]
    if len(readers) != 1 or readers[0].op_type != "Add" or product in view.outputs:
        return
    add = readers[0]
    slot = 1 if add.input[0] == product else 0
    if view.is_constant(add.input[slot]) and _is_constant_row(view, add.input[slot], channels):
        yield BiasTarget(node.name, add.name, slot, node.input[0], add.output[0], -1, channels)


def _is_row(view: GraphView, node: onnx.NodeProto, channels: int) -> bool:
    name = node.input[2] if len(node.input) > 2 else ""
    return not name or _is_constant_row(view, name, channels)


def _is_constant_row(view: GraphView, name: str, channels: int) -> bool:
    value = view.array(name)
    if value is None or value.dtype != np.float32:
        return False
    return value.size == 1 or (value.size == channels and value.shape[-1] == channels)
