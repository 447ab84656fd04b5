"""Rounding with a gradient: what quantization does to a tensor, for training through it.

Forward, values are those of QuantizeLinear and DequantizeLinear; backward, the gradient passes where a value
lies inside the range and is zero where it was cut off (Bengio et al. 2013, arXiv:1308.3432; Jacob et al.
2018, arXiv:1712.05877, section 3).
"""

from __future__ import annotations

import torch
from torch.autograd.function import BackwardCFunction, FunctionCtx

Tensor = torch.Tensor


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(_: FunctionCtx, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(_: BackwardCFunction, *gradients: Tensor) -> Tensor:
        return gradients[0]


def rounded(x: Tensor) -> Tensor:
    """The nearest integers, halves to even; the gradient passes."""
    result: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]
    return result


def fake_quantized(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    """A tensor after a Q/DQ pair of one scale.

    Args:
        x: Any shape, float32.
        scale: Step, > 0.
        zero_point: Integer that means zero.
        low: Smallest integer.
        high: Largest integer.
    """
    if not x.requires_grad:
        # The kernel below multiplies with 1 / scale; the definition divides, and halves fall differently.
        return (torch.round(x / scale) + zero_point).clamp_(low, high).sub_(zero_point).mul_(scale)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high)


class _LearnedQuantization(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        out = torch.round(x / scale).clamp_(low, high).mul_(scale)
        ctx.save_for_backward(x, scale, out)
        return out

    @staticmethod
    def backward(ctx: BackwardCFunction, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        x, scale, out = saved
        # Rounding moves a value by half a step at most, cutting off by more.
        error = out - x
        passed = gradients[0].masked_fill(error.abs() > scale * _HALF_STEP, 0.0)
        cut = gradients[0] - passed
        slope = torch.dot(passed.flatten(), error.flatten()) + torch.dot(cut.flatten(), out.flatten())
        return passed, (slope / scale.flatten()[0]).reshape(scale.shape), None, None


# With room for what float32 makes of it.
_HALF_STEP = 0.5 * (1 + 1e-5)


def learned_quantized(x: Tensor, scale: Tensor, zero_point: int, low: int, high: int) -> Tensor:
    """A tensor after a Q/DQ pair whose scale has a gradient: Esser et al. 2020, LSQ, arXiv:1902.08153, eq. 3.

    Inside the range the scale's gradient is what rounding missed in steps, outside it is the integer at which
    values were cut off.

    Args:
        x: Any shape, float32.
        scale: Step, > 0, one number.
        zero_point: Integer that means zero.
        low: Smallest integer.
        high: Largest integer.
    """
    result: Tensor = _LearnedQuantization.apply(  # type: ignore[no-untyped-call]
        x, scale, low - zero_point, high - zero_point
    )
    return result


def fake_quantized_dynamic(x: Tensor) -> Tensor:
    """A tensor after DynamicQuantizeLinear and back: 8 bits over the range of all its values and zero."""
    with torch.no_grad():
        low, high = torch.aminmax(x)
        low, high = low.clamp(max=0), high.clamp(min=0)
        scale = float((high - low) / 255)
        if not scale > 0:
            return x
        zero_point = int(torch.round(-low / scale).clamp(0, 255))
    return fake_quantized(x, scale, zero_point, 0, 255)
