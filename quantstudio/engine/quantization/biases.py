"""Joins a static MatMul with the Add of its bias into one Gemm.

ONNX Runtime joins them itself before it looks at Q/DQ nodes, and the Gemm it makes has a float bias, which
keeps it off the integer kernel.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx

from quantstudio.engine.graph.view import GraphView


def with_biases_joined(view: GraphView, static: Collection[str]) -> GraphView:
    """The view with each static two-dimensional MatMul and its bias as one Gemm of the MatMul's name.

    Args:
        view: Main graph.
        static: Names of the layers with a static scheme.
    """
    joined: dict[str, onnx.NodeProto] = {}
    for node in view.nodes:
        add = _bias_add(node, view) if node.name in static else None
        if add is not None:
            bias = add.input[1] if add.input[0] == node.output[0] else add.input[0]
            joined[node.name] = onnx.helper.make_node(
                "Gemm", [*node.input, bias], list(add.output), name=node.name
            )
            joined[add.name] = joined[node.name]
    if not joined:
        return view
    nodes: list[onnx.NodeProto] = []
    for node in view.nodes:
        gemm = joined.get(node.name)
        if gemm is None:
            nodes.append(node)
        elif node.op_type == "MatMul":
            nodes.append(gemm)
    return GraphView(view.model, nodes)


def _bias_add(node: onnx.NodeProto, view: GraphView) -> onnx.NodeProto | None:
    """The Add that puts a constant row on a product of two matrices, or None."""
    if node.op_type != "MatMul" or view.is_constant(node.input[0]):
        return None
    weight = view.array(node.input[1])
    data_shape = view.shapes.get(node.input[0])
    readers = view.consumers[node.output[0]]
    if weight is None or weight.ndim != 2 or data_shape is None or len(data_shape) != 2:
        return None
    if len(readers) != 1 or readers[0].op_type != "Add" or node.output[0] in view.outputs:
        return None
    add = readers[0]
    bias = view.array(add.input[1] if add.input[0] == node.output[0] else add.input[0])
    columns = weight.shape[1]
    is_row = bias is not None and bias.dtype == np.float32 and bias.shape in ((columns,), (1, columns), ())
    return add if is_row else None
