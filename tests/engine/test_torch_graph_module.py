"""The module around the operators: parameters, hooks, replay, write-back, whole networks."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from quantstudio.core.errors import QuantStudioError
from quantstudio.engine.torch_graph.module import Node, TorchGraph
from quantstudio.engine.torch_graph.parameters import weight_names
from tests.shared_data import MODELS, THIRD_PARTY, needs_shared

RNG = np.random.default_rng(1)


def two_branches() -> onnx.ModelProto:
    """y = relu(x W1) W2 + x W3, with names that hold dots."""
    weights = {
        "a.weight": RNG.standard_normal((4, 5)).astype(np.float32),
        "b.weight": RNG.standard_normal((5, 3)).astype(np.float32),
        "c.weight": RNG.standard_normal((4, 3)).astype(np.float32),
        "mask": np.array([[0, -3.4e38, 0]], np.float32),
        "half": np.array(0.5, np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "a.weight"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "b.weight"], ["s"], name="second"),
        helper.make_node("MatMul", ["x", "c.weight"], ["t"], name="side"),
        helper.make_node("Mul", ["t", "half"], ["u"], name="scale"),
        helper.make_node("Add", ["s", "u"], ["v"], name="join"),
        helper.make_node("Add", ["v", "mask"], ["y"], name="masked"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


X = RNG.standard_normal((6, 4)).astype(np.float32)


def runtime(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, feed)[0]
    return result


def test_that_only_initializers_with_a_weight_role_are_parameters() -> None:
    module = TorchGraph(two_branches())
    assert set(module.weights) == {"a.weight", "b.weight", "c.weight"}
    assert len(list(module.parameters())) == 3


def test_that_an_operand_next_to_a_graph_input_is_a_constant() -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "mean"], ["y"], name="centre")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.ones(2, np.float32), "mean")],
    )
    assert weight_names(graph) == ()


def test_that_a_hook_runs_in_place_of_its_node_and_sees_inputs_and_outputs() -> None:
    module = TorchGraph(two_branches())
    seen: dict[str, torch.Tensor] = {}

    def doubled(node: Node, inputs: tuple[torch.Tensor | None, ...]) -> torch.Tensor:
        result = node.compute(*inputs)
        assert isinstance(result, torch.Tensor)
        assert inputs[0] is not None
        seen["input"], seen["output"] = inputs[0], result
        return result * 2

    with torch.no_grad():
        plain = module.run({"x": X}, ("v",))["v"]
        module.hooks["side"] = doubled
        changed = module.run({"x": X}, ("v",))["v"]
    weight = module.initializer("c.weight").detach()
    np.testing.assert_allclose(seen["input"].numpy(), X)
    np.testing.assert_allclose(seen["output"].numpy(), X @ weight.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose((changed - plain).numpy(), 0.5 * X @ weight.numpy(), rtol=1e-4, atol=1e-5)


def test_that_tensors_are_freed_after_their_last_use() -> None:
    module = TorchGraph(two_branches())
    assert module._freed[module.node("relu").index] == ("h",)
    assert "x" in module._freed[module.node("side").index]
    assert all("y" not in names for names in module._freed)


def test_that_a_missing_input_is_named() -> None:
    with pytest.raises(QuantStudioError, match="'x'"):
        TorchGraph(two_branches()).run({})


def test_that_reordered_gates_are_kept_until_the_weight_changes() -> None:
    from quantstudio.engine.torch_graph.recurrent import _gates_in_torch_order

    weight = torch.nn.Parameter(torch.arange(8.0).reshape(1, 4, 2))
    with torch.no_grad():
        first = _gates_in_torch_order(weight, "LSTM")
        assert first is _gates_in_torch_order(weight, "LSTM")
        weight.add_(1)
        second = _gates_in_torch_order(weight, "LSTM")
    # ONNX order i, o, f, c becomes i, f, c, o.
    assert second[0, :, 0].tolist() == [1, 5, 7, 3]
    _gates_in_torch_order(weight, "LSTM").sum().backward()
    assert weight.grad is not None


REFERENCE_NETS = [
    "fmnist_resnet.onnx",
    "fmnist_mobilenet.onnx",
    "fmnist_vit.onnx",
    "fmnist_resnet.bn13.onnx",
    "fmnist_mobilenet.raw.onnx",
]


@needs_shared
@pytest.mark.parametrize("name", REFERENCE_NETS)
def test_that_a_reference_network_gives_the_same_outputs_and_gradients(name: str) -> None:
    model = onnx.load(MODELS / name)
    feed = {"input": RNG.standard_normal((4, 1, 28, 28)).astype(np.float32)}
    module = TorchGraph(model)
    output = module(torch.from_numpy(feed["input"]))
    assert isinstance(output, torch.Tensor)
    expected = runtime(model, feed)
    error = np.abs(output.detach().numpy() - expected).max() / np.abs(expected).max()
    assert error < 1e-4
    output.square().sum().backward()
    matrices = [p for p in module.parameters() if p.ndim >= 2]
    assert len(matrices) >= 10
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in matrices)


@needs_shared
def test_that_a_real_nhwc_network_gives_the_same_outputs() -> None:
    model = onnx.load(THIRD_PARTY / "tinymlperf_vww_mobilenet.onnx")
    feed = {model.graph.input[0].name: RNG.random((1, 96, 96, 3)).astype(np.float32)}
    with torch.no_grad():
        found = TorchGraph(model).run(feed)[model.graph.output[0].name].numpy()
    np.testing.assert_allclose(found, runtime(model, feed), atol=1e-5)
