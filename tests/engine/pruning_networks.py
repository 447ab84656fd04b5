"""Small networks with the structures that tie channels together, each with one feed."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.engine.quantization_cases import NetBuilder, normal

IMAGE = {"x": ["batch", 3, 8, 8]}


def _picture(size: int = 8) -> dict[str, np.ndarray]:
    return {"x": normal(2, 3, size, size)}


def _norm(net, x, name, channels):
    net.constant(f"{name}.scale", net.rng.uniform(0.5, 1.5, channels).astype(np.float32))
    net.constant(f"{name}.var", net.rng.uniform(0.5, 1.5, channels).astype(np.float32))
    shift, mean = net.weight(f"{name}.shift", channels), net.weight(f"{name}.mean", channels)
    return net.op("BatchNormalization", x, f"{name}.scale", shift, mean, f"{name}.var", name=name)


def _head(net, x, channels, inputs=IMAGE):
    x = net.op("Flatten", net.op("GlobalAveragePool", x, name="gap"), name="flat")
    return net.model(inputs, [net.gemm(x, "head", channels, 5, transB=1)])


def resnet():
    """A stem, an identity block and one with a projection; a grouped convolution inside."""
    net = NetBuilder(1)
    x = net.op("Relu", _norm(net, net.conv("x", "stem", 3, 16), "stem_norm", 16), name="stem_relu")
    y = net.op("Relu", net.conv(x, "a1", 16, 32, kernel=1), name="a1_relu")
    y = net.op("Relu", net.conv(y, "a2", 32, 32, group=8), name="a2_relu")
    x = net.op("Relu", net.op("Add", net.conv(y, "a3", 32, 16, kernel=1), x, name="a_add"), name="a_relu")
    y = net.op("Relu", net.conv(x, "b1", 16, 16, group=2, strides=[2, 2]), name="b1_relu")
    short = net.conv(x, "b_short", 16, 24, kernel=1, strides=[2, 2])
    x = net.op("Add", net.conv(y, "b2", 16, 24), short, name="b_add")
    return _head(net, x, 24), _picture()


def _excited(net, x, name, channels):
    """Squeeze and excite: the channels' factors are made of the channels."""
    y = net.op("GlobalAveragePool", x, name=f"{name}_gap")
    y = net.op("Relu", net.conv(y, f"{name}_down", channels, 8, kernel=1), name=f"{name}_relu")
    y = net.op("HardSigmoid", net.conv(y, f"{name}_up", 8, channels, kernel=1), name=f"{name}_gate")
    return net.op("Mul", x, y, name=f"{name}_mul")


def mobilenet():
    """MobileNetV3: inverted residuals with squeeze and excite, HardSwish."""
    net = NetBuilder(2)
    x = net.op("HardSwish", net.conv("x", "stem", 3, 8), name="stem_act")
    y = net.op("HardSwish", net.conv(x, "expand", 8, 24, kernel=1), name="expand_act")
    y = net.op("HardSwish", _norm(net, net.conv(y, "depth", 24, 24, group=24), "norm", 24), name="depth_act")
    y = net.conv(_excited(net, y, "se", 24), "project", 24, 8, kernel=1)
    x = net.op("Add", x, y, name="add")
    return _head(net, net.op("HardSwish", net.conv(x, "last", 8, 16, kernel=1), name="act"), 16), _picture()


def efficientnet():
    """SiLU written out, squeeze and excite by mean and Sigmoid, a depth multiplier of two."""
    net = NetBuilder(3)

    def silu(x, name):
        return net.op("Mul", x, net.op("Sigmoid", x, name=f"{name}_sigmoid"), name=f"{name}_silu")

    net.constant("space", np.array([2, 3], dtype=np.int64))
    x = silu(net.conv("x", "stem", 3, 8), "stem")
    inputs = [x, net.weight("depth.w", 16, 1, 3, 3), net.weight("depth.b", 16, scale=0.2)]
    x = silu(net.op("Conv", *inputs, name="depth", pads=[1] * 4, group=8), "depth")
    y = net.op("ReduceMean", x, "space", name="mean")
    y = silu(net.conv(y, "down", 16, 8, kernel=1), "down")
    y = net.op("Sigmoid", net.conv(y, "up", 8, 16, kernel=1), name="gate")
    return _head(net, net.conv(net.op("Mul", x, y, name="mul"), "project", 16, 8, kernel=1), 8), _picture()


