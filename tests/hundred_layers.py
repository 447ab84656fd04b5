"""A residual network of a hundred small MatMuls, and data for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS = 100


def hundred_layers(folder: Path, samples: int) -> tuple[Path, Path]:
    """The model's file and the data's."""
    rng = np.random.default_rng(5)
    nodes, weights, last = [], [], "x"
    for i in range(LAYERS - 1):
        weights.append(numpy_helper.from_array((0.2 * rng.normal(size=(8, 8))).astype(np.float32), f"w{i}"))
        nodes += [
            helper.make_node("MatMul", [last, f"w{i}"], [f"m{i}"], name=f"layer{i}"),
            helper.make_node("Tanh", [f"m{i}"], [f"t{i}"], name=f"tanh{i}"),
            helper.make_node("Add", [last, f"t{i}"], [f"a{i}"], name=f"add{i}"),
        ]
        last = f"a{i}"
    weights.append(numpy_helper.from_array(rng.normal(size=(8, 4)).astype(np.float32), "head"))
    nodes.append(helper.make_node("MatMul", [last, "head"], ["y"], name=f"layer{LAYERS - 1}"))
    graph = helper.make_graph(
        nodes,
        "hundred",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, folder / "hundred.onnx")
    np.savez(folder / "data.npz", x=rng.normal(size=(samples, 8)).astype(np.float32))
    return folder / "hundred.onnx", folder / "data.npz"
