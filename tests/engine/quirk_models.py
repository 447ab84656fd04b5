"""Models with the quirks real files have, each with data of a known kind to quantize and compare on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.engine.builders import batchnorm_weights, model, node, random, value

Arrays = dict[str, NDArray[Any]]
SAMPLES = 48


@dataclass(frozen=True)
class Quirk:
    """A model and samples of its inputs.

    Attributes:
        make: Makes the model; it may write files beside where it will lie.
        arrays: One array per input.
    """

    make: Callable[[Path], ModelProto]
    arrays: Callable[[], Arrays]


QUIRKS: dict[str, Quirk] = {}


def quirk(
    arrays: Callable[[], Arrays],
) -> Callable[[Callable[[Path], ModelProto]], Callable[[Path], ModelProto]]:
    """Register a maker under its function's name."""

    def register(make: Callable[[Path], ModelProto]) -> Callable[[Path], ModelProto]:
        QUIRKS[make.__name__] = Quirk(make, arrays)
        return make

    return register


def images(channels: int = 3, size: int = 12) -> Callable[[], Arrays]:
    return lambda: {"x": random(SAMPLES, channels, size, size)}


def rows(width: int = 32) -> Callable[[], Arrays]:
    return lambda: {"x": random(SAMPLES, width)}


def scaled(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Weights that keep the size of what flows through."""
    fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
    return np.asarray(random(*shape, seed=seed) / np.float32(np.sqrt(fan_in)))


def _conv_body(prefix: str = "") -> tuple[list[onnx.NodeProto], Arrays]:
    weights: Arrays = {
        "w1": scaled(16, 3, 3, 3),
        "b1": random(16) * np.float32(0.1),
        "w2": scaled(32, 16, 3, 3),
        "w3": scaled(10, 32, seed=2),
        "b3": random(10) * np.float32(0.1),
    }
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], prefix and f"{prefix}1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], prefix and f"{prefix}r1"),
        node("Conv", ["r1", "w2"], ["c2"], prefix and f"{prefix}2", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c2"], ["r2"], prefix and f"{prefix}r2"),
        node("GlobalAveragePool", ["r2"], ["g"], prefix and f"{prefix}g"),
        node("Flatten", ["g"], ["f"], prefix and f"{prefix}f"),
        node("Gemm", ["f", "w3", "b3"], ["y"], prefix and f"{prefix}3", transB=1),
    ]
    return nodes, weights


@quirk(images())
def unnamed_nodes_opset_7_ir_3(folder: Path) -> ModelProto:
    """Initializers are inputs too, as IR 3 demands."""
    nodes, weights = _conv_body()
    inputs = [value("x", ["N", 3, 12, 12]), *(value(k, v.shape) for k, v in weights.items())]
    return model(nodes, inputs, [value("y", ["N", 10])], weights, opset=7, ir_version=3)


@quirk(images())
def repeated_names(folder: Path) -> ModelProto:
    nodes, weights = _conv_body("n")
    for one in nodes:
        one.name = "node"
    return model(nodes, [value("x", ["N", 3, 12, 12])], [value("y", ["N", 10])], weights, opset=9)


@quirk(images())
def weights_in_constant_nodes(folder: Path) -> ModelProto:
    nodes, weights = _conv_body("n")
    constants = [
        node("Constant", [], [k], f"const_{k}", value=numpy_helper.from_array(v)) for k, v in weights.items()
    ]
    return model([*constants, *nodes], [value("x", ["N", 3, 12, 12])], [value("y", ["N", 10])], opset=11)


@quirk(rows())
def weights_behind_reshape_transpose_identity(folder: Path) -> ModelProto:
    weights: Arrays = {
        "flat": scaled(32, 24).reshape(-1),
        "shape": np.array([32, 24], np.int64),
        "turned": np.ascontiguousarray(scaled(24, 16).T),
        "plain": scaled(16, 10),
    }
    nodes = [
        node("Reshape", ["flat", "shape"], ["w1"], "reshape"),
        node("MatMul", ["x", "w1"], ["h1"], "one"),
        node("Relu", ["h1"], ["a1"], "r1"),
        node("Transpose", ["turned"], ["w2"], "turn", perm=[1, 0]),
        node("MatMul", ["a1", "w2"], ["h2"], "two"),
        node("Relu", ["h2"], ["a2"], "r2"),
        node("Identity", ["plain"], ["w3"], "same"),
        node("MatMul", ["a2", "w3"], ["y"], "three"),
    ]
    return model(nodes, [value("x", ["N", 32])], [value("y", ["N", 10])], weights, opset=13)


@quirk(images())
def computed_bias_and_clip(folder: Path) -> ModelProto:
    """As torch's exporter writes them with its optimizer off: Shape, Expand, CastLike."""
    weights: Arrays = {
        "w1": scaled(16, 3, 3, 3),
        "zero": np.zeros((), np.float32),
        "n": np.array([16], np.int64),
        "six": np.array(6, np.int64),
        "w2": scaled(10, 16),
    }
    nodes = [
        node("Expand", ["zero", "n"], ["b1"], "bias"),
        node("Conv", ["x", "w1", "b1"], ["c"], "conv"),
        node("CastLike", ["zero", "c"], ["low"], "low"),
        node("CastLike", ["six", "c"], ["high"], "high"),
        node("Clip", ["c", "low", "high"], ["r"], "clip"),
        node("GlobalAveragePool", ["r"], ["g"], "pool"),
        node("Shape", ["x"], ["s"], "shape", start=0, end=1),
        node("Constant", [], ["rest"], "rest", value=numpy_helper.from_array(np.array([16], np.int64))),
        node("Concat", ["s", "rest"], ["target"], "target", axis=0),
        node("Reshape", ["g", "target"], ["f"], "flat"),
        node("Gemm", ["f", "w2"], ["y"], "fc", transB=1),
    ]
    return model(nodes, [value("x", ["N", 3, 12, 12])], [value("y", ["N", 10])], weights, opset=18)


@quirk(images())
def separate_batchnorm_depthwise_relu6(folder: Path) -> ModelProto:
    weights: Arrays = {
        "w1": scaled(16, 3, 3, 3),
        "w2": random(16, 1, 3, 3) * np.float32(0.4),
        "w3": scaled(24, 16, 1, 1),
        "w4": scaled(10, 24),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
    }
    for prefix, channels in (("p", 16), ("q", 16), ("s", 24)):
        weights |= batchnorm_weights(channels, prefix)
    nodes = []
    last = "x"
    for i, (prefix, group) in enumerate((("p", 1), ("q", 16), ("s", 1)), 1):
        pads = [0, 0, 0, 0] if i == 3 else [1, 1, 1, 1]
        nodes += [
            node("Conv", [last, f"w{i}"], [f"c{i}"], f"conv{i}", group=group, pads=pads),
            node(
                "BatchNormalization",
                [f"c{i}", *(f"{prefix}.{k}" for k in ("scale", "bias", "mean", "var"))],
                [f"n{i}"],
                f"bn{i}",
            ),
        ]
        last = f"n{i}"
        if i < 3:
            nodes.append(node("Clip", [last, "low", "high"], [f"r{i}"], f"clip{i}"))
            last = f"r{i}"
    nodes += [
        node("ReduceMean", [last], ["m"], "mean", axes=[2, 3], keepdims=0),
        node("Gemm", ["m", "w4"], ["y"], "fc", transB=1),
    ]
    return model(nodes, [value("x", ["N", 3, 12, 12])], [value("y", ["N", 10])], weights, opset=13)


@quirk(lambda: {"x": np.random.default_rng(0).integers(0, 256, (SAMPLES, 12, 12, 3)).astype(np.uint8)})
def nhwc_uint8_with_transpose(folder: Path) -> ModelProto:
    nodes, weights = _conv_body("n")
    weights |= {"half": np.array(127.5, np.float32)}
    head = [
        node("Cast", ["x_in"], ["floats"], "cast", to=TensorProto.FLOAT),
        node("Sub", ["floats", "half"], ["centred"], "sub"),
        node("Div", ["centred", "half"], ["unit"], "div"),
        node("Transpose", ["unit"], ["x"], "to_nchw", perm=[0, 3, 1, 2]),
    ]
    return model(
        [*head, *nodes],
        [value("x_in", ["N", 12, 12, 3], TensorProto.UINT8)],
        [value("y", ["N", 10])],
        weights,
        opset=13,
    )


@quirk(
    lambda: {
        "a": random(SAMPLES, 3, 8, 8),
        "b": random(SAMPLES, 16),
        "index": np.random.default_rng(0).integers(0, 20, (SAMPLES, 5)).astype(np.int32),
        "gain": np.array(0.5, np.float32),
    }
)
def several_inputs_and_outputs_and_a_scalar(folder: Path) -> ModelProto:
    weights: Arrays = {
        "w1": scaled(8, 3, 3, 3),
        "table": random(20, 16),
        "w2": scaled(16, 24),
        "w3": scaled(48, 10),
    }
    nodes = [
        node("Conv", ["a", "w1"], ["c"], "conv"),
        node("GlobalAveragePool", ["c"], ["g"], "pool"),
        node("Flatten", ["g"], ["f"], "flat"),
        node("Gather", ["table", "index"], ["e"], "embed"),
        node("ReduceMean", ["e"], ["m"], "mean", axes=[1], keepdims=0),
        node("Mul", ["m", "gain"], ["mg"], "gained"),
        node("MatMul", ["b", "w2"], ["h"], "dense"),
        node("Concat", ["f", "mg", "h"], ["all"], "concat", axis=1),
        node("MatMul", ["all", "w3"], ["y"], "head"),
        node("Sigmoid", ["h"], ["side"], "side"),
    ]
    return model(
        nodes,
        [
            value("a", ["N", 3, 8, 8]),
            value("b", ["N", 16]),
            value("index", ["N", 5], TensorProto.INT32),
            value("gain", []),
        ],
        [value("y", ["N", 10]), value("side", ["N", 24])],
        weights,
        opset=13,
    )


@quirk(images())
def fixed_batch(folder: Path) -> ModelProto:
    nodes, weights = _conv_body("n")
    return model(nodes, [value("x", [4, 3, 12, 12])], [value("y", [4, 10])], weights, opset=12)


@quirk(lambda: {"x": random(SAMPLES, 3, 20, 16)})
def dynamic_height_and_width(folder: Path) -> ModelProto:
    nodes, weights = _conv_body("n")
    return model(nodes, [value("x", [None, 3, "H", "W"])], [value("y", None)], weights, opset=12)


@quirk(rows())
def unused_custom_domains(folder: Path) -> ModelProto:
    weights: Arrays = {"w1": scaled(32, 32), "w2": scaled(32, 10)}
    nodes = [
        node("MatMul", ["x", "w1"], ["h"], "one"),
        node("Relu", ["h"], ["r"], "relu"),
        node("MatMul", ["r", "w2"], ["y"], "two"),
    ]
    domains = {"ai.onnx.ml": 3, "com.acme.unused": 1, "com.microsoft": 1}
    return model(nodes, [value("x", ["N", 32])], [value("y", ["N", 10])], weights, domains=domains)


@quirk(rows())
def external_data(folder: Path) -> ModelProto:
    made = unused_custom_domains(folder)
    (folder / "weights.bin").write_bytes(b"".join(t.raw_data for t in made.graph.initializer))
    offset = 0
    for tensor in made.graph.initializer:
        length = len(tensor.raw_data)
        for key, text in (("location", "weights.bin"), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(text))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        offset += length
    return made


@quirk(images(3, 8))
def transposed_and_one_dimensional_convolutions(folder: Path) -> ModelProto:
    weights: Arrays = {
        "w1": scaled(8, 3, 3, 3),
        "up": random(8, 4, 2, 2) * np.float32(0.3),
        "shape": np.array([0, 4, -1], np.int64),
        "w1d": scaled(6, 4, 5),
        "w3": scaled(6, 10),
    }
    nodes = [
        node("Conv", ["x", "w1"], ["c"], "conv", pads=[1, 1, 1, 1]),
        node("LeakyRelu", ["c"], ["l"], "leaky", alpha=0.1),
        node("ConvTranspose", ["l", "up"], ["u"], "up", strides=[2, 2]),
        node("Reshape", ["u", "shape"], ["line"], "line"),
        node("Conv", ["line", "w1d"], ["d"], "conv1d"),
        node("ReduceMax", ["d"], ["m"], "max", axes=[2], keepdims=0),
        node("MatMul", ["m", "w3"], ["y"], "head"),
    ]
    return model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", ["N", 10])], weights, opset=13)


@quirk(images())
def shared_weight_and_residual(folder: Path) -> ModelProto:
    weights: Arrays = {
        "w0": scaled(16, 3, 1, 1),
        "w": scaled(16, 16, 3, 3),
        "b": random(16),
        "fc": scaled(16, 10),
    }
    nodes = [
        node("Conv", ["x", "w0"], ["c0"], "stem"),
        node("Conv", ["c0", "w", "b"], ["c1"], "first", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("Conv", ["r1", "w", "b"], ["c2"], "second", pads=[1, 1, 1, 1]),
        node("Add", ["c2", "c0"], ["sum"], "add"),
        node("HardSwish", ["sum"], ["r2"], "swish"),
        node("GlobalAveragePool", ["r2"], ["g"], "pool"),
        node("Flatten", ["g"], ["f"], "flat"),
        node("MatMul", ["f", "fc"], ["z"], "head"),
        node("Softmax", ["z"], ["y"], "softmax", axis=1),
    ]
    return model(nodes, [value("x", ["N", 3, 12, 12])], [value("y", ["N", 10])], weights, opset=14)


@quirk(rows())
def gemm_with_every_flag(folder: Path) -> ModelProto:
    weights: Arrays = {
        "w1": scaled(32, 32),
        "c1": random(1, 32),
        "w2": scaled(32, 32, seed=1),
        "c2": np.array(0.3, np.float32),
        "w3": scaled(32, 10),
    }
    nodes = [
        node("Gemm", ["x", "w1", "c1"], ["a"], "scaled", alpha=0.5, beta=2.0),
        node("Relu", ["a"], ["r"], "relu"),
        node("Gemm", ["r", "w2", "c2"], ["b"], "scalar_bias", transB=1),
        node("Tanh", ["b"], ["t"], "tanh"),
        node("Gemm", ["t", "w3"], ["y"], "no_bias"),
    ]
    return model(nodes, [value("x", ["N", 32])], [value("y", ["N", 10])], weights, opset=11)


@quirk(rows(16))
def float16_model(folder: Path) -> ModelProto:
    weights: Arrays = {"w1": scaled(16, 32).astype(np.float16), "w2": scaled(32, 10).astype(np.float16)}
    nodes = [
        node("Cast", ["x"], ["h"], "half", to=TensorProto.FLOAT16),
        node("MatMul", ["h", "w1"], ["a"], "one"),
        node("Relu", ["a"], ["r"], "relu"),
        node("MatMul", ["r", "w2"], ["b"], "two"),
        node("Cast", ["b"], ["y"], "float", to=TensorProto.FLOAT),
    ]
    return model(nodes, [value("x", ["N", 16])], [value("y", ["N", 10])], weights, opset=13)


@quirk(rows(32))
def model_function_and_dropout(folder: Path) -> ModelProto:
    """A local function that holds the layer, and a Dropout left in."""
    function = helper.make_function(
        "acme",
        "Dense",
        ["a", "w"],
        ["out"],
        [node("MatMul", ["a", "w"], ["m"], "product"), node("Relu", ["m"], ["out"], "relu")],
        [helper.make_opsetid("", 15)],
    )
    nodes = [
        helper.make_node("Dense", ["x", "w1"], ["h"], "dense", domain="acme"),
        node("Dropout", ["h"], ["d"], "dropout"),
        node("MatMul", ["d", "w2"], ["y"], "head"),
    ]
    made = model(
        nodes,
        [value("x", ["N", 32])],
        [value("y", ["N", 10])],
        {"w1": scaled(32, 32), "w2": scaled(32, 10)},
        opset=15,
        domains={"acme": 1},
    )
    made.functions.append(function)
    return made