def densenet():
    """Every layer reads all before it; the last is flattened without a pool."""
    net = NetBuilder(4)
    x = net.conv("x", "stem", 3, 8)
    for number in range(2):
        y = net.op("Relu", _norm(net, x, f"norm{number}", 8 + 8 * number), name=f"relu{number}")
        y = net.conv(y, f"grow{number}", 8 + 8 * number, 8)
        x = net.op("Concat", x, y, name=f"join{number}", axis=1)
    x = net.op("MaxPool", net.op("Relu", x, name="last"), name="pool", kernel_shape=[4, 4], strides=[4, 4])
    x = net.op("Reshape", x, net.constant("flat", np.array([-1, 96], np.int64)), name="reshape")
    return net.model(IMAGE, [net.gemm(x, "head", 96, 5)]), _picture()


def unet():
    """Down, up by a transposed convolution and by Resize, with skips joined."""
    net = NetBuilder(5)
    a = net.op("Relu", net.conv("x", "down1", 3, 8), name="relu1")
    b = net.op("MaxPool", a, name="pool1", kernel_shape=[2, 2], strides=[2, 2])
    b = net.op("Relu", net.conv(b, "down2", 8, 16), name="relu2")
    c = net.op("MaxPool", b, name="pool2", kernel_shape=[2, 2], strides=[2, 2])
    c = net.op("Relu", net.conv(c, "bottom", 16, 16), name="relu3")
    up = [c, net.weight("up1.w", 16, 8, 2, 2), net.weight("up1.b", 8)]
    c = net.op("ConvTranspose", *up, name="up1", strides=[2, 2])
    c = net.op("Concat", c, b, name="join1", axis=1)
    c = net.op("Relu", net.conv(c, "merge1", 24, 12), name="relu4")
    net.constant("sizes", np.array([12, 8, 8], np.int64))
    c = net.op("Resize", c, "", "", "sizes", name="up2", mode="linear", axes=[1, 2, 3])
    c = net.op("Concat", a, c, name="join2", axis=1)
    return net.model(IMAGE, [net.conv(c, "out", 20, 2, kernel=1)]), _picture()


def _bias(net, x, name, width):
    return net.op("Add", x, net.weight(f"{name}.b", width, scale=0.2), name=f"{name}_bias")


def _linear(net, x, name, rows, columns):
    weight = net.weight(f"{name}.w", rows, columns, scale=1 / np.sqrt(rows))
    return _bias(net, net.op("MatMul", x, weight, name=name), name, columns)


def _layer_norm(net, x, name, width):
    net.constant(f"{name}.scale", net.rng.uniform(0.5, 1.5, width).astype(np.float32))
    return net.op("LayerNormalization", x, f"{name}.scale", net.weight(f"{name}.shift", width), name=name)


def _heads(net, x, name, heads, size, order):
    if f"{heads} heads" not in {tensor.name for tensor in net.initializers}:
        net.constant(f"{heads} heads", np.array([0, 0, heads, size], np.int64))
    x = net.op("Reshape", x, f"{heads} heads", name=f"{name}_split")
    return net.op("Transpose", x, name=f"{name}_turn", perm=order)


def _attention(net, q, k, v, heads, width):
    scores = net.op("MatMul", q, k, name="scores")
    scores = net.op("Softmax", net.op("Mul", scores, "root", name="scaled"), name="softmax")
    x = net.op("Transpose", net.op("MatMul", scores, v, name="mix"), name="back", perm=[0, 2, 1, 3])
    return net.op("Reshape", x, net.constant("whole", np.array([0, 0, width], np.int64)), name="joined")


