"""More models with quirks: layers inside bodies, recurrent layers, attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from tests.engine.builders import INT64, graph, model, node, random, value
from tests.engine.quirk_models import SAMPLES, Arrays, images, quirk, rows, scaled


@quirk(rows())
def layers_inside_if_and_loop(folder: Path) -> ModelProto:
    def branch(seed: int) -> onnx.GraphProto:
        return graph(
            [node("MatMul", ["x", "w"], ["out"], "inner")],
            [],
            [value("out", None)],
            {"w": scaled(32, 32, seed=seed)},
        )

    body = graph(
        [
            node("MatMul", ["state", "lw"], ["product"], "turn"),
            node("Relu", ["product"], ["next"], "keep"),
            node("Identity", ["going"], ["still"], "still"),
        ],
        [value("i", [], INT64), value("going", [], TensorProto.BOOL), value("state", None)],
        [value("still", [], TensorProto.BOOL), value("next", None)],
        {"lw": scaled(32, 32, seed=5)},
        "body",
    )
    nodes = [
        node("ReduceSum", ["x"], ["s"], "sum", keepdims=0),
        node("Greater", ["s", "zero"], ["c"], "sign"),
        node("If", ["c"], ["chosen"], "choice", then_branch=branch(1), else_branch=branch(2)),
        node("Loop", ["count", "true", "chosen"], ["looped"], "loop", body=body),
        node("MatMul", ["looped", "w"], ["y"], "head"),
    ]
    weights: Arrays = {
        "zero": np.zeros((), np.float32),
        "count": np.array(2, np.int64),
        "true": np.array(True),
        "w": scaled(32, 10, seed=7),
    }
    return model(nodes, [value("x", ["N", 32])], [value("y", ["N", 10])], weights, opset=13)


@quirk(lambda: {"x": random(SAMPLES, 6, 16)})
def scan_over_time(folder: Path) -> ModelProto:
    """A hand-written recurrent layer; the first axis is time inside."""
    body = graph(
        [
            node("MatMul", ["step", "wi"], ["a"], "input_product"),
            node("MatMul", ["state", "wh"], ["b"], "state_product"),
            node("Add", ["a", "b"], ["sum"], "add"),
            node("Tanh", ["sum"], ["new"], "tanh"),
            node("Identity", ["new"], ["scanned"], "out"),
        ],
        [value("state", None), value("step", None)],
        [value("new", None), value("scanned", None)],
        {"wi": scaled(16, 24), "wh": scaled(24, 24, seed=3)},
        "body",
    )
    weights: Arrays = {
        "none": np.zeros((1, 24), np.float32),
        "w": scaled(24, 10),
        "last": np.array(-1, np.int64),
        "wide": np.array([24], np.int64),
    }
    nodes = [
        node("Transpose", ["x"], ["xt"], "time_first", perm=[1, 0, 2]),
        node("Shape", ["x"], ["n"], "rows", start=0, end=1),
        node("Concat", ["n", "wide"], ["start_shape"], "start_shape", axis=0),
        node("Expand", ["none", "start_shape"], ["start"], "start"),
        node("Scan", ["start", "xt"], ["final", "all"], "scan", body=body, num_scan_inputs=1),
        node("MatMul", ["final", "w"], ["y"], "head"),
    ]
    return model(nodes, [value("x", ["N", 6, 16])], [value("y", ["N", 10])], weights, opset=17)


@quirk(lambda: {"ids": np.random.default_rng(0).integers(0, 50, (SAMPLES, 9)).astype(np.int64)})
def text_with_attention(folder: Path) -> ModelProto:
    """Embedding, one attention layer with hand-written softmax and LayerNorm, mask of -3.4e38."""
    d = 32
    weights: Arrays = {
        "table": random(50, d),
        "scale": np.array(1 / np.sqrt(d), np.float32),
        "lowest": np.array(np.finfo(np.float32).min, np.float32),
        "gamma": np.ones(d, np.float32),
        "beta": np.zeros(d, np.float32),
        "eps": np.array(1e-5, np.float32),
        "zero_id": np.array(0, np.int64),
        "axis1": np.array([1], np.int64),
    }
    for i, name in enumerate(("wq", "wk", "wv", "wo")):
        weights[name] = scaled(d, d, seed=10 + i)
    weights["head"] = scaled(d, 10, seed=20)
    nodes = [
        node("Gather", ["table", "ids"], ["e"], "embed"),
        node("MatMul", ["e", "wq"], ["q"], "query"),
        node("MatMul", ["e", "wk"], ["k"], "key"),
        node("MatMul", ["e", "wv"], ["v"], "value"),
        node("Transpose", ["k"], ["kt"], "kt", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["scores"], "scores"),
        node("Mul", ["scores", "scale"], ["scaled"], "scaled"),
        node("Equal", ["ids", "zero_id"], ["padded"], "padded"),
        node("Cast", ["padded"], ["pad_float"], "pad_float", to=TensorProto.FLOAT),
        node("Mul", ["pad_float", "lowest"], ["bias2"], "bias2"),
        node("Unsqueeze", ["bias2", "axis1"], ["bias"], "bias"),
        node("Add", ["scaled", "bias"], ["masked"], "masked"),
        node("ReduceMax", ["masked"], ["top"], "top", axes=[-1], keepdims=1),
        node("Sub", ["masked", "top"], ["shifted"], "shifted"),
        node("Exp", ["shifted"], ["exps"], "exps"),
        node("ReduceSum", ["exps", "last_axis"], ["total"], "total", keepdims=1),
        node("Div", ["exps", "total"], ["attention"], "attention"),
        node("MatMul", ["attention", "v"], ["context"], "context"),
        node("MatMul", ["context", "wo"], ["projected"], "output"),
        node("Add", ["projected", "e"], ["residual"], "residual"),
        node("ReduceMean", ["residual"], ["mu"], "mu", axes=[-1], keepdims=1),
        node("Sub", ["residual", "mu"], ["centred"], "centred"),
        node("Mul", ["centred", "centred"], ["square"], "square"),
        node("ReduceMean", ["square"], ["variance"], "variance", axes=[-1], keepdims=1),
        node("Add", ["variance", "eps"], ["safe"], "safe"),
        node("Sqrt", ["safe"], ["deviation"], "deviation"),
        node("Div", ["centred", "deviation"], ["normed"], "normed"),
        node("Mul", ["normed", "gamma"], ["gained"], "gained"),
        node("Add", ["gained", "beta"], ["shifted2"], "shifted2"),
        node("ReduceMean", ["shifted2"], ["pooled"], "pooled", axes=[1], keepdims=0),
        node("MatMul", ["pooled", "head"], ["y"], "head"),
    ]
    weights["last_axis"] = np.array([-1], np.int64)
    return model(nodes, [value("ids", ["N", "T"], INT64)], [value("y", ["N", 10])], weights, opset=13)


def _recurrent(op_type: str, gates: int) -> ModelProto:
    hidden, features = 24, 16
    weights: Arrays = {
        "W": random(1, gates * hidden, features) * np.float32(0.25),
        "R": random(1, gates * hidden, hidden, seed=1) * np.float32(0.2),
        "B": random(1, 2 * gates * hidden) * np.float32(0.1),
        "head": scaled(hidden, 10),
        "axis0": np.array([0], np.int64),
    }
    nodes = [
        node("Transpose", ["x"], ["xt"], "time_first", perm=[1, 0, 2]),
        node(op_type, ["xt", "W", "R", "B"], ["", "h"], "recurrent", hidden_size=hidden),
        node("Squeeze", ["h", "axis0"], ["s"], "squeeze"),
        node("MatMul", ["s", "head"], ["y"], "head"),
    ]
    return model(nodes, [value("x", ["N", 7, features])], [value("y", ["N", 10])], weights, opset=14)


@quirk(lambda: {"x": random(SAMPLES, 7, 16)})
def lstm(folder: Path) -> ModelProto:
    return _recurrent("LSTM", 4)


@quirk(lambda: {"x": random(SAMPLES, 7, 16)})
def gru(folder: Path) -> ModelProto:
    return _recurrent("GRU", 3)


@quirk(images())
def convolutions_inside_if(folder: Path) -> ModelProto:
    """The branches read the graph's input themselves, as does a node beside them."""

    def branch(seed: int) -> onnx.GraphProto:
        nodes = [
            node("Conv", ["x", "w"], ["o"], "c", pads=[1, 1, 1, 1]),
            node("Relu", ["o"], ["out"], "r"),
        ]
        return graph(nodes, [], [value("out", None)], {"w": scaled(8, 3, 3, 3, seed=seed)})

    nodes = [
        node("ReduceSum", ["x"], ["s"], "s", keepdims=0),
        node("Greater", ["s", "zero"], ["c"], "g"),
        node("If", ["c"], ["i"], "if", then_branch=branch(1), else_branch=branch(2)),
        node("Conv", ["i", "w2"], ["c2"], "c2"),
        node("GlobalAveragePool", ["c2"], ["g2"], "pool"),
        node("Flatten", ["g2"], ["y"], "flat"),
    ]
    weights = {"zero": np.zeros((), np.float32), "w2": scaled(10, 8, 3, 3)}
    return model(nodes, [value("x", ["N", 3, 12, 12])], [value("y", ["N", 10])], weights, opset=13)


