"""A graph with layers written as two: the one that writes what the layer wrote keeps its name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from quantstudio.core.layer_parts import part_name
from quantstudio.engine.compression.factorable import FactorableLayer
from quantstudio.engine.compression.factors import Factors, Form
from quantstudio.engine.graph.names import NameSource
from quantstudio.engine.graph.protos import (
    as_tensor,
    int_attribute,
    ints_attribute,
    remove_attribute,
    set_attribute,
)

FloatArray = NDArray[np.float32]

# What a convolution says of each axis; pads twice, where it begins and where it ends.
_AXES = ("kernel_shape", "strides", "dilations")


def write_factors(model: onnx.ModelProto, found: Mapping[str, tuple[FactorableLayer, Factors]]) -> None:
    """Put two nodes in place of each layer, in place.

    The node that writes keeps name, output, bias and the name of the weight; in front of it comes one of the
    same operator under a name derived from it (`core.layer_parts`), so that a rule which names the layer
    speaks about both.

    Args:
        model: The model to edit.
        found: Layers with their factors, by node.
    """
    names = NameSource(model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.name in found:
            layer, factors = found[node.name]
            reading, written = _weights(layer, factors, node)
            name = names.given(part_name(node.name))
            weight = node.input[layer.matrix.slot]
            own = names.given(part_name(weight))
            model.graph.initializer.append(as_tensor(own, reading))
            tensors[weight].CopyFrom(as_tensor(weight, written))
            first = _reader(node, layer, factors.form, own, names.given(part_name(node.output[0])))
            first.name = name
            nodes.append(first)
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _reader(
    node: onnx.NodeProto, layer: FactorableLayer, form: Form, weight: str, between: str
) -> onnx.NodeProto:
    """The node in front; the other is made to read it."""
    first = onnx.NodeProto()
    first.CopyFrom(node)
    slot = layer.matrix.slot
    del first.input[2:], first.output[:]
    first.input[slot] = weight
    first.output.append(between)
    node.input[1 - slot] = first.output[0]
    if node.op_type == "Gemm":
        # What is scaled, and what is added, is so behind both.
        remove_attribute(first, "alpha", "beta")
        remove_attribute(node, "transA")
    elif node.op_type == "Conv":
        _split_axes(first, node, layer, form)
    return first


def _split_axes(first: onnx.NodeProto, node: onnx.NodeProto, layer: FactorableLayer, form: Form) -> None:
    """Give each of two convolutions the axes it goes along."""
    if form is Form.MATRIX:
        remove_attribute(node, *_AXES, "pads", "auto_pad")
        axes = len(layer.matrix.node.attributes.integers("kernel_shape") or layer.layer.weight_shape[2:])
        set_attribute(node, "kernel_shape", [1] * axes)
        return
    for one, own in ((first, 0), (node, 1)):
        for name in _AXES:
            values = ints_attribute(one, name)
            if values:
                set_attribute(one, name, [value if axis == own else 1 for axis, value in enumerate(values)])
        pads = ints_attribute(one, "pads")
        if pads:
            set_attribute(one, "pads", [pad if axis % 2 == own else 0 for axis, pad in enumerate(pads)])


def _weights(layer: FactorableLayer, factors: Factors, node: onnx.NodeProto) -> tuple[FloatArray, FloatArray]:
    """Both weights as the nodes hold them."""
    read, written = (np.asarray(one, dtype=np.float32) for one in (factors.read, factors.written))
    rank, shape = factors.rank, layer.layer.weight_shape
    if node.op_type == "Conv" and factors.form is Form.LINES:
        across = written.reshape(layer.outputs, rank, 1, shape[3])
        return read.reshape(rank, shape[1], shape[2], 1), np.ascontiguousarray(across)
    if node.op_type == "Conv":
        return read.reshape(rank, *shape[1:]), written.reshape(layer.outputs, rank, *[1] * len(shape[2:]))
    # [O, K] as the product of a matrix by data has it; behind the data it lies the other way round.
    is_turned = layer.matrix.slot == 1 and not (node.op_type == "Gemm" and int_attribute(node, "transB", 0))
    both = (read.T, written.T) if is_turned else (read, written)
    return np.ascontiguousarray(both[0]), np.ascontiguousarray(both[1])