def vit():
    """Patches, a position table, one encoder layer with separate q, k and v."""
    net = NetBuilder(6)
    net.constant("root", np.float32(0.5))
    x = net.conv("x", "patch", 3, 16, kernel=4, strides=[4, 4], pads=[0] * 4)
    x = net.op("Reshape", x, net.constant("rows", np.array([-1, 16, 4], np.int64)), name="rows_reshape")
    x = net.op("Transpose", x, name="tokens", perm=[0, 2, 1])
    x = net.op("Add", x, net.weight("position", 1, 4, 16), name="placed")
    h = _layer_norm(net, x, "norm1", 16)
    q, v = (_heads(net, _linear(net, h, n, 16, 16), n, 4, 4, [0, 2, 1, 3]) for n in ("q", "v"))
    k = _heads(net, _linear(net, h, "k", 16, 16), "k", 4, 4, [0, 2, 3, 1])
    y = _linear(net, _attention(net, q, k, v, 4, 16), "o", 16, 16)
    x = net.op("Add", x, y, name="residual1")
    y = net.op("Gelu", _linear(net, _layer_norm(net, x, "norm2", 16), "up", 16, 32), name="gelu")
    x = net.op("Add", x, _linear(net, y, "down", 32, 16), name="residual2")
    x = net.op("ReduceMean", x, net.constant("one", np.array([1], np.int64)), name="mean", keepdims=0)
    return net.model(IMAGE, [net.gemm(x, "head", 16, 5)]), _picture()


def bert():
    """Embeddings and a mask; q, k and v of one product, cut apart; a gated perceptron."""
    net = NetBuilder(7)
    net.constant("root", np.float32(0.5))
    x = net.op("Gather", net.weight("words", 30, 16, scale=1), "ids", name="embed")
    h = _layer_norm(net, x, "norm1", 16)
    fused = _linear(net, h, "qkv", 16, 48)
    net.constant("parts", np.array([0, 0, 3, 4, 4], np.int64))
    fused = net.op("Reshape", fused, "parts", name="parts_reshape")
    fused = net.op("Transpose", fused, name="parts_turn", perm=[2, 0, 3, 1, 4])
    picked = [
        net.op("Gather", fused, net.constant(f"pick{n}", np.array(n, np.int64)), name=f"take{n}", axis=0)
        for n in range(3)
    ]
    k = net.op("Transpose", picked[1], name="k_turn", perm=[0, 1, 3, 2])
    y = _linear(net, _attention(net, picked[0], k, picked[2], 4, 16), "o", 16, 16)
    x = _layer_norm(net, net.op("Add", x, y, name="residual1"), "norm2", 16)
    gated = _linear(net, x, "up", 16, 32)
    net.nodes.append(_split(gated))
    y = net.op("Mul", "left", net.op("Sigmoid", "right", name="gate"), name="gated")
    x = net.op("Add", x, _linear(net, y, "down", 16, 16), name="residual2")
    ids = np.random.default_rng(0).integers(0, 30, (2, 6))
    return net.model({"ids": (["batch", "length"], TensorProto.INT64)}, [x]), {"ids": ids}


def _split(source):
    from onnx import helper

    return helper.make_node("Split", [source], ["left", "right"], name="halves", axis=-1, num_outputs=2)


def lstm():
    """Two layers, both directions, with zeros for a state as one exporter writes it."""
    return _recurrent("LSTM", 4)


def gru():
    """The same of GRU."""
    return _recurrent("GRU", 3)


