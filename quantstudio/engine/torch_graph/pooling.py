"""Pooling over windows and over all positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  torch's own convention

from quantstudio.engine.torch_graph.convolution import pad_spatial, window_pads
from quantstudio.engine.torch_graph.registry import Attributes, operator, unsupported

Tensor = torch.Tensor

_MAX_POOLS = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGE_POOLS = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


class _Window:
    """Kernel, strides, dilations and padding of one pooling node for one input."""

    def __init__(self, attributes: Attributes, x: Tensor) -> None:
        self.kernel = attributes.integers("kernel_shape") or []
        self.dimensions = len(self.kernel)
        if not 1 <= self.dimensions <= 3:
            raise unsupported(f"pooling in {self.dimensions} dimensions")
        self.strides = attributes.integers("strides") or [1] * self.dimensions
        self.dilations = attributes.integers("dilations") or [1] * self.dimensions
        self.ceil = attributes.flag("ceil_mode")
        self.pads = window_pads(attributes, x.shape[2:], self.kernel, self.strides, self.dilations)

    @property
    def is_native(self) -> bool:
        """Whether torch can pad this way itself: the same on both sides and at most half a kernel."""
        return all(a == b and 2 * a <= k for (a, b), k in zip(self.pads, self.kernel, strict=True))

    @property
    def even(self) -> list[int]:
        return [before for before, _ in self.pads]

    def ceil_pads(self, lengths: Sequence[int]) -> list[tuple[int, int]]:
        """Padding with the end widened to what ceil_mode reaches into, as if floor were used after."""
        if not self.ceil:
            return list(self.pads)
        found = []
        for i, (before, after) in enumerate(self.pads):
            span = (self.kernel[i] - 1) * self.dilations[i] + 1
            padded = lengths[i] + before + after
            windows = -(-(padded - span) // self.strides[i]) + 1
            # A window that starts in the padding at the end is dropped.
            if (windows - 1) * self.strides[i] >= lengths[i] + before:
                windows -= 1
            found.append((before, after + max((windows - 1) * self.strides[i] + span - padded, 0)))
        return found


@operator("MaxPool")
def max_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """Largest value of each window."""
    if attributes.output_count > 1:
        raise unsupported("MaxPool with an index output")
    window = _Window(attributes, x)
    pool = _MAX_POOLS[window.dimensions - 1]
    if window.is_native:
        y: Tensor = pool(x, window.kernel, window.strides, window.even, window.dilations, window.ceil)
        return y
    padded = pad_spatial(x, window.ceil_pads(x.shape[2:]), float("-inf"))
    largest: Tensor = pool(padded, window.kernel, window.strides, 0, window.dilations)
    return largest


@operator("AveragePool")
def average_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """Mean of each window, over the padding too if count_include_pad."""
    window = _Window(attributes, x)
    if any(d != 1 for d in window.dilations):
        raise unsupported("AveragePool with dilations")
    include = attributes.flag("count_include_pad")
    pool = _AVERAGE_POOLS[window.dimensions - 1]
    if window.is_native and not window.ceil:
        y: Tensor = pool(x, window.kernel, window.strides, window.even, False, include)
        return y
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    if include:
        ones = pad_spatial(ones, window.pads, 1.0)
        beyond = [
            (0, wide[1] - asked[1])
            for wide, asked in zip(window.ceil_pads(x.shape[2:]), window.pads, strict=True)
        ]
        ones = pad_spatial(ones, beyond)
    else:
        ones = pad_spatial(ones, window.ceil_pads(x.shape[2:]))
    total: Tensor = pool(pad_spatial(x, window.ceil_pads(x.shape[2:])), window.kernel, window.strides)
    count: Tensor = pool(ones, window.kernel, window.strides)
    return total / count


@operator("LpPool")
def lp_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """p-norm of each window."""
    window = _Window(attributes, x)
    if any(d != 1 for d in window.dilations):
        raise unsupported("LpPool with dilations")
    p = attributes.integer("p", 2)
    powered = pad_spatial(x.abs() ** p, window.ceil_pads(x.shape[2:]))
    count = 1
    for size in window.kernel:
        count *= size
    y: Tensor = _AVERAGE_POOLS[window.dimensions - 1](powered, window.kernel, window.strides)
    return (y * count) ** (1 / p)


def _spatial_axes(x: Tensor) -> list[int]:
    return list(range(2, x.ndim))


@operator("GlobalAveragePool")
def global_average_pool(_: Attributes, x: Tensor) -> Tensor:
    """Mean over all positions."""
    return x.mean(_spatial_axes(x), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(_: Attributes, x: Tensor) -> Tensor:
    """Largest value over all positions."""
    return x.amax(_spatial_axes(x), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """p-norm over all positions."""
    p = attributes.integer("p", 2)
    return (x.abs() ** p).sum(_spatial_axes(x), keepdim=True) ** (1 / p)
