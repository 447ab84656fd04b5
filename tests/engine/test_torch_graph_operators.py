"""Every operator against ONNX Runtime on random input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from quantstudio.core.errors import UnsupportedOpError
from quantstudio.engine.torch_graph.module import TorchGraph
from quantstudio.engine.torch_graph.registry import OPERATORS

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return (RNG.random(shape) * 0.8 + 0.1).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def integers(low: int, high: int, *shape: int, dtype: Any = np.int64) -> np.ndarray:
    return RNG.integers(low, high, shape).astype(dtype)


def booleans(*shape: int) -> np.ndarray:
    return RNG.random(shape) > 0.5


@dataclass
class Case:
    """One node: `fed` arrays become inputs, the others initializers."""

    op: str
    inputs: list[np.ndarray | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    fed: int = 1
    outputs: int = 1
    opset: int = 21
    name: str = ""
    tolerance: float = 2e-5
    domain: str = ""

    @property
    def id(self) -> str:
        return f"{self.op}-{self.name}" if self.name else self.op


def model_of(case: Case) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    names = [f"in{i}" if array is not None else "" for i, array in enumerate(case.inputs)]
    feed = {n: a for n, a in list(zip(names, case.inputs, strict=True))[: case.fed] if a is not None}
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim)
        for n, a in feed.items()
    ]
    constants = [
        numpy_helper.from_array(a, n)
        for n, a in zip(names, case.inputs, strict=True)
        if a is not None and n not in feed
    ]
    outputs = [f"out{i}" for i in range(case.outputs)]
    node = helper.make_node(case.op, names, outputs, name="node", domain=case.domain, **case.attributes)
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name=n) for n in outputs], constants)
    opsets = [helper.make_opsetid("", case.opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    return model, feed


X = normal(2, 3, 5, 6)
IMAGE = normal(2, 4, 7, 8)

UNARY = [
    Case(op, [normal(3, 4)])
    for op in [
        "Relu",
        "Sigmoid",
        "Tanh",
        "Erf",
        "Exp",
        "Neg",
        "Abs",
        "Floor",
        "Ceil",
        "Round",
        "Sin",
        "Cos",
        "Tan",
        "Sinh",
        "Cosh",
        "Asinh",
        "Atan",
        "Reciprocal",
        "Sign",
        "Softplus",
        "Softsign",
        "HardSwish",
        "Mish",
        "LeakyRelu",
        "Elu",
        "Selu",
        "Celu",
        "HardSigmoid",
        "ThresholdedRelu",
        "Shrink",
        "Identity",
        "Softmax",
        "LogSoftmax",
        "Hardmax",
        "Gelu",
        "IsNaN",
        "LpNormalization",
        "Dropout",
    ]
] + [Case(op, [positive(3, 4)]) for op in (["Log", "Sqrt", "Asin", "Acos", "Atanh"])]

BINARY = [
    Case(op, [positive(3, 4), positive(1, 4)], fed=2) for op in (["Add", "Sub", "Mul", "Div", "Pow"])
] + [
    Case(op, [integers(0, 3, 3, 4), integers(0, 3, 3, 4)], fed=2)
    for op in (["Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"])
]

ELEMENTWISE = [
    Case("Acosh", [positive(3, 4) + 1]),
    Case("Not", [booleans(3, 4)]),
    Case("Selu", [normal(3, 4)], {"alpha": 1.5, "gamma": 1.2}, name="explicit"),
    Case("Gelu", [normal(3, 4)], {"approximate": "tanh"}, name="tanh"),
    Case("Swish", [normal(3, 4)], {"alpha": 1.5}, opset=24),
    Case("PRelu", [X, positive(3, 1, 1)]),
    Case("IsInf", [np.array([1, np.inf, -np.inf], np.float32)], {"detect_negative": 0}),
    Case("And", [booleans(3, 4), booleans(3, 4)], fed=2),
    Case("Or", [booleans(3, 4), booleans(3, 4)], fed=2),
    Case("Xor", [booleans(3, 4), booleans(3, 4)], fed=2),
    Case("BitwiseAnd", [integers(0, 99, 5), integers(0, 99, 5)], fed=2),
    Case("BitwiseOr", [integers(0, 99, 5), integers(0, 99, 5)], fed=2),
    Case("BitwiseXor", [integers(0, 99, 5), integers(0, 99, 5)], fed=2),
    Case("BitwiseNot", [integers(0, 99, 5)]),
    Case(
        "BitShift",
        [integers(0, 9, 5, dtype=np.uint8), integers(0, 3, 5, dtype=np.uint8)],
        {"direction": "LEFT"},
        fed=2,
        name="left",
    ),
    Case(
        "BitShift",
        [integers(0, 99, 5, dtype=np.uint8), integers(0, 3, 5, dtype=np.uint8)],
        {"direction": "RIGHT"},
        fed=2,
        name="right",
    ),
    Case("Div", [integers(-9, 9, 8), integers(1, 4, 8)], fed=2, name="integer"),
    Case("Pow", [integers(-4, 5, 8), ints(3)], name="integer"),
    Case("Mod", [integers(-9, 9, 8), integers(1, 4, 8)], fed=2),
    Case("Mod", [normal(8), positive(8)], {"fmod": 1}, fed=2, name="fmod"),
    Case("Where", [booleans(3, 4), normal(3, 4), normal(4)], fed=3),
    Case("Clip", [normal(3, 4), np.array(-0.5, np.float32), np.array(0.5, np.float32)]),
    Case("Clip", [normal(3, 4), None, np.array(0.5, np.float32)], name="above"),
    Case("Clip", [normal(3, 4)], name="nothing"),
    Case("Clip", [integers(-9, 9, 8), np.array(-2, np.int64), np.array(4, np.int64)], name="integer"),
    Case("Min", [normal(3, 4), normal(4), normal(3, 1)], fed=3),
    Case("Max", [normal(3, 4), normal(4), normal(3, 1)], fed=3),
    Case("Sum", [normal(3, 4), normal(4), normal(3, 1)], fed=3),
    Case("Mean", [normal(3, 4), normal(4), normal(3, 1)], fed=3),
    Case("Softmax", [X], {"axis": 1}, name="channels"),
    Case("Cast", [normal(3, 4) * 5], {"to": TensorProto.INT32}, name="int32"),
    Case("Cast", [integers(0, 2, 5)], {"to": TensorProto.BOOL}, name="bool"),
    Case("CastLike", [normal(3, 4) * 5, ints(1)]),
    Case("Dropout", [normal(3, 4)], outputs=2, name="mask"),
]

LINEAR = [
    Case("MatMul", [normal(2, 3, 4), normal(4, 5)]),
    Case("MatMul", [normal(2, 3, 4), normal(2, 4, 5)], fed=2, name="batched"),
    Case("Gemm", [normal(3, 4), normal(5, 4), normal(5)], {"transB": 1}),
    Case(
        "Gemm",
        [normal(4, 3), normal(4, 5), normal(3, 1)],
        {"transA": 1, "alpha": 0.5, "beta": 2.0},
        name="scaled",
    ),
    Case("Gemm", [normal(3, 4), normal(4, 5)], name="bare"),
    Case("Einsum", [normal(2, 3, 4), normal(2, 4, 5)], {"equation": "bij,bjk->bik"}, fed=2),
]

CONVOLUTION = [
    Case("Conv", [normal(2, 3, 9), normal(4, 3, 3), normal(4)], {"pads": [1, 1]}, name="1d"),
    Case(
        "Conv", [IMAGE, normal(6, 4, 3, 3), normal(6)], {"pads": [1, 1, 1, 1], "strides": [2, 2]}, name="2d"
    ),
    Case("Conv", [normal(1, 2, 5, 5, 5), normal(3, 2, 3, 3, 3)], {"pads": [1] * 6}, name="3d"),
    Case("Conv", [IMAGE, normal(4, 1, 3, 3)], {"group": 4, "dilations": [2, 2]}, name="depthwise"),
    Case("Conv", [IMAGE, normal(6, 2, 3, 3)], {"group": 2, "pads": [0, 1, 2, 1]}, name="uneven"),
    Case(
        "Conv", [IMAGE, normal(6, 4, 3, 2)], {"auto_pad": "SAME_UPPER", "strides": [2, 3]}, name="same-upper"
    ),
    Case("Conv", [IMAGE, normal(6, 4, 4, 2)], {"auto_pad": "SAME_LOWER"}, name="same-lower"),
    Case("Conv", [IMAGE, normal(6, 4, 4, 2)], {"auto_pad": "VALID"}, name="valid"),
    Case("ConvTranspose", [normal(2, 3, 6), normal(3, 4, 3)], {"strides": [2]}, name="1d"),
    Case(
        "ConvTranspose",
        [IMAGE, normal(4, 2, 3, 3), normal(2)],
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        name="2d",
    ),
    Case("ConvTranspose", [normal(1, 2, 3, 3, 3), normal(2, 2, 2, 2, 2)], name="3d"),
    Case(
        "ConvTranspose",
        [IMAGE, normal(4, 2, 3, 3)],
        {"strides": [2, 2], "pads": [0, 1, 1, 0], "dilations": [2, 1]},
        name="uneven",
    ),
    Case(
        "ConvTranspose",
        [IMAGE, normal(4, 1, 3, 3)],
        {"group": 2, "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        name="same-upper",
    ),
    Case(
        "ConvTranspose",
        [IMAGE, normal(4, 1, 3, 3)],
        {"strides": [2, 2], "output_shape": [14, 16]},
        name="output-shape",
    ),
]

POOLING = [
    Case("MaxPool", [normal(2, 3, 9)], {"kernel_shape": [3], "strides": [2]}, name="1d"),
    Case("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, name="2d"),
    Case(
        "MaxPool", [IMAGE], {"kernel_shape": [3, 2], "pads": [0, 0, 2, 1], "dilations": [2, 1]}, name="uneven"
    ),
    Case("MaxPool", [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, name="ceil"),
    Case(
        "MaxPool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, name="same"
    ),
    Case("MaxPool", [normal(1, 2, 5, 5, 5)], {"kernel_shape": [2, 2, 2]}, name="3d"),
    Case("AveragePool", [normal(2, 3, 9)], {"kernel_shape": [3]}, name="1d"),
    Case("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, name="2d"),
    Case(
        "AveragePool",
        [IMAGE],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        name="include",
    ),
    Case(
        "AveragePool",
        [IMAGE],
        {"kernel_shape": [3, 2], "pads": [0, 0, 2, 1], "strides": [2, 1]},
        name="uneven",
    ),
    Case(
        "AveragePool",
        [IMAGE],
        {"kernel_shape": [3, 2], "pads": [0, 1, 2, 0], "count_include_pad": 1},
        name="uneven-include",
    ),
    Case("AveragePool", [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, name="ceil"),
    Case("LpPool", [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case("GlobalAveragePool", [IMAGE]),
    Case("GlobalMaxPool", [IMAGE]),
    Case("GlobalLpPool", [IMAGE], tolerance=1e-4),
]

NORMALIZATION = [
    Case("BatchNormalization", [IMAGE, normal(4), normal(4), normal(4), positive(4)]),
    Case("InstanceNormalization", [IMAGE, normal(4), normal(4)]),
    Case("LayerNormalization", [normal(2, 5, 8), normal(8), normal(8)]),
    Case("LayerNormalization", [normal(2, 5, 8), normal(5, 8)], {"axis": 1}, name="two-axes"),
    Case("LayerNormalization", [normal(2, 5, 8), normal(8), normal(8)], outputs=3, name="statistics"),
    Case("RMSNormalization", [normal(2, 5, 8), normal(8)], opset=23),
    Case("GroupNormalization", [IMAGE, normal(4), normal(4)], {"num_groups": 2}),
    Case("GroupNormalization", [IMAGE, normal(2), normal(2)], {"num_groups": 2}, opset=18, name="per-group"),
    Case("LpNormalization", [normal(2, 5, 8)], {"p": 1, "axis": 1}, name="p1"),
    Case("MeanVarianceNormalization", [IMAGE]),
    Case("LRN", [normal(2, 9, 4, 4)], {"size": 5, "alpha": 0.3}),
]

REDUCTION = [
    Case(
        f"Reduce{kind}", [positive(2, 3, 4), ints(1)], {"keepdims": keep}, name=f"keep{keep}", tolerance=1e-4
    )
    for kind in ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"]
    for keep in (0, 1)
] + [
    Case("ReduceMean", [positive(2, 3, 4)], name="all"),
    Case("ReduceSum", [positive(2, 3, 4), ints()], {"noop_with_empty_axes": 1}, name="nothing"),
    Case("ReduceMean", [positive(2, 3, 4)], {"axes": [-1]}, opset=13, name="attribute"),
    Case("ArgMax", [normal(3, 4)], {"axis": 1}),
    Case(
        "ArgMax",
        [integers(0, 2, 3, 9, dtype=np.int32)],
        {"axis": 1, "keepdims": 0, "select_last_index": 1},
        name="last",
    ),
    Case("ArgMin", [normal(3, 4)], {"axis": 0}),
    Case("TopK", [normal(3, 9), ints(4)], {"axis": 1}, outputs=2),
    Case("TopK", [normal(5, 3), ints(4)], {"axis": 0, "largest": 0}, outputs=2, name="smallest"),
    Case("CumSum", [normal(3, 4), np.array(1, np.int64)]),
    Case(
        "CumSum",
        [normal(3, 4), np.array(0, np.int64)],
        {"exclusive": 1, "reverse": 1},
        name="exclusive-reverse",
    ),
]

SHAPING = [
    Case("Reshape", [X, ints(0, -1, 6)]),
    Case("Reshape", [normal(0, 3), ints(3, 0)], {"allowzero": 1}, name="allowzero"),
    Case("Flatten", [X], {"axis": 2}),
    Case("Flatten", [X], {"axis": -1}, name="negative"),
    Case("Transpose", [X], {"perm": [0, 2, 3, 1]}),
    Case("Transpose", [X], name="reversed"),
    Case("Squeeze", [normal(1, 3, 1), ints(0)]),
    Case("Squeeze", [normal(1, 3, 1)], name="all"),
    Case("Unsqueeze", [normal(3, 4), ints(0, -1)]),
    Case("Shape", [X]),
    Case("Shape", [X], {"start": 1, "end": -1}, name="range"),
    Case("Size", [X]),
    Case("Concat", [normal(2, 3), normal(2, 1)], {"axis": 1}, fed=2),
    Case("Split", [normal(2, 9), ints(2, 3, 4)], {"axis": 1}, outputs=3),
    Case("Split", [normal(2, 8)], {"axis": 1, "num_outputs": 3}, outputs=3, name="equal"),
    Case("Slice", [X, ints(1, -4), ints(3, 100), ints(2, 3)]),
    Case("Slice", [X, ints(-1), ints(-(2**62)), ints(2), ints(-2)], name="backwards"),
    Case("Slice", [X, ints(0, 1), ints(2, 3)], name="leading"),
    Case("Pad", [X, ints(0, 0, 1, 2, 0, 0, 3, 1), np.array(0.5, np.float32)]),
    Case("Pad", [X, ints(1, -1), None, ints(-1)], name="crop-axis"),
    Case("Pad", [X, ints(0, 0, 2, 2, 0, 0, 3, 1)], {"mode": "reflect"}, name="reflect"),
    Case("Pad", [X, ints(0, 0, 2, 2, 0, 1, 3, 1)], {"mode": "edge"}, name="edge"),
    Case("Pad", [X, ints(0, 0, 2, 2, 0, 0, 3, 1)], {"mode": "wrap"}, name="wrap"),
    Case("Expand", [normal(3, 1), ints(2, 1, 4)]),
    Case("Expand", [normal(2, 3, 4), ints(1, 4)], name="shorter"),
    Case("Tile", [normal(2, 3), ints(2, 3)]),
    Case("DepthToSpace", [normal(1, 8, 2, 3)], {"blocksize": 2}),
    Case("DepthToSpace", [normal(1, 8, 2, 3)], {"blocksize": 2, "mode": "CRD"}, name="crd"),
    Case("SpaceToDepth", [normal(1, 2, 4, 6)], {"blocksize": 2}),
    Case("Range", [np.array(1, np.float32), np.array(9, np.float32), np.array(1.5, np.float32)], fed=3),
    Case("ConstantOfShape", [ints(2, 3)], {"value": numpy_helper.from_array(np.array([7], np.int64))}),
    Case("ConstantOfShape", [ints(2, 3)], name="zeros"),
]

INDEXING = [
    Case("Gather", [normal(9, 4), integers(-9, 9, 2, 3)], fed=2),
    Case("Gather", [normal(3, 9, 2), integers(-9, 9, 4)], {"axis": 1}, fed=2, name="axis"),
    Case("Gather", [normal(3, 9), np.array(-1, np.int64)], {"axis": 1}, name="scalar"),
    Case("GatherElements", [normal(3, 4), integers(-3, 3, 2, 4)], fed=2),
    Case("Gather", [normal(9), np.array(-2, np.int64)], name="scalar of a vector"),
    Case("GatherND", [normal(3, 4, 5), integers(-3, 3, 6, 2)], fed=2),
    Case("GatherND", [normal(3, 4), ints(2, -1)], fed=2, name="one element"),
    Case("GatherND", [normal(2, 4), integers(0, 4, 2, 1)], {"batch_dims": 1}, fed=2, name="one a batch"),
    Case("GatherND", [normal(2, 4, 5), integers(0, 4, 2, 3, 1)], {"batch_dims": 1}, fed=2, name="batched"),
    Case("ScatterElements", [normal(3, 5), ints(1, 4).reshape(1, 2), normal(1, 2)], {"axis": 1}, fed=3),
    *[
        Case(
            "ScatterElements",
            [normal(3, 5), ints(1, 1).reshape(1, 2), normal(1, 2)],
            {"axis": 1, "reduction": kind},
            fed=3,
            name=kind,
        )
        for kind in ("add", "mul", "max", "min")
    ],
    Case("ScatterND", [normal(4, 3, 2), ints(0, -1).reshape(2, 1), normal(2, 3, 2)], fed=3),
    Case(
        "ScatterND",
        [normal(4, 3), ints(0, 0).reshape(2, 1), normal(2, 3)],
        {"reduction": "add"},
        fed=3,
        name="add",
    ),
    Case("ScatterND", [normal(4, 3), ints(0, 1, 2, 2).reshape(2, 2), normal(2)], fed=3, name="elements"),
    Case("Trilu", [normal(4, 4)]),
    Case("Trilu", [normal(4, 4), np.array(-1, np.int64)], {"upper": 0}, name="lower"),
    Case("OneHot", [integers(-4, 4, 2, 3), np.array(4, np.int64), np.array([0.5, 2], np.float32)]),
    Case(
        "OneHot",
        [integers(0, 4, 2, 3), np.array(4, np.int64), np.array([0, 1], np.float32)],
        {"axis": 1},
        name="axis",
    ),
    Case("NonZero", [integers(0, 2, 3, 4)]),
    Case("Compress", [normal(3, 4), np.array([True, False, True])], {"axis": 0}),
    Case("Compress", [normal(3, 4), np.array([True, False, True])], name="flat"),
    Case("EyeLike", [normal(3, 4)], {"k": 1}),
    Case("ReverseSequence", [normal(4, 3, 2), ints(1, 4, 2)]),
]

RESIZE = (
    [
        Case(
            "Resize",
            [IMAGE, None, np.array([1, 1, *scale], np.float32)],
            {"mode": mode, "coordinate_transformation_mode": coordinates},
            name=f"{mode}-{coordinates}-{scale[0]}",
            tolerance=1e-4,
        )
        for mode in ("nearest", "linear", "cubic")
        for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        for scale in ((2.0, 2.0), (0.6, 1.7))
    ]
    + [
        Case(
            "Resize",
            [IMAGE, None, np.array([1, 1, 2, 2], np.float32)],
            {"nearest_mode": mode, "coordinate_transformation_mode": "half_pixel"},
            name=mode,
        )
        for mode in ("floor", "ceil", "round_prefer_ceil", "round_prefer_floor")
    ]
    + [
        Case(
            "Resize", [IMAGE, None, None, ints(2, 4, 14, 5)], {"mode": "linear"}, name="sizes", tolerance=1e-4
        ),
        Case(
            "Resize",
            [IMAGE, None, None, ints(14, 5)],
            {"mode": "linear", "axes": [2, 3]},
            name="axes",
            tolerance=1e-4,
        ),
        Case(
            "Resize",
            [IMAGE, None, np.array([1, 1, 0.6, 1.7], np.float32)],
            {"mode": "cubic", "exclude_outside": 1},
            name="exclude-outside",
            tolerance=1e-4,
        ),
    ]
)

RECURRENT = [
    Case(
        kind,
        [normal(5, 2, 3), normal(d, g * 4, 3), normal(d, g * 4, 4), normal(d, 2 * g * 4)],
        {"hidden_size": 4, "direction": direction, **extra},
        outputs=outputs,
        name=direction,
        tolerance=1e-4,
    )
    for kind, g, outputs, extra in (
        ("LSTM", 4, 3, {}),
        ("GRU", 3, 2, {"linear_before_reset": 1}),
        ("RNN", 1, 2, {}),
    )
    for direction, d in (("forward", 1), ("reverse", 1), ("bidirectional", 2))
] + [
    Case(
        "LSTM",
        [normal(5, 2, 3), normal(1, 16, 3), normal(1, 16, 4), None, None, normal(1, 2, 4), normal(1, 2, 4)],
        {"hidden_size": 4},
        outputs=3,
        name="states",
        tolerance=1e-4,
    ),
]

SCALES = positive(3) + 0.1
QUANTIZATION = [
    Case("QuantizeLinear", [normal(2, 3, 4), np.array(0.02, np.float32), np.array(128, np.uint8)]),
    Case(
        "QuantizeLinear",
        [normal(2, 3, 4), SCALES, integers(-3, 3, 3, dtype=np.int8)],
        {"axis": 1},
        name="channels",
    ),
    Case(
        "QuantizeLinear",
        [normal(2, 3, 4), np.array(0.02, np.float32)],
        {"output_dtype": TensorProto.INT8},
        name="int8",
    ),
    Case(
        "DequantizeLinear",
        [integers(0, 256, 2, 3, dtype=np.uint8), np.array(0.02, np.float32), np.array(128, np.uint8)],
    ),
    Case(
        "DequantizeLinear", [integers(-128, 128, 3, 4, dtype=np.int8), SCALES], {"axis": 0}, name="channels"
    ),
    Case(
        "DequantizeLinear",
        [integers(-128, 128, 6, 4, dtype=np.int8), positive(2, 4)],
        {"axis": 0, "block_size": 3},
        name="blocks",
    ),
]

MICROSOFT = [
    Case(op, [normal(3, 8), *more], attributes, name=name, domain="com.microsoft")
    for op, more, attributes, name in (
        ("Gelu", [], {}, ""),
        ("BiasGelu", [normal(8)], {}, ""),
        ("FastGelu", [], {}, ""),
        ("FastGelu", [normal(8)], {}, "bias"),
        ("QuickGelu", [], {"alpha": 1.5}, ""),
        ("FusedMatMul", [normal(5, 8)], {"transB": 1, "alpha": 0.5}, ""),
        ("FusedMatMul", [normal(3, 4)], {"transA": 1}, "transposed"),
        ("SkipLayerNormalization", [normal(3, 8), normal(8), normal(8), normal(8)], {"epsilon": 1e-5}, ""),
        ("SkipLayerNormalization", [normal(3, 8), normal(8)], {}, "plain"),
        ("SkipSimplifiedLayerNormalization", [normal(3, 8), normal(8)], {"epsilon": 1e-5}, ""),
    )
]
MICROSOFT += [
    Case(
        "FusedConv",
        [IMAGE, normal(6, 4, 3, 3), normal(6)],
        {"activation": activation, "pads": [1, 1, 1, 1]}
        | ({"activation_params": parameters} if parameters else {}),
        name=activation,
        domain="com.microsoft",
        tolerance=1e-4,
    )
    for activation, parameters in (
        ("Relu", []),
        ("Sigmoid", []),
        ("Tanh", []),
        ("LeakyRelu", [0.2]),
        ("Clip", [0.0, 6.0]),
        ("HardSigmoid", [0.2, 0.5]),
    )
]
GRID = (RNG.random((2, 5, 6, 2)) * 2.4 - 1.2).astype(np.float32)
REGIONS = np.array([[0, 0, 4, 5], [1.5, 0.5, 6, 6], [-2, -2, 3, 9]], np.float32)
SAMPLING = [
    Case("GridSample", [IMAGE, GRID], fed=2),
    Case("GridSample", [IMAGE, GRID], {"mode": "nearest", "padding_mode": "border"}, fed=2, name="nearest"),
    Case(
        "GridSample", [IMAGE, GRID], {"align_corners": 1, "padding_mode": "reflection"}, fed=2, name="aligned"
    ),
    *(
        Case(
            "RoiAlign",
            [IMAGE, REGIONS, ints(0, 1, 1)],
            {
                "output_height": 3,
                "output_width": 2,
                "sampling_ratio": 2,
                "spatial_scale": 0.9,
                "coordinate_transformation_mode": mode,
            },
            fed=2,
            name=mode,
        )
        for mode in ("half_pixel", "output_half_pixel")
    ),
]

CASES = (
    UNARY
    + BINARY
    + ELEMENTWISE
    + LINEAR
    + CONVOLUTION
    + POOLING
    + NORMALIZATION
    + REDUCTION
    + SHAPING
    + INDEXING
    + RESIZE
    + RECURRENT
    + QUANTIZATION
    + MICROSOFT
    + SAMPLING
)


def runtime_outputs(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, feed)
    return outputs


# No kernel in ONNX Runtime 1.31, or none for these types: the expected value comes from onnx's reference.
REFERENCE_ONLY = {"Swish", "BitShift-left", "BitShift-right"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_that_an_operator_computes_what_onnx_runtime_computes(case: Case) -> None:
    model, feed = model_of(case)
    if case.op in REFERENCE_ONLY or case.id in REFERENCE_ONLY:
        from onnx.reference import ReferenceEvaluator

        expected = ReferenceEvaluator(model).run(None, feed)
    else:
        expected = runtime_outputs(model, feed)
    with torch.no_grad():
        found = TorchGraph(model).run(feed)
    for name, want in zip([o.name for o in model.graph.output], expected, strict=True):
        got = found[name].numpy()
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=case.tolerance, atol=case.tolerance)


def test_that_every_registered_operator_is_compared() -> None:
    compared = {f"{case.domain}.{case.op}".lstrip(".") for case in CASES}
    # Constant nodes are gone after import; the others are older names of compared ones.
    assert set(OPERATORS) - compared <= {"Constant", "Upsample", "SimplifiedLayerNormalization"}
    assert len(compared) >= 110


REFUSED = [
    Case(
        "GRU", [normal(5, 2, 3), normal(1, 12, 3), normal(1, 12, 4)], {"hidden_size": 4}, name="before-reset"
    ),
    Case(
        "LSTM",
        [normal(5, 2, 3), normal(1, 16, 3), normal(1, 16, 4)],
        {"hidden_size": 4, "clip": 1.0},
        name="clip",
    ),
    Case(
        "RNN",
        [normal(5, 2, 3), normal(1, 4, 3), normal(1, 4, 4)],
        {"hidden_size": 4, "activations": ["Relu"]},
        name="relu",
    ),
    Case(
        "LSTM",
        [normal(2, 5, 3), normal(1, 16, 3), normal(1, 16, 4)],
        {"hidden_size": 4, "layout": 1},
        name="layout",
    ),
    Case("MaxPool", [IMAGE], {"kernel_shape": [2, 2]}, outputs=2, name="indices"),
    Case("AveragePool", [IMAGE], {"kernel_shape": [2, 2], "dilations": [2, 2]}, name="dilations"),
    Case(
        "Resize",
        [IMAGE, None, np.array([1, 1, 2, 2], np.float32)],
        {"mode": "linear", "antialias": 1},
        name="antialias",
    ),
    Case("Cast", [normal(3)], {"to": TensorProto.FLOAT8E4M3FN}, name="float8"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_that_a_mode_without_a_torch_form_is_refused_by_node_name(case: Case) -> None:
    model, feed = model_of(case)
    with pytest.raises(UnsupportedOpError) as refused:
        TorchGraph(model).run(feed)
    assert refused.value.where == f"node ({case.op})"


def test_that_an_unknown_domain_is_refused() -> None:
    node = helper.make_node("Magic", ["x"], ["y"], name="m", domain="my.domain")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    with pytest.raises(UnsupportedOpError, match=r"my\.domain\.Magic"):
        TorchGraph(helper.make_model(graph))
