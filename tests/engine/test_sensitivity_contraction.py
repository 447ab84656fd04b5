"""Per-sample effects of weight errors against running the layer on each error."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from quantstudio.engine.analysis.contraction import BatchLayout, output_errors, weight_effects
from quantstudio.engine.torch_graph.module import TorchGraph

RNG = np.random.default_rng(3)
SAMPLES = 3


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def layer(op: str, x: np.ndarray, *constants: np.ndarray, outputs: int = 1, **attributes: Any) -> TorchGraph:
    names = [f"c{i}" for i in range(len(constants))]
    node = helper.make_node(op, ["x", *names], [f"y{i}" for i in range(outputs)], name="layer", **attributes)
    if op == "Gather":
        node.input[:] = ["c0", "x"]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), [None] * x.ndim)],
        [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(outputs)],
        [numpy_helper.from_array(c, n) for c, n in zip(constants, names, strict=True)],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return TorchGraph(model)


IMAGE = normal(SAMPLES, 4, 6, 7)
LAYERS: list[Any] = [
    pytest.param("Conv", [IMAGE, normal(5, 4, 3, 3), normal(5)], {"pads": [1, 1, 1, 1]}, id="conv-3x3"),
    pytest.param(
        "Conv", [IMAGE, normal(5, 4, 3, 2)], {"strides": [2, 1], "pads": [0, 1, 1, 0]}, id="conv-uneven"
    ),
    pytest.param("Conv", [IMAGE, normal(5, 4, 1, 1)], {"strides": [2, 2]}, id="conv-1x1"),
    pytest.param("Conv", [IMAGE, normal(5, 4, 3, 3)], {"dilations": [2, 2]}, id="conv-dilated"),
    pytest.param(
        "Conv", [IMAGE, normal(4, 1, 3, 3)], {"group": 4, "pads": [1, 1, 1, 1]}, id="conv-depthwise"
    ),
    pytest.param("Conv", [IMAGE, normal(6, 2, 3, 3)], {"group": 2}, id="conv-grouped"),
    pytest.param("Conv", [normal(SAMPLES, 4, 9), normal(5, 4, 3)], {}, id="conv-1d"),
    pytest.param(
        "ConvTranspose", [IMAGE, normal(4, 2, 3, 3), normal(2)], {"strides": [2, 2]}, id="transposed"
    ),
    pytest.param("Gemm", [normal(SAMPLES, 6), normal(5, 6), normal(5)], {"transB": 1}, id="gemm"),
    pytest.param("Gemm", [normal(SAMPLES, 6), normal(6, 5)], {"alpha": 0.5}, id="gemm-scaled"),
    pytest.param("MatMul", [normal(SAMPLES, 20, 6), normal(6, 5)], {}, id="matmul-tokens"),
    pytest.param("MatMul", [normal(SAMPLES, 2, 6), normal(6, 5)], {}, id="matmul-few-rows"),
    pytest.param("Gather", [RNG.integers(0, 9, (SAMPLES, 4)), normal(9, 5)], {}, id="embedding"),
]


@pytest.mark.parametrize("at_once", [True, False], ids=["at-once", "in-parts"])
@pytest.mark.parametrize(("op", "operands", "attributes"), LAYERS)
def test_that_the_contraction_equals_running_the_layer_on_each_error(
    op: str,
    operands: list[np.ndarray],
    attributes: dict[str, Any],
    at_once: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not at_once:
        monkeypatch.setattr("quantstudio.engine.analysis.contraction.TEMPORARY_BYTES", 1)
    graph = layer(op, *operands, **attributes)
    node = graph.node("layer")
    slot = node.inputs.index("c0")
    with torch.no_grad():
        tensors = [torch.from_numpy(o) for o in operands]
        inputs = tuple(tensors if op != "Gather" else reversed(tensors))
        weight = inputs[slot]
        errors = [torch.randn(weight.shape) for _ in range(3)]
        plain = node.compute(*inputs)
        assert isinstance(plain, torch.Tensor)
        gradient = torch.randn(plain.shape)
        found = weight_effects(node, inputs, slot, errors, [(0, gradient, BatchLayout(0))])
        for column, error in zip(found.unbind(1), errors, strict=True):
            changed = list(inputs)
            changed[slot] = weight + error
            after = node.compute(*changed)
            assert isinstance(after, torch.Tensor)
            wanted = ((after - plain) * gradient).flatten(1).sum(1)
            # The difference of two float32 outputs keeps about five digits.
            np.testing.assert_allclose(column.numpy(), wanted.numpy(), rtol=2e-4, atol=2e-4)


def test_that_a_recurrent_layer_counts_samples_on_its_second_axis_and_all_outputs() -> None:
    x = normal(5, SAMPLES, 3)
    graph = layer("LSTM", x, normal(1, 16, 3), normal(1, 16, 4), normal(1, 32), outputs=3, hidden_size=4)
    node = graph.node("layer")
    with torch.no_grad():
        inputs = (torch.from_numpy(x), *(graph.initializer(f"c{i}") for i in range(3)))
        plain = node.compute(*inputs)
        error = 0.1 * torch.randn(1, 16, 3)
        gradients = [
            (0, torch.randn(plain[0].shape), BatchLayout(2)),
            (2, torch.randn(plain[2].shape), BatchLayout(1)),
        ]
        found = weight_effects(node, inputs, 1, [error], gradients)
        after = node.compute(inputs[0], inputs[1] + error, *inputs[2:])
        for n in range(SAMPLES):
            wanted = ((after[0] - plain[0]) * gradients[0][1])[:, :, n].sum()
            wanted += ((after[2] - plain[2]) * gradients[1][1])[:, n].sum()
            assert float(found[n, 0]) == pytest.approx(float(wanted), rel=1e-3, abs=1e-5)


def test_that_rows_folded_into_the_batch_are_summed_by_sample() -> None:
    x = normal(2 * SAMPLES, 4, 6, 6)
    graph = layer("Conv", x, normal(5, 4, 3, 3))
    node = graph.node("layer")
    with torch.no_grad():
        inputs = (torch.from_numpy(x), graph.initializer("c0"))
        error = torch.randn(5, 4, 3, 3)
        gradient = torch.randn(2 * SAMPLES, 5, 4, 4)
        found = weight_effects(node, inputs, 1, [error], [(0, gradient, BatchLayout(0, fold=2))])
        (changed,) = output_errors(node, inputs, 1, error)
    wanted = (changed * gradient).reshape(SAMPLES, -1).sum(1)
    np.testing.assert_allclose(found[:, 0].numpy(), wanted.numpy(), rtol=1e-4, atol=1e-4)
