"""QuantizeLinear and DequantizeLinear, exactly as ONNX defines them.

Rounding to integers has no gradient: layers before a QuantizeLinear get none.
"""

from __future__ import annotations

import torch
from onnx import TensorProto

from quantstudio.engine.torch_graph.registry import (
    INTEGER_BOUNDS,
    TORCH_TYPES,
    Attributes,
    operator,
    unsupported,
)

Tensor = torch.Tensor


def _spread(attributes: Attributes, x: Tensor, parameter: Tensor) -> Tensor:
    """A scale or zero point broadcast against x: one value, one per channel, or one per block."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    axis = attributes.integer("axis", 1) % x.ndim
    block = attributes.integer("block_size", 0)
    if block:
        return parameter.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    shape = [1] * x.ndim
    shape[axis] = -1
    return parameter.reshape(shape)


@operator("QuantizeLinear")
def quantize_linear(
    attributes: Attributes, x: Tensor, scale: Tensor, zero_point: Tensor | None = None
) -> Tensor:
    """saturate(round(x / scale) + zero point), halves to even."""
    kind = attributes.element_types.get(2) or attributes.integer("output_dtype", 0) or TensorProto.UINT8
    if kind not in INTEGER_BOUNDS:
        raise unsupported(f"QuantizeLinear to ONNX element type {kind}")
    low, high = INTEGER_BOUNDS[kind]
    q = torch.round(x / _spread(attributes, x, scale))
    if zero_point is not None:
        q = q + _spread(attributes, x, zero_point.to(torch.int32))
    return q.clamp(low, high).to(TORCH_TYPES[kind])


@operator("DequantizeLinear")
def dequantize_linear(
    attributes: Attributes, q: Tensor, scale: Tensor, zero_point: Tensor | None = None
) -> Tensor:
    """(q - zero point) * scale."""
    values = q.to(torch.int32)
    if zero_point is not None:
        values = values - _spread(attributes, q, zero_point.to(torch.int32))
    return values.to(scale.dtype) * _spread(attributes, q, scale)
