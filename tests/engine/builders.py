"""Small ONNX models with one quirk each, made with onnx.helper and fixed random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

Shape = Sequence[int | str | None]
FLOAT = TensorProto.FLOAT
INT64 = TensorProto.INT64


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Standard normal float32 values, the same on every call with the same arguments."""
    return (
        np.random.default_rng(seed + 1000 * len(shape) + sum(shape)).standard_normal(shape).astype(np.float32)
    )


def value(name: str, shape: Shape | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    """A graph input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


def node(
    op_type: str, inputs: Sequence[str], outputs: Sequence[str], name: str = "", **attributes: Any
) -> NodeProto:
    """A node."""
    return helper.make_node(op_type, list(inputs), list(outputs), name, **attributes)


def graph(
    nodes: Sequence[NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Mapping[str, NDArray[Any]] | None = None,
    name: str = "graph",
) -> GraphProto:
    """A graph with numpy weights."""
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()]
    return helper.make_graph(list(nodes), name, list(inputs), list(outputs), tensors)


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Mapping[str, NDArray[Any]] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 8,
    domains: Mapping[str, int] | None = None,
) -> ModelProto:
    """A model."""
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(domain, version) for domain, version in (domains or {}).items()]
    made = helper.make_model(graph(nodes, inputs, outputs, weights), opset_imports=imports)
    made.ir_version = ir_version
    return made


def save(made: ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """Write the model and return its path."""
    path = folder / name
    onnx.save(made, path)
    return path


def outputs_of(made: ModelProto | Path | str, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Outputs of a plain ONNX Runtime run, independent of the code under test."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = made.SerializeToString() if isinstance(made, ModelProto) else str(made)
    session = ort.InferenceSession(source, options)
    return list(session.run(None, dict(feed)))


def op_types(made: ModelProto) -> list[str]:
    """Operators of the main graph in order."""
    return [n.op_type for n in made.graph.node]


def conv_net(
    *, opset: int = 17, batchnorm: bool = False, bias: bool = True, batch: int | str = "N"
) -> ModelProto:
    """x [N, 3, 8, 8] -> Conv 3x3 (4) -> [BatchNormalization] -> Relu -> mean over H, W -> Gemm (5)."""
    weights: dict[str, NDArray[Any]] = {
        "conv.weight": random(4, 3, 3, 3),
        "fc.weight": random(5, 4),
        "fc.bias": random(5),
    }
    reads = ["x", "conv.weight"]
    if bias:
        weights["conv.bias"] = random(4)
        reads.append("conv.bias")
    nodes = [node("Conv", reads, ["c"], "conv", pads=[1, 1, 1, 1])]
    last = "c"
    if batchnorm:
        weights |= batchnorm_weights(4)
        nodes.append(
            node("BatchNormalization", ["c", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["b"], "bn")
        )
        last = "b"
    nodes += [
        node("Relu", [last], ["r"], "relu"),
        node("GlobalAveragePool", ["r"], ["p"], "pool"),
        node("Flatten", ["p"], ["f"], "flatten"),
        node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], "fc", transB=1),
    ]
    return model(nodes, [value("x", [batch, 3, 8, 8])], [value("y", [batch, 5])], weights, opset=opset)


def batchnorm_weights(channels: int, prefix: str = "bn") -> dict[str, NDArray[Any]]:
    """Scale, bias, mean and (positive) variance."""
    return {
        f"{prefix}.scale": random(channels, seed=1) + 2,
        f"{prefix}.bias": random(channels, seed=2),
        f"{prefix}.mean": random(channels, seed=3),
        f"{prefix}.var": np.abs(random(channels, seed=4)) + 0.5,
    }


def mlp(*, opset: int = 17, hidden: int = 16) -> ModelProto:
    """x [N, 8] -> MatMul, Add -> Relu -> MatMul -> y [N, 3]."""
    weights = {"w1": random(8, hidden), "b1": random(hidden), "w2": random(hidden, 3)}
    nodes = [
        node("MatMul", ["x", "w1"], ["h"], "first"),
        node("Add", ["h", "b1"], ["a"], "bias"),
        node("Relu", ["a"], ["r"], "relu"),
        node("MatMul", ["r", "w2"], ["y"], "second"),
    ]
    return model(nodes, [value("x", ["N", 8])], [value("y", ["N", 3])], weights, opset=opset)


def if_model() -> ModelProto:
    """x [N, 4] through one of two MatMuls, chosen by the sign of its sum; names repeat in both."""

    def branch(weight_seed: int) -> GraphProto:
        weights = {"w": random(4, 4, seed=weight_seed)}
        return graph([node("MatMul", ["x", "w"], ["out"])], [], [value("out", None)], weights, "branch")

    nodes = [
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Greater", ["s", "zero"], ["c"]),
        node("If", ["c"], ["y"], "choice", then_branch=branch(1), else_branch=branch(2)),
    ]
    weights = {"zero": np.zeros((), np.float32)}
    return model(nodes, [value("x", ["N", 4])], [value("y", ["N", 4])], weights, opset=13)


def loop_model(steps: int = 3) -> ModelProto:
    """x [N, 4] multiplied `steps` times by one weight that lives in the Loop's body."""
    body = graph(
        [
            node("MatMul", ["state", "w"], ["next"], "product"),
            node("Identity", ["going"], ["still"], "keep"),
        ],
        [value("i", [], INT64), value("going", [], TensorProto.BOOL), value("state", None)],
        [value("still", [], TensorProto.BOOL), value("next", None)],
        {"w": random(4, 4) * np.float32(0.3)},
        "body",
    )
    nodes = [node("Loop", ["count", "true", "x"], ["y"], "loop", body=body)]
    weights = {"count": np.array(steps, np.int64), "true": np.array(True)}
    return model(nodes, [value("x", ["N", 4])], [value("y", ["N", 4])], weights, opset=13)


def lstm_model(hidden: int = 6, features: int = 5) -> ModelProto:
    """x [T, N, 5] -> LSTM -> last hidden state [1, N, 6]."""
    weights = {
        "W": random(1, 4 * hidden, features),
        "R": random(1, 4 * hidden, hidden),
        "B": random(1, 8 * hidden),
    }
    nodes = [node("LSTM", ["x", "W", "R", "B"], ["", "h"], "lstm", hidden_size=hidden)]
    return model(nodes, [value("x", [7, "N", features])], [value("h", [1, "N", hidden])], weights, opset=14)
