"""Operators that move elements without computing: reshape, slice, pad, split, tile."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  torch's own convention

from quantstudio.engine.torch_graph.registry import (
    Attributes,
    Result,
    integer_list,
    operator,
    optional_integers,
    positive_axes,
    unsupported,
)

Tensor = torch.Tensor


@operator("Reshape")
def reshape(attributes: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    """x in another shape; 0 keeps the input's length unless allowzero."""
    target = integer_list(shape)
    if not attributes.flag("allowzero"):
        target = [x.shape[i] if length == 0 else length for i, length in enumerate(target)]
    return x.reshape(target)


@operator("Flatten")
def flatten(attributes: Attributes, x: Tensor) -> Tensor:
    """Two axes: the product of the lengths before `axis`, and of those from it on."""
    axis = attributes.integer("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Transpose")
def transpose(attributes: Attributes, x: Tensor) -> Tensor:
    """Axes in another order, reversed by default."""
    return x.permute(attributes.integers("perm") or list(range(x.ndim))[::-1])


@operator("Squeeze")
def squeeze(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Without the axes of length 1."""
    chosen = optional_integers(attributes, "axes", axes)
    return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))


@operator("Unsqueeze")
def unsqueeze(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """With new axes of length 1 at these positions of the result."""
    chosen = optional_integers(attributes, "axes", axes) or []
    for axis in sorted(positive_axes(chosen, x.ndim + len(chosen))):
        x = x.unsqueeze(axis)
    return x


@operator("Shape")
def shape_of(attributes: Attributes, x: Tensor) -> Tensor:
    """Lengths of the axes, or of a range of them."""
    start, end = attributes.integer("start", 0), attributes.integer("end", x.ndim)
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64, device=x.device)


@operator("Size")
def size_of(_: Attributes, x: Tensor) -> Tensor:
    """Number of elements."""
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


@operator("Concat")
def concat(attributes: Attributes, *inputs: Tensor) -> Tensor:
    """Tensors one after the other along an axis."""
    return torch.cat(inputs, attributes.integer("axis", 0))


@operator("Split")
def split(attributes: Attributes, x: Tensor, lengths: Tensor | None = None) -> Result:
    """Pieces along an axis: of given lengths, or as equal as possible."""
    axis = attributes.integer("axis", 0)
    chosen = optional_integers(attributes, "split", lengths)
    if chosen is None:
        count = attributes.integer("num_outputs", attributes.output_count)
        each = -(-x.shape[axis] // count)
        chosen = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
    return tuple(torch.split(x, chosen, axis))


@operator("Slice")
def slice_(
    attributes: Attributes,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """numpy's slicing, negative steps included."""
    first = optional_integers(attributes, "starts", starts) or []
    last = optional_integers(attributes, "ends", ends) or []
    along = optional_integers(attributes, "axes", axes) or list(range(len(first)))
    stride = integer_list(steps) if steps is not None else [1] * len(first)
    for axis, start, end, step in zip(along, first, last, stride, strict=True):
        begin, stop, step = slice(start, end, step).indices(x.shape[axis])
        if step == 1:
            x = x.narrow(axis, begin, max(stop - begin, 0))
        else:
            chosen = torch.tensor(range(begin, stop, step), dtype=torch.int64, device=x.device)
            x = x.index_select(axis, chosen)
    return x


@operator("Pad")
def pad(
    attributes: Attributes,
    x: Tensor,
    pads: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    """Constant, edge, reflect or wrap padding of any axes; negative amounts crop."""
    amounts = optional_integers(attributes, "pads", pads) or []
    along = positive_axes(integer_list(axes), x.ndim) if axes is not None else list(range(x.ndim))
    half = len(amounts) // 2
    mode = attributes.text("mode", "constant")
    if mode == "constant":
        flat = [0] * 2 * x.ndim
        for axis, before, after in zip(along, amounts[:half], amounts[half:], strict=True):
            position = 2 * (x.ndim - 1 - axis)
            flat[position], flat[position + 1] = before, after
        fill = value.item() if value is not None and value.numel() else attributes.real("value", 0.0)
        return F.pad(x, flat, value=fill)
    for axis, before, after in zip(along, amounts[:half], amounts[half:], strict=True):
        if before or after:
            chosen = _padded_positions(x.shape[axis], before, after, mode)
            x = x.index_select(axis, torch.tensor(chosen, dtype=torch.int64, device=x.device))
    return x


def _padded_positions(length: int, before: int, after: int, mode: str) -> list[int]:
    """Position in the input for every position of the padded axis."""
    positions = range(-before, length + after)
    if mode == "edge":
        return [min(max(i, 0), length - 1) for i in positions]
    if mode == "wrap":
        return [i % length for i in positions]
    if mode == "reflect":
        period = max(2 * (length - 1), 1)
        return [min(i % period, period - i % period) if length > 1 else 0 for i in positions]
    raise unsupported(f"Pad mode {mode!r}")


@operator("Expand")
def expand(_: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    """x broadcast against a shape, in both directions."""
    target = integer_list(shape)
    target = [1] * (x.ndim - len(target)) + target
    # A length of 1 keeps the input's; torch writes that as -1, and only for axes the input has.
    added = len(target) - x.ndim
    return x.expand([-1 if length == 1 and i >= added else length for i, length in enumerate(target)])


@operator("Tile")
def tile(_: Attributes, x: Tensor, repeats: Tensor) -> Tensor:
    """x repeated along each axis."""
    return x.repeat(integer_list(repeats))


@operator("DepthToSpace")
def depth_to_space(attributes: Attributes, x: Tensor) -> Tensor:
    """Blocks of channels become blocks of pixels."""
    block = attributes.integer("blocksize", 1)
    n, c, h, w = x.shape
    if attributes.text("mode", "DCR") == "DCR":
        y = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, c // block**2, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // block**2, h * block, w * block)


@operator("SpaceToDepth")
def space_to_depth(attributes: Attributes, x: Tensor) -> Tensor:
    """Blocks of pixels become blocks of channels."""
    block = attributes.integer("blocksize", 1)
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return y.reshape(n, c * block**2, h // block, w // block)


@operator("Range")
def range_(_: Attributes, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Evenly spaced numbers."""
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)


@operator("ConstantOfShape")
def constant_of_shape(attributes: Attributes, shape: Tensor) -> Tensor:
    """A tensor of one value."""
    lengths: Sequence[int] = integer_list(shape)
    value = attributes.value("value")
    if value is None:
        return torch.zeros(lengths, device=shape.device)
    return torch.full(lengths, value.reshape(-1)[0].item(), dtype=value.dtype, device=shape.device)


@operator("Constant")
def constant(attributes: Attributes) -> Tensor:
    """The node's own value (a normalised graph has none of these)."""
    tensor = attributes.value("value")
    if tensor is not None:
        return torch.as_tensor(tensor)
    for name, dtype in (
        ("value_float", torch.float32),
        ("value_floats", torch.float32),
        ("value_int", torch.int64),
        ("value_ints", torch.int64),
    ):
        if name in attributes:
            return torch.tensor(attributes.value(name), dtype=dtype)
    raise unsupported("Constant without a numeric value")
