"""Layers as matrices: the product of both is what the layer writes, whatever its attributes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from quantstudio.engine.recovery.layer_matrix import layer_matrix
from quantstudio.engine.torch_graph.module import TorchGraph

ALL = 10**9


def node_of(op_type, slot, weight, **attributes):
    """The layer alone as a torch node."""
    names = ["w", "x"] if slot == 0 else ["x", "w"]
    proto = helper.make_node(op_type, names, ["y"], name="layer", **attributes)
    graph = helper.make_graph(
        [proto], "one", [helper.make_tensor_value_info("x", 1, None)],
        [helper.make_tensor_value_info("y", 1, None)], [onnx.numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    return TorchGraph(helper.make_model(graph)).node("layer")


CASES = {
    "conv": ("Conv", (4, 3, 3, 3), (2, 3, 7, 6), {"pads": [1, 1, 1, 1]}),
    "uneven": ("Conv", (4, 3, 3, 2), (2, 3, 8, 7), {"strides": [2, 3], "pads": [0, 1, 2, 1]}),
    "same upper": ("Conv", (4, 3, 3, 3), (2, 3, 7, 6), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "dilations": ("Conv", (4, 3, 3, 3), (1, 3, 9, 9), {"dilations": [2, 3]}),
    "groups": ("Conv", (6, 2, 3, 3), (2, 4, 5, 5), {"group": 2, "pads": [1] * 4}),
    "depthwise": ("Conv", (4, 1, 3, 3), (2, 4, 5, 5), {"group": 4}),
    "1d": ("Conv", (4, 3, 3), (2, 3, 9), {"strides": [2]}),
    "3d": ("Conv", (2, 2, 2, 3, 1), (1, 2, 4, 5, 3), {"pads": [1, 0, 0, 0, 1, 0]}),
    "transposed": ("ConvTranspose", (3, 4, 3, 3), (2, 3, 4, 5), {"strides": [2, 2], "pads": [1] * 4}),
    "transposed, more": (
        "ConvTranspose", (4, 3, 3, 2), (1, 4, 3, 4),
        {"strides": [2, 1], "group": 2, "output_padding": [1, 0], "dilations": [1, 2]},
    ),
    "gemm": ("Gemm", (5, 3), (4, 5), {"alpha": 2.0}),
    "gemm transB": ("Gemm", (3, 5), (4, 5), {"transB": 1}),
    "gemm transA": ("Gemm", (5, 3), (5, 4), {"transA": 1}),
    "matmul": ("MatMul", (5, 3), (2, 4, 5), {}),
    "matmul of a matrix": ("MatMul", (5, 3), (4, 5), {}),
    "stack": ("MatMul", (2, 5, 3), (3, 2, 4, 5), {}),
}  # fmt: skip
FIRST = {
    "matmul": ("MatMul", (3, 5), (2, 5, 4), {}),
    "gemm": ("Gemm", (3, 5), (5, 4), {}),
    "gemm transA transB": ("Gemm", (5, 3), (4, 5), {"transA": 1, "transB": 1}),
}


def products_and_outputs(slot, op_type, weight_shape, data_shape, attributes):
    rng = np.random.default_rng(0)
    weight, x = (
        rng.normal(size=weight_shape).astype(np.float32),
        rng.normal(size=data_shape).astype(np.float32),
    )
    node = node_of(op_type, slot, weight, **attributes)
    matrix = layer_matrix(node, slot, torch.from_numpy(weight))
    assert matrix is not None
    assert torch.equal(matrix.to_weight(matrix.to_matrix(torch.from_numpy(weight))), torch.from_numpy(weight))
    product = matrix.to_matrix(torch.from_numpy(weight)) @ matrix.rows_of(torch.from_numpy(x), 0, ALL)
    operands = (weight, x) if slot == 0 else (x, weight)
    written = node.compute(*map(torch.from_numpy, operands))
    y = written / node.attributes.real("alpha", 1.0)
    for chunk, limit in ((0, ALL), (2, 3)):
        seen = matrix.rows_of(torch.from_numpy(x), chunk, limit)
        made = matrix.to_matrix(torch.from_numpy(weight)) @ seen
        torch.testing.assert_close(matrix.written_of(written, chunk, limit), made, rtol=1e-4, atol=1e-5)
    return product, y


@pytest.mark.parametrize("name", list(CASES))
def test_that_matrix_times_vectors_is_what_the_layer_writes(name):
    product, y = products_and_outputs(1, *CASES[name])
    groups, outputs, _ = product.shape
    if name.startswith(("gemm", "matmul")):
        found = y.reshape(-1, outputs).T
    elif name == "stack":
        found = y.permute(1, 3, 0, 2).reshape(groups, outputs, -1)
    else:
        found = y.movedim(1, 0).reshape(groups, outputs, -1)
    torch.testing.assert_close(product, found.reshape(product.shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(FIRST))
def test_that_a_weight_in_front_of_the_data_is_one_too(name):
    product, y = products_and_outputs(0, *FIRST[name])
    found = y.movedim(-2, 0).reshape(product.shape)
    torch.testing.assert_close(product, found, rtol=1e-4, atol=1e-5)


def test_that_no_more_vectors_a_sample_are_taken_than_asked_and_others_in_every_chunk():
    weight, x = np.zeros((2, 1, 1, 1), np.float32), torch.arange(100.0).reshape(1, 1, 10, 10)
    matrix = layer_matrix(node_of("Conv", 1, weight), 1, torch.from_numpy(weight))
    assert matrix is not None
    taken = [matrix.rows_of(x, chunk, 7)[0, 0].tolist() for chunk in range(3)]
    assert all(len(set(places)) == 7 for places in taken)
    assert len({place for places in taken for place in places}) > 14
    assert taken[1] == matrix.rows_of(x, 1, 7)[0, 0].tolist()


def test_that_a_layer_without_a_matrix_has_none():
    weight = np.zeros((2, 3, 4, 5), np.float32)
    assert layer_matrix(node_of("MatMul", 1, weight), 1, torch.from_numpy(weight)) is None
    weight = np.zeros((3, 2), np.float32)
    assert layer_matrix(node_of("Gemm", 1, weight, alpha=0.0), 1, torch.from_numpy(weight)) is None
