"""Operators that act on each element: activations, arithmetic, comparison, casts."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  torch's own convention

from quantstudio.engine.torch_graph.registry import (
    TORCH_TYPES,
    Attributes,
    operator,
    register_plain,
    unsupported,
)

Tensor = torch.Tensor


def _divide(x: Tensor, y: Tensor) -> Tensor:
    """ONNX divides integers towards zero."""
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _power(x: Tensor, y: Tensor) -> Tensor:
    """The result has the type of the base."""
    if x.is_floating_point():
        return torch.pow(x, y.to(x.dtype))
    return torch.pow(x.to(torch.float64), y.to(torch.float64)).to(x.dtype)


register_plain(
    {
        "Relu": torch.relu,
        "Sigmoid": torch.sigmoid,
        "Tanh": torch.tanh,
        "Erf": torch.erf,
        "Exp": torch.exp,
        "Log": torch.log,
        "Sqrt": torch.sqrt,
        "Neg": torch.neg,
        "Abs": torch.abs,
        "Floor": torch.floor,
        "Ceil": torch.ceil,
        "Round": torch.round,
        "Sin": torch.sin,
        "Cos": torch.cos,
        "Tan": torch.tan,
        "Asin": torch.asin,
        "Acos": torch.acos,
        "Atan": torch.atan,
        "Sinh": torch.sinh,
        "Cosh": torch.cosh,
        "Asinh": torch.asinh,
        "Acosh": torch.acosh,
        "Atanh": torch.atanh,
        "Reciprocal": torch.reciprocal,
        "Sign": torch.sign,
        "Not": torch.logical_not,
        "Softsign": F.softsign,
        "HardSwish": F.hardswish,
        "Mish": F.mish,
        "IsNaN": torch.isnan,
        "Add": torch.add,
        "Sub": torch.sub,
        "Mul": torch.mul,
        "Div": _divide,
        "Pow": _power,
        "Equal": torch.eq,
        "Less": torch.lt,
        "Greater": torch.gt,
        "LessOrEqual": torch.le,
        "GreaterOrEqual": torch.ge,
        "And": torch.logical_and,
        "Or": torch.logical_or,
        "Xor": torch.logical_xor,
        "BitwiseAnd": torch.bitwise_and,
        "BitwiseOr": torch.bitwise_or,
        "BitwiseXor": torch.bitwise_xor,
        "BitwiseNot": torch.bitwise_not,
        "Where": torch.where,
    }
)


@operator("Softplus")
def softplus(_: Attributes, x: Tensor) -> Tensor:
    """log(1 + e^x), without torch's linear shortcut for large x."""
    return torch.logaddexp(x, torch.zeros_like(x))


@operator("IsInf")
def is_inf(attributes: Attributes, x: Tensor) -> Tensor:
    """Which elements are infinite, by sign if asked."""
    positive = torch.isposinf(x) & attributes.flag("detect_positive", True)
    return positive | (torch.isneginf(x) & attributes.flag("detect_negative", True))


@operator("LeakyRelu")
def leaky_relu(attributes: Attributes, x: Tensor) -> Tensor:
    """Rectifier with a slope below zero."""
    return F.leaky_relu(x, attributes.real("alpha", 0.01))


@operator("Elu")
def elu(attributes: Attributes, x: Tensor) -> Tensor:
    """Exponential linear unit."""
    return F.elu(x, attributes.real("alpha", 1.0))


@operator("Celu")
def celu(attributes: Attributes, x: Tensor) -> Tensor:
    """Continuously differentiable exponential linear unit."""
    return F.celu(x, attributes.real("alpha", 1.0))


@operator("Selu")
def selu(attributes: Attributes, x: Tensor) -> Tensor:
    """Scaled exponential linear unit."""
    gamma = attributes.real("gamma", 1.0507009873554805)
    return gamma * F.elu(x, attributes.real("alpha", 1.6732632423543772))


@operator("HardSigmoid")
def hard_sigmoid(attributes: Attributes, x: Tensor) -> Tensor:
    """Piecewise linear sigmoid."""
    return (attributes.real("alpha", 0.2) * x + attributes.real("beta", 0.5)).clamp(0, 1)


@operator("ThresholdedRelu")
def thresholded_relu(attributes: Attributes, x: Tensor) -> Tensor:
    """x above alpha, else 0."""
    return torch.where(x > attributes.real("alpha", 1.0), x, torch.zeros_like(x))