def _recurrent(kind, gates):
    net = NetBuilder(8)
    net.constant("shape", np.array([2, 3, 8], np.int64))
    state = net.op("ConstantOfShape", "shape", name="zeros")
    x, width = "x", 6
    for number in range(2):
        weights = [
            net.weight(f"w{number}", 2, 8 * gates, width, scale=0.5),
            net.weight(f"r{number}", 2, 8 * gates, 8, scale=0.5),
            net.weight(f"b{number}", 2, 16 * gates, scale=0.2),
        ]
        inputs = [x, *weights, "", state] + ([state] if kind == "LSTM" else [])
        y = net.op(kind, *inputs, name=f"cell{number}", hidden_size=8, direction="bidirectional")
        y = net.op("Transpose", y, name=f"turn{number}", perm=[0, 2, 1, 3])
        net.constant(f"flat{number}", np.array([0, 0, 16], np.int64))
        x, width = net.op("Reshape", y, f"flat{number}", name=f"flatten{number}"), 16
    net.weight("head", 16, 4)
    y = net.op("MatMul", x, "head", name="out")
    return net.model({"x": [5, 3, 6]}, [y]), {"x": normal(5, 3, 6)}


def shufflenet():
    """Halves of the channels go different ways, are joined and shuffled; then laid into space."""
    net = NetBuilder(9)
    x = net.conv("x", "stem", 3, 16, kernel=1)
    for name, start in (("left", 0), ("right", 8)):
        net.constant(f"{name} start", np.array([start], np.int64))
        net.constant(f"{name} end", np.array([start + 8], np.int64))
    net.constant("channels", np.array([1], np.int64))
    a, b = (
        net.op("Slice", x, f"{name} start", f"{name} end", "channels", name=f"{name}_cut")
        for name in ("left", "right")
    )
    b = net.op("Relu", net.conv(net.conv(b, "deep", 8, 8, group=8), "mix", 8, 8, kernel=1), name="mix_relu")
    x = net.op("Concat", a, b, name="join", axis=1)
    x = net.op("Reshape", x, net.constant("two", np.array([-1, 2, 8, 8, 8], np.int64)), name="two_reshape")
    x = net.op("Transpose", x, name="shuffle", perm=[0, 2, 1, 3, 4])
    x = net.op("Reshape", x, net.constant("one", np.array([-1, 16, 8, 8], np.int64)), name="one_reshape")
    x = net.op("DepthToSpace", x, name="space", blocksize=2)
    return net.model(IMAGE, [net.conv(x, "out", 4, 2, kernel=1)]), _picture()


def group_norms():
    """GroupNormalization, InstanceNormalization, PRelu, Einsum."""
    net = NetBuilder(10)
    x = net.conv("x", "stem", 3, 16)
    x = net.op("GroupNormalization", x, net.weight("g.s", 16), net.weight("g.b", 16), name="gn", num_groups=4)
    x = net.op("PRelu", x, net.weight("slope", 16, 1, 1, scale=0.3), name="prelu")
    x = net.conv(x, "second", 16, 8)
    x = net.op("InstanceNormalization", x, net.weight("i.s", 8), net.weight("i.b", 8), name="in")
    x = net.op("Einsum", x, net.weight("e.w", 8, 12), name="einsum", equation="bchw,cd->bdhw")
    return net.model(IMAGE, [net.conv(x, "out", 12, 2, kernel=1)]), _picture()


def padded():
    """Pad around pictures and behind channels, Tile along them."""
    net = NetBuilder(12)
    x = net.op("Relu", net.conv("x", "stem", 3, 16), name="relu1")
    x = net.op("Pad", x, net.constant("edge", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)), name="edge_pad")
    x = net.op("Relu", net.conv(x, "second", 16, 16), name="relu2")
    x = net.op("Pad", x, net.constant("more", np.array([0, 0, 0, 0, 0, 4, 0, 0], np.int64)), name="more_pad")
    x = net.op("Relu", net.conv(x, "third", 20, 8), name="relu3")
    x = net.op("Tile", x, net.constant("twice", np.array([1, 2, 1, 1], np.int64)), name="tile")
    return net.model(IMAGE, [net.conv(x, "out", 16, 2, kernel=1)]), _picture()


NETWORKS = {
    one.__name__: one
    for one in (
        resnet, mobilenet, efficientnet, densenet, unet, vit, bert, lstm, gru, shufflenet, group_norms,
        padded,
    )
}  # fmt: skip
