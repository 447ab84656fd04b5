"""Rounding with a gradient: what quantization does to a tensor, for training through it.

Forward, values are those of QuantizeLinear and DequantizeLinear; backward, the gradient passes where a value
lies inside the range and is zero where it was cut off (Bengio et al. 2013, arXiv:1308.3432; Jacob et al.
2018, arXiv:1712.05877, section 3).
"""

from __future__ import annotations

from typing import Any

import torch

Tensor = torch.Tensor


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:  # noqa: ANN401  torch's context has no type
        return torch.round(x)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
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
