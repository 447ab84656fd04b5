"""Small networks of every kind a person may bring, with data; weights are random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SAMPLES = 12
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Kind:
    """A network with data.

    Attributes:
        model: The network.
        arrays: One array an input; or one feed a file.
        feeds: Whether `arrays` is one feed a file.
    """

    model: onnx.ModelProto
    arrays: Arrays | list[Arrays]

    def saved(self, folder: Path) -> tuple[Path, Path]:
        """Paths of the network and of its data."""
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(self.model, str(folder / "net.onnx"))
        if isinstance(self.arrays, list):
            (folder / "data").mkdir(exist_ok=True)
            for index, feed in enumerate(self.arrays):
                np.savez(folder / "data" / f"feed{index}.npz", **cast("Any", feed))
            return folder / "net.onnx", folder / "data"
        np.savez(folder / "data.npz", **cast("Any", self.arrays))
        return folder / "net.onnx", folder / "data.npz"


class Builder:
    """Collects nodes and weights."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)

    def weight(self, *shape: int, scale: float | None = None) -> str:
        name = f"w{len(self.weights)}"
        size = np.sqrt(2 / max(int(np.prod(shape[1:])), 1)) if scale is None else scale
        values = (size * self.random.standard_normal(shape)).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def constant(self, values: Any) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, op: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        made = output or f"t{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op, inputs, [made], f"{op.lower()}{len(self.nodes)}", **attributes)
        )
        return made

    def model(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> onnx.ModelProto:
        def infos(values: dict[str, Any]) -> list[onnx.ValueInfoProto]:
            made = []
            for name, shape in values.items():
                kind = TensorProto.INT64 if shape and shape[0] == "int" else TensorProto.FLOAT
                made.append(helper.make_tensor_value_info(name, kind, [d for d in shape if d != "int"]))
            return made

        graph = helper.make_graph(self.nodes, "net", infos(inputs), infos(outputs), self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def normal(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    """Reproducible noise."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def time_major() -> Kind:
    """[time, batch, features] to log-probabilities [time, batch, classes], as recognisers write them."""
    b = Builder()
    hidden = b.add("Relu", [b.add("MatMul", ["x", b.weight(8, 16)])])
    b.add("LogSoftmax", [b.add("MatMul", [hidden, b.weight(16, 6)])], "scores", axis=-1)
    model = b.model({"x": ["time", "batch", 8]}, {"scores": ["time", "batch", 6]})
    return Kind(model, {"x": normal(20, SAMPLES, 8)})


def stateful() -> Kind:
    """A step of a recurrent network: state [2, batch, 16] in and out."""
    b = Builder()
    first = b.add("Squeeze", [b.add("Slice", ["state", b.constant([0]), b.constant([1])]), b.constant([0])])
    last = b.add("Slice", ["state", b.constant([1]), b.constant([2])])
    mixed = b.add(
        "Add", [b.add("MatMul", ["x", b.weight(8, 16)]), b.add("MatMul", [first, b.weight(16, 16)])]
    )
    hidden = b.add("Tanh", [mixed])
    b.add("Softmax", [b.add("MatMul", [hidden, b.weight(16, 5)])], "probs", axis=-1)
    b.add("Concat", [last, b.add("Unsqueeze", [hidden, b.constant([0])])], "new_state", axis=0)
    model = b.model(
        {"x": ["batch", 8], "state": [2, "batch", 16]},
        {"probs": ["batch", 5], "new_state": [2, "batch", 16]},
    )
    return Kind(model, {"x": normal(SAMPLES, 8), "state": normal(2, SAMPLES, 16, seed=2)})


def detector() -> Kind:
    """A one-stage head [batch, 4 + classes, cells] over pictures of 64x64: 8*8 + 4*4 + 2*2 cells."""
    b = Builder()
    cells, stride = [], []
    for size in (8, 16, 32):
        y, x = np.mgrid[: 64 // size, : 64 // size]
        cells.append(np.stack([(x.ravel() + 0.5) * size, (y.ravel() + 0.5) * size]))
        stride.append(np.full((64 // size) ** 2, size))
    parts_box, parts_score = [], []
    features = b.add("Relu", [b.add("Conv", ["images", b.weight(8, 3, 3, 3)], pads=[1, 1, 1, 1])])
    shape = b.constant(np.array([0, 8, -1], np.int64))
    for size in (8, 16, 32):
        pooled = b.add("AveragePool", [features], kernel_shape=[size, size], strides=[size, size])
        flat = b.add("Reshape", [pooled, shape])
        parts_box.append(b.add("MatMul", [b.weight(4, 8, scale=1.0), flat]))
        parts_score.append(b.add("MatMul", [b.weight(3, 8, scale=12.0), flat]))
    boxes = b.add("Sigmoid", [b.add("Concat", parts_box, axis=2)])
    steps = np.concatenate(stride).astype(np.float32)
    offset = np.concatenate([np.concatenate(cells, axis=1), np.stack([steps, steps])]).astype(np.float32)
    scaled = b.add("Add", [b.add("Mul", [boxes, b.constant(steps)]), b.constant(offset[None])])
    scores = b.add("Sigmoid", [b.add("Concat", parts_score, axis=2)])
    b.add("Concat", [scaled, scores], "output0", axis=1)
    model = b.model({"images": ["batch", 3, 64, 64]}, {"output0": ["batch", 7, 84]})
    blocks = np.random.default_rng(3).standard_normal((SAMPLES, 3, 8, 8)).astype(np.float32)
    return Kind(model, {"images": blocks.repeat(8, axis=2).repeat(8, axis=3)})


def with_integers() -> Kind:
    """Token numbers passed through as the first output, scores second."""
    b = Builder()
    b.add("Identity", ["input_ids"], "ids")
    words = b.add("Gather", [b.weight(50, 16, scale=1.0), "input_ids"])
    mean = b.add("ReduceMean", [words, b.constant(np.array([1], np.int64))], keepdims=0)
    b.add("MatMul", [mean, b.weight(16, 4)], "logits")
    model = b.model(
        {"input_ids": ["int", "batch", "sequence"]},
        {"ids": ["int", "batch", "sequence"], "logits": ["batch", 4]},
    )
    ids = np.random.default_rng(4).integers(0, 50, (SAMPLES, 9))
    return Kind(model, {"input_ids": ids})


def variable_length() -> Kind:
    """A recogniser of lines of any width: one feed a file."""
    b = Builder()
    lines = b.add("Relu", [b.add("Conv", ["lines", b.weight(8, 1, 8, 3)], pads=[0, 1, 0, 1])])
    rows = b.add(
        "Transpose", [b.add("Squeeze", [lines, b.constant(np.array([2], np.int64))])], perm=[0, 2, 1]
    )
    b.add("Softmax", [b.add("MatMul", [rows, b.weight(8, 7)])], "chars", axis=2)
    model = b.model({"lines": ["N", 1, 8, "width"]}, {"chars": ["N", "width", 7]})
    return Kind(model, [{"lines": normal(1, 1, 8, 10 + i, seed=i)} for i in range(SAMPLES)])


def graph_network() -> Kind:
    """Nodes and edges of one graph a file; a class for each node."""
    b = Builder()
    sent = b.add("Gather", ["nodes", b.add("Gather", ["edges", b.constant(np.int64(0))])])
    to = b.add("Unsqueeze", [b.add("Gather", ["edges", b.constant(np.int64(1))]), b.constant(np.array([1]))])
    message = b.add("MatMul", [sent, b.weight(6, 8)])
    start = b.add("MatMul", ["nodes", b.weight(6, 8)])
    index = b.add("Expand", [to, b.add("Shape", [message])])
    mixed = b.add("ScatterElements", [start, index, message], axis=0, reduction="add")
    b.add("Softmax", [b.add("MatMul", [b.add("Relu", [mixed]), b.weight(8, 3)])], "kinds", axis=-1)
    model = b.model(
        {"nodes": ["nodes_count", 6], "edges": ["int", 2, "edges_count"]}, {"kinds": ["nodes_count", 3]}
    )
    feeds: list[Arrays] = []
    for i in range(SAMPLES):
        count = 4 + i % 5
        edges = np.random.default_rng(i).integers(0, count, (2, 2 * count))
        feeds.append({"nodes": normal(count, 6, seed=i), "edges": edges})
    return Kind(model, feeds)


def channels_last() -> Kind:
    """Pictures [batch, height, width, channels], a Softmax over classes."""
    b = Builder()
    moved = b.add("Transpose", ["picture"], perm=[0, 3, 1, 2])
    features = b.add("Relu", [b.add("Conv", [moved, b.weight(8, 3, 3, 3)])])
    flat = b.add("Flatten", [b.add("GlobalAveragePool", [features])])
    b.add("Softmax", [b.add("MatMul", [flat, b.weight(8, 4)])], "out", axis=-1)
    model = b.model({"picture": ["batch", 12, 12, 3]}, {"out": ["batch", 4]})
    return Kind(model, {"picture": normal(SAMPLES, 12, 12, 3)})


def encoder() -> Kind:
    """Tokens to hidden states and one vector of length one."""
    b = Builder()
    words = b.add("Gather", [b.weight(50, 32, scale=1.0), "input_ids"])
    hidden = b.add("Add", [words, b.add("MatMul", [words, b.weight(32, 32)])])
    one, zero = b.constant(np.ones(32, np.float32)), b.constant(np.zeros(32, np.float32))
    b.add("LayerNormalization", [hidden, one, zero], "last_hidden_state", axis=-1)
    mean = b.add("ReduceMean", ["last_hidden_state", b.constant(np.array([1], np.int64))], keepdims=0)
    b.add("LpNormalization", [mean], "sentence_embedding", axis=-1, p=2)
    model = b.model(
        {"input_ids": ["int", "batch", "sequence"]},
        {"last_hidden_state": ["batch", "sequence", 32], "sentence_embedding": ["batch", 32]},
    )
    ids = np.random.default_rng(5).integers(0, 50, (SAMPLES, 9))
    return Kind(model, {"input_ids": ids})


def multi_label() -> Kind:
    """Several yes-or-no labels a sample, each behind its Sigmoid."""
    b = Builder()
    hidden = b.add("Relu", [b.add("MatMul", ["x", b.weight(8, 16)])])
    b.add("Sigmoid", [b.add("MatMul", [hidden, b.weight(16, 5)])], "tags")
    return Kind(b.model({"x": ["batch", 8]}, {"tags": ["batch", 5]}), {"x": normal(SAMPLES, 8)})


def several_targets() -> Kind:
    """Three numbers a sample, with targets."""
    b = Builder()
    hidden = b.add("Relu", [b.add("MatMul", ["x", b.weight(8, 16)])])
    b.add("MatMul", [hidden, b.weight(16, 3)], "out")
    x = normal(SAMPLES, 8)
    return Kind(b.model({"x": ["batch", 8]}, {"out": ["batch", 3]}), {"x": x, "y": x[:, :3] * 2 + 0.1})


def segmenter() -> Kind:
    """A class for each pixel."""
    b = Builder()
    features = b.add("Relu", [b.add("Conv", ["image", b.weight(8, 3, 3, 3)], pads=[1, 1, 1, 1])])
    b.add("Softmax", [b.add("Conv", [features, b.weight(4, 8, 1, 1)])], "map", axis=1)
    model = b.model({"image": ["batch", 3, 16, 16]}, {"map": ["batch", 4, 16, 16]})
    return Kind(model, {"image": normal(SAMPLES, 3, 16, 16)})


def raw_maps(*, are_split: bool = False) -> Kind:
    """A detector that leaves its boxes to whoever runs it: three maps of [3 * (5 + 2), cells], or split."""
    b = Builder()
    before, outputs = "image", {}
    before = b.add("Conv", [before, b.weight(8, 3, 8, 8)], strides=[8, 8])
    for size in (8, 4, 2):
        name = f"out{size}"
        found = b.add("Conv", [before, b.weight(21, 8, 1, 1)], "" if are_split else name)
        outputs[name] = ["batch", 21, size, size]
        if are_split:
            shape = b.constant(np.array([0, 3, 7, size, size], np.int64))
            b.add("Transpose", [b.add("Reshape", [found, shape])], name, perm=[0, 3, 4, 1, 2])
            outputs[name] = ["batch", size, size, 3, 7]
        before = b.add("MaxPool", [before], kernel_shape=[2, 2], strides=[2, 2])
    return Kind(b.model({"image": ["batch", 3, 64, 64]}, outputs), {"image": normal(SAMPLES, 3, 64, 64)})


def denoiser() -> Kind:
    """A signal in, a signal of the same form out."""
    b = Builder()
    features = b.add("Tanh", [b.add("Conv", ["wave", b.weight(8, 1, 9)], pads=[4, 4])])
    b.add("Conv", [features, b.weight(1, 8, 9)], "clean", pads=[4, 4])
    model = b.model({"wave": ["batch", 1, 256]}, {"clean": ["batch", 1, 256]})
    return Kind(model, {"wave": normal(SAMPLES, 1, 256)})


def nameless() -> Kind:
    """Seven numbers a sample that nothing says the meaning of."""
    b = Builder()
    hidden = b.add("Relu", [b.add("MatMul", ["x", b.weight(8, 16)])])
    b.add("MatMul", [hidden, b.weight(16, 7)], "out")
    return Kind(b.model({"x": ["batch", 8]}, {"out": ["batch", 7]}), {"x": normal(SAMPLES, 8)})


KINDS: dict[str, Callable[[], Kind]] = {
    "time-major": time_major,
    "stateful": stateful,
    "detector": detector,
    "with integers": with_integers,
    "variable length": variable_length,
    "graph network": graph_network,
    "channels last": channels_last,
    "encoder": encoder,
    "multi-label": multi_label,
    "several targets": several_targets,
    "segmenter": segmenter,
    "denoiser": denoiser,
    "nameless": nameless,
}


def disturbed(model: onnx.ModelProto, share: float, seed: int = 9) -> onnx.ModelProto:
    """The network with noise on its weights, so many of their spread."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    random = np.random.default_rng(seed)
    for tensor in changed.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name.startswith("w"):
            noise = share * values.std() * random.standard_normal(values.shape)
            tensor.CopyFrom(numpy_helper.from_array((values + noise).astype(np.float32), tensor.name))
    return changed
