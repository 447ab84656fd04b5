"""Small graphs and their statistics for the tests of quantization."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from quantstudio.core.statistics import Histogram, Statistics
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.model.open import open_model
from tests.engine.exact_products import exact_session


class NetBuilder:
    """Chains operators; every weight is drawn from one seeded generator."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []

    def constant(self, name, value):
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, name, *shape, scale=None):
        fan_in = int(np.prod(shape[1:])) or 1
        value = self.rng.normal(size=shape) * (scale or 1 / np.sqrt(fan_in))
        return self.constant(name, value.astype(np.float32))

    def op(self, op_type, *inputs, name, **attributes):
        output = f"{name}_out"
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], name=name, **attributes))
        return output

    def conv(self, x, name, channels_in, channels_out, kernel=3, group=1, bias=True, **attributes):
        inputs = [x, self.weight(f"{name}.w", channels_out, channels_in // group, kernel, kernel)]
        if bias:
            inputs.append(self.weight(f"{name}.b", channels_out, scale=0.2))
        pad = kernel // 2
        attributes = {"pads": [pad] * 4, "group": group, **attributes}
        return self.op("Conv", *inputs, name=name, **attributes)

    def gemm(self, x, name, columns_in, columns_out, **attributes):
        transposed = attributes.get("transB", 0)
        shape = (columns_out, columns_in) if transposed else (columns_in, columns_out)
        weight = self.weight(f"{name}.w", *shape, scale=1 / np.sqrt(columns_in))
        return self.op(
            "Gemm", x, weight, self.weight(f"{name}.b", columns_out, scale=0.2), name=name, **attributes
        )

    def matmul(self, x, name, columns_in, columns_out):
        return self.op("MatMul", x, self.weight(f"{name}.w", columns_in, columns_out), name=name)

    def model(self, inputs, outputs, opset=21):
        """`inputs` maps names to shapes, or to (shape, type)."""
        values = []
        for name, shape in inputs.items():
            kind = TensorProto.FLOAT
            if isinstance(shape[0], (tuple, list)):
                shape, kind = shape
            values.append(helper.make_tensor_value_info(name, kind, shape))
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", values, results, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def opened(model: onnx.ModelProto, folder: Path) -> Graph:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return open_model(path)


def session(model: onnx.ModelProto | bytes, level=None, optimized: Path | None = None):
    content = model if isinstance(model, bytes) else model.SerializeToString()
    if optimized is None:
        return exact_session(content, level)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if level is not None:
        options.graph_optimization_level = level
    options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def outputs_of(model, feed, level=None):
    return session(model, level).run(None, feed)


def optimized_ops(model: onnx.ModelProto, folder: Path) -> list[str]:
    """Operators after ONNX Runtime's default optimizers."""
    path = folder / "optimized.onnx"
    session(model, optimized=path)
    return [node.op_type for node in onnx.load(path).graph.node]


def statistics_of(graph: Graph, *feeds) -> Statistics:
    """Histograms of every float tensor, straight from NumPy."""
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    known = {value.name for value in proto.graph.output}
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*proto.graph.value_info, *proto.graph.output)}
    for node in graph.proto.graph.node:
        for name in node.output:
            if name and name not in known and kinds.get(name) == TensorProto.FLOAT:
                proto.graph.output.add(name=name)
    runner = session(proto, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    names = [value.name for value in runner.get_outputs()]
    seen: dict[str, list[np.ndarray]] = {}
    for feed in feeds:
        for name, value in (*zip(names, runner.run(None, feed), strict=True), *feed.items()):
            if value.dtype == np.float32:
                seen.setdefault(name, []).append(value.reshape(-1))
    tensors = {name: histogram_of(np.concatenate(values)) for name, values in seen.items()}
    return Statistics(tensors, len(feeds), graph.digest, "data")


def histogram_of(values: np.ndarray) -> Histogram:
    low, high = float(values.min()), float(values.max())
    reach = float(2.0 ** np.ceil(np.log2(max(abs(low), abs(high), 1e-6))))
    counts, _ = np.histogram(values.astype(np.float64), bins=4096, range=(-reach, reach))
    return Histogram(counts.astype(np.int64), -reach, reach, low, high)


def relative_error(expected, found) -> float:
    """Root mean square of the difference over that of the expected values."""
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def residual_net():
    """Conv-Relu, a residual block, max pool, a depthwise Conv-Clip, average pool, Gemm."""
    net = NetBuilder()
    net.constant("zero", np.float32(0))
    net.constant("six", np.float32(6))
    x = net.op("Relu", net.conv("x", "stem", 3, 16), name="stem_relu")
    inner = net.op("Relu", net.conv(x, "block1", 16, 16), name="block1_relu")
    y = net.op("Relu", net.op("Add", net.conv(inner, "block2", 16, 16), x, name="add"), name="add_relu")
    y = net.op("MaxPool", y, name="pool", kernel_shape=[2, 2], strides=[2, 2])
    y = net.op("Clip", net.conv(y, "depthwise", 16, 16, group=16), "zero", "six", name="clip")
    y = net.conv(y, "point", 16, 32, kernel=1)
    y = net.op("GlobalAveragePool", y, name="gap")
    y = net.gemm(net.op("Flatten", y, name="flat"), "head", 32, 10)
    return net.model({"x": ["batch", 3, 12, 12]}, [y])


def attention_net(width: int = 32):
    """Layer norm, one attention head, a two-layer perceptron with bias Adds, all on [batch, 6, width]."""
    net = NetBuilder(1)
    net.constant("gain", np.ones(width, np.float32))
    net.constant("shift", np.zeros(width, np.float32))
    net.constant("root", np.float32(np.sqrt(width)))
    h = net.op("LayerNormalization", "x", "gain", "shift", name="norm")
    q, k, v = (net.matmul(h, name, width, width) for name in ("query", "key", "value"))
    scores = net.op("MatMul", q, net.op("Transpose", k, name="swap", perm=[0, 2, 1]), name="scores")
    scores = net.op("Softmax", net.op("Div", scores, "root", name="scale"), name="softmax")
    h = net.op("Add", net.op("MatMul", scores, v, name="context"), "x", name="residual")
    up = net.op("Add", net.matmul(h, "up", width, 64), net.weight("up.b", 64, scale=0.1), name="up_bias")
    y = net.matmul(net.op("Relu", up, name="up_relu"), "down", 64, width)
    return net.model({"x": ["batch", 6, width]}, [y])


def branch_model():
    """Two MatMuls inside the branches of an If, weights inside one body and outside the other."""
    net = NetBuilder()
    net.weight("outer.w", 16, 8)

    def body(name, weight, initializers):
        node = helper.make_node("MatMul", ["h", weight], [f"{name}_y"], name=name)
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
        return helper.make_graph([node], name, [], [out], initializers)

    inner = numpy_helper.from_array(net.rng.normal(size=(16, 8)).astype(np.float32), "inner.w")
    hidden = net.op("Relu", net.matmul("x", "first", 16, 16), name="relu")
    net.nodes[-1].output[0] = "h"
    del hidden
    net.nodes.append(
        helper.make_node(
            "If",
            ["flag"],
            ["y"],
            name="branch",
            then_branch=body("yes", "outer.w", []),
            else_branch=body("no", "inner.w", [inner]),
        )
    )
    return net.model({"x": ["n", 16], "flag": ([], TensorProto.BOOL)}, ["y"])


def normal(*shape, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
