"""Networks, data and listeners that the tests of sensitivity share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.events import CancelToken, NullReporter, Part, Severity
from quantstudio.core.judgement import Judging, Task
from quantstudio.core.precision import LayerScheme, Precision, WeightRange
from quantstudio.core.results import LayerSensitivity
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.model.open import open_model

RNG = np.random.default_rng(11)
INT4 = LayerScheme(Precision.INT4, weight_range=WeightRange.MSE)


def normal(*shape: int, scale: float = 1.0) -> NDArray[np.float32]:
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


def opened(
    tmp_path: Path,
    nodes: list[onnx.NodeProto],
    weights: Mapping[str, np.ndarray],
    inputs: Mapping[str, tuple[int, list[Any]]],
    outputs: Mapping[str, list[Any]],
) -> Graph:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs.items()],
        [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return open_model(path)


def data_of(tmp_path: Path, graph: Graph, task: Task | None = None, **arrays: np.ndarray) -> Dataset:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return open_dataset(DataSpec(str(path), judging=Judging(task)), graph.summary.inputs)


W1, W2, B2 = normal(6, 12, scale=0.6), normal(12, 4, scale=0.8), normal(4)


def perceptron(tmp_path: Path, *, softmax: bool = False) -> Graph:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["z" if softmax else "y"], name="second"),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["z"], ["y"], name="softmax"))
    return opened(
        tmp_path,
        nodes,
        {"w1": W1, "w2": W2, "b2": B2},
        {"x": (TensorProto.FLOAT, ["n", 6])},
        {"y": ["n", 4]},
    )


def logits_of(x: np.ndarray, w1: np.ndarray = W1, w2: np.ndarray = W2) -> np.ndarray:
    return np.asarray(np.maximum(x.astype(np.float64) @ w1, 0) @ w2 + B2)


def log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(-1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(-1, keepdims=True)))


def mean_kl(a: np.ndarray, b: np.ndarray) -> float:
    p, q = log_softmax(a), log_softmax(b)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


class Events(NullReporter):
    def __init__(self, token: CancelToken | None = None, cancel_after: int = 0) -> None:
        self.layers: list[LayerSensitivity] = []
        self.texts: list[str] = []
        self.steps: list[tuple[int, int]] = []
        self._token, self._cancel_after = token, cancel_after

    def found(self, part: Part) -> None:
        assert isinstance(part, LayerSensitivity)
        self.layers.append(part)
        if self._token is not None and len(self.layers) == self._cancel_after:
            self._token.set()

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        self.steps.append((done, total))

    def message(self, text: str, severity: Severity = Severity.INFO) -> None:
        self.texts.append(text)


X = normal(300, 6)
Y = logits_of(X).argmax(1)


def by_name(layers: tuple[LayerSensitivity, ...]) -> dict[str, LayerSensitivity]:
    return {layer.name: layer for layer in layers}