@quirk(rows())
def if_inside_a_loop(folder: Path) -> ModelProto:
    def branch(seed: int) -> onnx.GraphProto:
        nodes = [node("MatMul", ["state", "w"], ["out"], "deep")]
        return graph(nodes, [], [value("out", None)], {"w": scaled(32, 32, seed=seed)})

    body = graph(
        [
            node("ReduceSum", ["state"], ["s"], "s", keepdims=0),
            node("Greater", ["s", "zero"], ["c"], "g"),
            node("If", ["c"], ["next"], "inner", then_branch=branch(1), else_branch=branch(2)),
            node("Identity", ["going"], ["still"], "still"),
        ],
        [value("i", [], INT64), value("going", [], TensorProto.BOOL), value("state", None)],
        [value("still", [], TensorProto.BOOL), value("next", None)],
        {"zero": np.zeros((), np.float32)},
        "body",
    )
    nodes = [node("Loop", ["n", "t", "x"], ["y"], "loop", body=body)]
    weights: Arrays = {"n": np.array(2, np.int64), "t": np.array(True)}
    return model(nodes, [value("x", ["N", 32])], [value("y", None)], weights, opset=13)


@quirk(lambda: {"x": random(SAMPLES, 7, 16)})
def bidirectional_lstm(folder: Path) -> ModelProto:
    hidden = 12
    weights: Arrays = {
        "W": random(2, 4 * hidden, 16) * np.float32(0.25),
        "R": random(2, 4 * hidden, hidden) * np.float32(0.2),
        "B": random(2, 8 * hidden) * np.float32(0.1),
        "head": scaled(2 * hidden, 10),
    }
    nodes = [
        node("Transpose", ["x"], ["xt"], "time_first", perm=[1, 0, 2]),
        node(
            "LSTM",
            ["xt", "W", "R", "B"],
            ["sequence", "h", "c"],
            "recurrent",
            hidden_size=hidden,
            direction="bidirectional",
        ),
        node("Transpose", ["h"], ["ht"], "batch_first", perm=[1, 0, 2]),
        node("Flatten", ["ht"], ["flat"], "flat"),
        node("MatMul", ["flat", "head"], ["y"], "head"),
    ]
    return model(nodes, [value("x", ["N", 7, 16])], [value("y", ["N", 10])], weights, opset=14)


