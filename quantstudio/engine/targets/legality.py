"""Which schemes a layer of an opened graph can have, and why it has no integer ones."""

from __future__ import annotations

from collections.abc import Sequence

from quantstudio.core.precision import Precision
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.target import DEFAULT_TARGET, SchemeKind, writable_schemes

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
    """Schemes a layer can have on the default target, and why there are no integer ones.

    Other targets may refuse some of them (see `core.target.Target.support`).

    Args:
        op_type: ONNX operator.
        weight_shape: Shape of the constant operand; empty without one.
        has_weight: Whether one operand is an initializer.
        in_body: Whether the layer is inside an If, Loop or Scan body.
        weight_dtype: numpy name of the weight's element type.

    Returns:
        Names from `core.schemes.NAMED_SCHEMES`, float first, and a reason that is empty when an integer
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
    kinds = DEFAULT_TARGET.kinds(op_type, in_body=in_body)
    if not kinds:
        return ("fp32",), f"there is no integer form of {op_type}"
    if len(weight_shape) < 2:
        return (
            writable_schemes(frozenset()),
            "its weight is a single row or number; nothing is gained by quantizing it",
        )
    return writable_schemes(kinds), ""


def _weightless(op_type: str, *, in_body: bool) -> tuple[tuple[str, ...], str]:
    """Schemes of a product of two activations: one for every static format of activations."""
    if op_type != "MatMul":
        return ("fp32",), f"{op_type} has no constant weight"
    if in_body:
        why = "both operands are activations inside a control-flow body, where nothing is calibrated"
        return ("fp32",), why
    static = writable_schemes(frozenset({SchemeKind.STATIC}))
    without_weights = [name for name in static if NAMED_SCHEMES[name].weights == Precision.INT8]
    return ("fp32", *without_weights), ""
