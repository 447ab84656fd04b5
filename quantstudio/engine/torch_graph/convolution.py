"""Convolution and transposed convolution in one to three dimensions, with any padding ONNX can write."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  torch's own convention

from quantstudio.engine.torch_graph.registry import Attributes, operator, unsupported

Tensor = torch.Tensor

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def window_pads(
    attributes: Attributes,
    lengths: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[tuple[int, int]]:
    """Padding (before, after) of each spatial axis, with auto_pad resolved for these input lengths."""
    auto = attributes.text("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        pads = attributes.integers("pads") or [0] * 2 * len(kernel)
        return list(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))
    if auto == "VALID":
        return [(0, 0)] * len(kernel)
    found = []
    for length, size, stride, dilation in zip(lengths, kernel, strides, dilations, strict=True):
        outputs = -(-length // stride)
        total = max((outputs - 1) * stride + (size - 1) * dilation + 1 - length, 0)
        small, large = total // 2, total - total // 2
        found.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return found


def pad_spatial(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """x with its last axes padded by a constant."""
    flat = [amount for pair in reversed(pads) for amount in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


@operator("Conv")
def convolution(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Grouped convolution; weight [C_out, C_in / groups, K...]."""
    dimensions = weight.ndim - 2
    if not 1 <= dimensions <= 3:
        raise unsupported(f"convolution in {dimensions} dimensions")
    strides = attributes.integers("strides") or [1] * dimensions
    dilations = attributes.integers("dilations") or [1] * dimensions
    pads = window_pads(attributes, x.shape[2:], weight.shape[2:], strides, dilations)
    padding = [before for before, _ in pads]
    if any(before != after for before, after in pads):
        x, padding = pad_spatial(x, pads), [0] * dimensions
    return _CONVOLUTIONS[dimensions - 1](
        x, weight, bias, strides, padding, dilations, attributes.integer("group", 1)
    )


@operator("ConvTranspose")
def transposed_convolution(
    attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Transposed convolution; weight [C_in, C_out / groups, K...]. Uneven padding is cropped away."""
    dimensions = weight.ndim - 2
    if not 1 <= dimensions <= 3:
        raise unsupported(f"transposed convolution in {dimensions} dimensions")
    strides = attributes.integers("strides") or [1] * dimensions
    dilations = attributes.integers("dilations") or [1] * dimensions
    extra = attributes.integers("output_padding") or [0] * dimensions
    pads = transposed_pads(attributes, x.shape[2:], weight.shape[2:], strides, dilations, extra)
    is_even = all(before == after and before >= 0 for before, after in pads)
    y: Tensor = _TRANSPOSED[dimensions - 1](
        x,
        weight,
        bias,
        strides,
        [before for before, _ in pads] if is_even else [0] * dimensions,
        extra,
        attributes.integer("group", 1),
        dilations,
    )
    if not is_even:
        # A negative pad at the end is a longer output than the kernel reaches: only the bias arrives there.
        for axis, (before, after) in enumerate(pads, start=2):
            if after < 0:
                raise unsupported("ConvTranspose with an output longer than its kernel reaches")
            y = y.narrow(axis, before, y.shape[axis] - before - after)
    return y


def transposed_pads(
    attributes: Attributes,
    lengths: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    extra: Sequence[int],
) -> list[tuple[int, int]]:
    """Padding (before, after) that is taken off each spatial axis of the full output."""
    auto = attributes.text("auto_pad", "NOTSET")
    asked = attributes.integers("output_shape")
    if asked is None and auto in ("NOTSET", "", "VALID"):
        return window_pads(attributes, lengths, kernel, strides, dilations)
    targets = (
        asked[-len(kernel) :]
        if asked is not None
        else [length * stride for length, stride in zip(lengths, strides, strict=True)]
    )
    found = []
    for i, target in enumerate(targets):
        full = (lengths[i] - 1) * strides[i] + extra[i] + (kernel[i] - 1) * dilations[i] + 1
        total = max(full - target, 0)
        small, large = total // 2, total - total // 2
        # The other way round than Conv: ONNX puts the odd one at the end for SAME_UPPER only.
        found.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return found