@quirk(lambda: {"x": random(SAMPLES, 6, 16)})
def einsum_and_weights_in_three_dimensions(folder: Path) -> ModelProto:
    weights: Arrays = {
        "w": scaled(16, 24),
        "heads": random(6, 24, 16) * np.float32(0.2),
        "head": scaled(16, 10),
    }
    nodes = [
        node("Einsum", ["x", "w"], ["e"], "einsum", equation="btk,kn->btn"),
        node("Relu", ["e"], ["r"], "relu"),
        node("Unsqueeze", ["r", "axis"], ["u"], "up"),
        node("MatMul", ["u", "heads"], ["m"], "batched"),
        node("ReduceMean", ["m"], ["p"], "pool", axes=[1, 2], keepdims=0),
        node("MatMul", ["p", "head"], ["y"], "head"),
    ]
    weights["axis"] = np.array([2], np.int64)
    return model(nodes, [value("x", ["N", 6, 16])], [value("y", ["N", 10])], weights, opset=13)


@quirk(lambda: {"x": np.random.default_rng(0).integers(0, 50, (SAMPLES, 5)).astype(np.int64)})
def tied_embedding(folder: Path) -> ModelProto:
    """The table is read again, transposed, as the weight of the output layer."""
    nodes = [
        node("Gather", ["table", "x"], ["e"], "embed"),
        node("MatMul", ["e", "w"], ["h"], "hidden"),
        node("Tanh", ["h"], ["t"], "tanh"),
        node("Transpose", ["table"], ["turned"], "turn", perm=[1, 0]),
        node("MatMul", ["t", "turned"], ["y"], "unembed"),
    ]
    weights = {"table": random(50, 32) * np.float32(0.3), "w": scaled(32, 32)}
    return model(nodes, [value("x", ["N", "T"], INT64)], [value("y", ["N", "T", 50])], weights, opset=13)


@quirk(rows(16))
def weight_on_the_left(folder: Path) -> ModelProto:
    nodes = [
        node("Unsqueeze", ["x", "axis"], ["u"], "up"),
        node("MatMul", ["w", "u"], ["h"], "left"),
        node("Relu", ["h"], ["r"], "relu"),
        node("Squeeze", ["r", "axis"], ["s"], "down"),
        node("MatMul", ["s", "head"], ["y"], "head"),
    ]
    weights: Arrays = {"axis": np.array([2], np.int64), "w": scaled(24, 16), "head": scaled(24, 10)}
    return model(nodes, [value("x", ["N", 16])], [value("y", ["N", 10])], weights, opset=13)