@operator("Shrink")
def shrink(attributes: Attributes, x: Tensor) -> Tensor:
    """0 within lambd, else x moved by bias towards zero."""
    bias, limit = attributes.real("bias", 0.0), attributes.real("lambd", 0.5)
    zero = torch.zeros_like(x)
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, zero))


@operator("PRelu")
def prelu(_: Attributes, x: Tensor, slope: Tensor) -> Tensor:
    """Rectifier with a learned slope, broadcast as ONNX does (from the last axis)."""
    return torch.where(x < 0, x * slope, x)


@operator("Gelu")
def gelu(attributes: Attributes, x: Tensor) -> Tensor:
    """Gaussian error linear unit."""
    return F.gelu(x, approximate=attributes.text("approximate", "none"))


@operator("Swish")
def swish(attributes: Attributes, x: Tensor) -> Tensor:
    """x * sigmoid(alpha x)."""
    return x * torch.sigmoid(attributes.real("alpha", 1.0) * x)


@operator("Clip")
def clip(attributes: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """x limited to [low, high]; opset 6 writes the limits as attributes."""
    if low is None and "min" in attributes:
        low = x.new_tensor(attributes.real("min", 0))
    if high is None and "max" in attributes:
        high = x.new_tensor(attributes.real("max", 0))
    if low is None and high is None:
        return x
    if x.is_floating_point():
        # Numbers rather than tensors, and hardtanh rather than clamp: clamp's gradient takes several passes.
        lower = None if low is None else float(low.item())
        upper = None if high is None else float(high.item())
        if lower is not None and upper is not None and lower < upper:
            return F.hardtanh(x, lower, upper)
        return torch.clamp(x, lower, upper)
    return torch.clamp(x, low, high)


@operator("Identity")
def identity(_: Attributes, x: Tensor) -> Tensor:
    """The input itself."""
    return x


@operator("Dropout")
def dropout(attributes: Attributes, x: Tensor, *_: Tensor | None) -> Tensor | tuple[Tensor, ...]:
    """Inference form: the input, and a mask of ones where asked."""
    if attributes.output_count > 1:
        return x, torch.ones_like(x, dtype=torch.bool)
    return x


@operator("Mod")
def modulo(attributes: Attributes, x: Tensor, y: Tensor) -> Tensor:
    """Remainder with the sign of the divisor, or of the dividend with fmod."""
    return torch.fmod(x, y) if attributes.flag("fmod") else torch.remainder(x, y)


@operator("BitShift")
def bit_shift(attributes: Attributes, x: Tensor, y: Tensor) -> Tensor:
    """Shift of unsigned integers."""
    shift = torch.bitwise_left_shift if attributes.text("direction", "LEFT") == "LEFT" else _shift_right
    return shift(x, y)


def _shift_right(x: Tensor, y: Tensor) -> Tensor:
    return torch.bitwise_right_shift(x, y)


def _fold(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def folded(*inputs: Tensor) -> Tensor:
        return functools.reduce(function, inputs)

    return folded


def _mean(*inputs: Tensor) -> Tensor:
    return functools.reduce(torch.add, inputs) / len(inputs)


register_plain(
    {"Min": _fold(torch.minimum), "Max": _fold(torch.maximum), "Sum": _fold(torch.add), "Mean": _mean}
)


@operator("Softmax")
def softmax(attributes: Attributes, x: Tensor) -> Tensor:
    """Softmax along one axis (opset 13 on)."""
    return torch.softmax(x, attributes.integer("axis", -1))


@operator("LogSoftmax")
def log_softmax(attributes: Attributes, x: Tensor) -> Tensor:
    """Logarithm of the softmax along one axis."""
    return torch.log_softmax(x, attributes.integer("axis", -1))


@operator("Hardmax")
def hardmax(attributes: Attributes, x: Tensor) -> Tensor:
    """One at the first largest element along the axis, else zero."""
    axis = attributes.integer("axis", -1)
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)


@operator("Cast")
def cast(attributes: Attributes, x: Tensor) -> Tensor:
    """The same values in another type."""
    kind = attributes.integer("to", 1)
    if kind not in TORCH_TYPES:
        raise unsupported(f"Cast to ONNX element type {kind}")
    return x.to(TORCH_TYPES[kind])


@operator("CastLike")
def cast_like(_: Attributes, x: Tensor, target: Tensor) -> Tensor:
    """The same values in the type of another tensor."""
    return x.to(target.dtype)
