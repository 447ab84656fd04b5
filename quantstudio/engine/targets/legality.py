"""Which schemes a layer can really have: the policy table that layer lists, menus and recipes obey."""

from __future__ import annotations

from collections.abc import Sequence

NORMALIZATIONS = frozenset(
    {
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "LpNormalization",
        "MeanVarianceNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)

# Element types of weights that were quantized before the file was opened.
_STORED_PRECISIONS = {f"{sign}int{bits}": f"INT{bits}" for sign in ("", "u") for bits in (2, 4, 8, 16)} | {
    "float8e4m3fn": "FP8",
    "float8e4m3fnuz": "FP8",
    "float8e5m2": "FP8",
    "float8e5m2fnuz": "FP8",
    "float4e2m1": "FP4",
}

_FLOATS = ("fp32", "fp16")
_PRODUCTS = (
    "fp32",
    "fp16",
    "static-int8",
    "dynamic-int8",
    "weight-int8",
    "weight-int4",
    "static-int4",
)
# No dynamic INT8 for Conv: ConvInteger takes one weight scale for all channels and runs at 0.1 to 0.3 of the
# speed of the float kernel (ONNX Runtime 1.31, VNNI), so it would lose on both counts.
_CONVOLUTIONS = ("fp32", "fp16", "static-int8", "weight-int8", "weight-int4", "static-int4")
# ConvTranspose has no integer kernel on the CPU of ONNX Runtime 1.31: weights alone.
_STORED = ("fp32", "fp16", "weight-int8")
# Of the recurrent layers only LSTM has an integer kernel (DynamicQuantizeLSTM).
_LSTM = ("fp32", "fp16", "dynamic-int8", "weight-int8")
_TABLES = ("fp32", "fp16", "weight-int8", "weight-int4")

_BY_OP: dict[str, tuple[str, ...]] = {
    "Conv": _CONVOLUTIONS,
    "Gemm": _PRODUCTS,
    "MatMul": _PRODUCTS,
    "ConvTranspose": _STORED,
    "Gather": _TABLES,
    "Einsum": _STORED,
    "LSTM": _LSTM,
    "GRU": _STORED,
    "RNN": _STORED,
}
# Calibration sees only tensors of the main graph, so nothing static inside a body.
_NEEDS_CALIBRATION = frozenset({"static-int8", "static-int4"})


def stored_precision(weight_dtype: str) -> str:
    """Precision of weights of an element type that only quantization makes; empty for others.

    Args:
        weight_dtype: numpy name of the type, else ONNX's in lower case.
    """
    return _STORED_PRECISIONS.get(weight_dtype, "")


def legal_schemes(
    op_type: str,
    weight_shape: Sequence[int],
    *,
    has_weight: bool,
    in_body: bool,
    weight_dtype: str = "float32",
) -> tuple[tuple[str, ...], str]:
    """Schemes a layer can have on a CPU target, and why there are no integer ones.

    Args:
        op_type: ONNX operator.
        weight_shape: Shape of the constant operand; empty without one.
        has_weight: Whether one operand is an initializer.
        in_body: Whether the layer is inside an If, Loop or Scan body.
        weight_dtype: numpy name of the weight's element type.

    Returns:
        Names from `core.precision.NAMED_SCHEMES`, float first, and a reason that is empty when an integer
        scheme is among them.
    """
    if not has_weight:
        return _weightless(op_type, in_body=in_body)
    if op_type in NORMALIZATIONS and not stored_precision(weight_dtype):
        return ("fp32",), (
            f"{op_type} scale and bias are a handful of numbers that no integer kernel takes; they stay float"
        )
    stored = stored_precision(weight_dtype)
    if stored:
        return ("fp32",), f"already quantized ({stored}); open the float model to choose its precision"
    if weight_dtype != "float32":
        return ("fp32",), f"its weights are {weight_dtype}; only float32 weights are quantized"
    names = _BY_OP.get(op_type)
    if names is None:
        return ("fp32",), f"there is no integer form of {op_type}"
    if len(weight_shape) < 2:
        return _FLOATS, "its weight is a single row or number; nothing is gained by quantizing it"
    if in_body:
        names = tuple(name for name in names if name not in _NEEDS_CALIBRATION)
    return names, ""


def _weightless(op_type: str, *, in_body: bool) -> tuple[tuple[str, ...], str]:
    """Schemes of a product of two activations."""
    if op_type != "MatMul":
        return ("fp32",), f"{op_type} has no constant weight"
    if in_body:
        return (
            "fp32",
        ), "both operands are activations inside a control-flow body, where nothing is calibrated"
    return ("fp32", "static-int8"), ""
