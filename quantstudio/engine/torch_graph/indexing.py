"""Gathering and scattering by index, masks and triangles."""

from __future__ import annotations

import torch

from quantstudio.engine.torch_graph.registry import Attributes, operator, unsupported

Tensor = torch.Tensor

_SCATTER_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _wrapped(indices: Tensor, length: int) -> Tensor:
    """Indices counted from the front."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + length, indices)


@operator("Gather")
def gather(attributes: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    """Slices of x along one axis; the result has the shape of the indices in that axis' place."""
    axis = attributes.integer("axis", 0) % x.ndim
    chosen = _wrapped(indices, x.shape[axis])
    taken = x.index_select(axis, chosen.reshape(-1))
    return taken.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@operator("GatherElements")
def gather_elements(attributes: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    """One element of x for each index, along one axis."""
    axis = attributes.integer("axis", 0)
    # torch wants indices no longer than x in the other axes, exactly what ONNX guarantees.
    return torch.gather(x, axis, _wrapped(indices, x.shape[axis]))


def _flat_positions(shape: torch.Size, indices: Tensor) -> tuple[Tensor, int]:
    """Row number into x viewed as [rows, ...] for index tuples in the last axis, and the tuples' length."""
    depth = indices.shape[-1]
    positions = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for axis in range(depth):
        positions = positions * shape[axis] + _wrapped(indices[..., axis], shape[axis])
    return positions, depth


@operator("GatherND")
def gather_nd(attributes: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    """Slices of x at index tuples, within each leading batch axis."""
    batch_axes = attributes.integer("batch_dims", 0)
    if batch_axes:
        batch_shape = x.shape[:batch_axes]
        flat_x = x.reshape(-1, *x.shape[batch_axes:])
        flat_indices = indices.reshape(-1, *indices.shape[batch_axes:])
        rows = [_gather_tuples(a, b) for a, b in zip(flat_x, flat_indices, strict=True)]
        return torch.stack(rows).reshape((*batch_shape, *rows[0].shape))
    return _gather_tuples(x, indices)


def _gather_tuples(x: Tensor, indices: Tensor) -> Tensor:
    positions, depth = _flat_positions(x.shape, indices)
    rows = x.reshape(-1, *x.shape[depth:])
    return rows.index_select(0, positions.reshape(-1)).reshape((*positions.shape, *x.shape[depth:]))


@operator("ScatterElements")
def scatter_elements(attributes: Attributes, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """x with single elements replaced or combined along one axis."""
    axis = attributes.integer("axis", 0)
    chosen = _wrapped(indices, x.shape[axis])
    reduction = attributes.text("reduction", "none")
    if reduction == "none":
        return x.scatter(axis, chosen, updates)
    return x.scatter_reduce(axis, chosen, updates, _SCATTER_REDUCTIONS[reduction], include_self=True)


@operator("ScatterND")
def scatter_nd(attributes: Attributes, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """x with slices at index tuples replaced or combined."""
    positions, depth = _flat_positions(x.shape, indices)
    rows = x.reshape(positions_count(x, depth), -1)
    flat = updates.reshape(positions.numel(), -1)
    where = positions.reshape(-1, 1).expand_as(flat)
    reduction = attributes.text("reduction", "none")
    if reduction == "none":
        return rows.scatter(0, where, flat).reshape(x.shape)
    combined = rows.scatter_reduce(0, where, flat, _SCATTER_REDUCTIONS[reduction], include_self=True)
    return combined.reshape(x.shape)


def positions_count(x: Tensor, depth: int) -> int:
    """Number of slices that index tuples of this depth can name."""
    count = 1
    for length in x.shape[:depth]:
        count *= length
    return count


@operator("Trilu")
def triangle(attributes: Attributes, x: Tensor, diagonal: Tensor | None = None) -> Tensor:
    """Upper or lower triangle of the last two axes."""
    k = 0 if diagonal is None else int(diagonal.item())
    return torch.triu(x, k) if attributes.flag("upper", True) else torch.tril(x, k)


@operator("OneHot")
def one_hot(attributes: Attributes, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """on/off values, with a new axis for the class."""
    count = int(depth.item())
    classes = torch.arange(count, device=indices.device)
    axis = attributes.integer("axis", -1)
    axis = axis + indices.ndim + 1 if axis < 0 else axis
    shape = [1] * (indices.ndim + 1)
    shape[axis] = count
    hit = _wrapped(indices, count).unsqueeze(axis) == classes.reshape(shape)
    return torch.where(hit, values[1], values[0])


@operator("NonZero")
def non_zero(_: Attributes, x: Tensor) -> Tensor:
    """Coordinates of the elements that are not zero, [rank, count]."""
    return torch.nonzero(x).T


@operator("Compress")
def compress(attributes: Attributes, x: Tensor, condition: Tensor) -> Tensor:
    """Slices along the axis (or elements of the flattened tensor) where the condition holds."""
    if "axis" not in attributes:
        x, axis = x.reshape(-1), 0
    else:
        axis = attributes.integer("axis", 0)
    return x.index_select(axis, torch.nonzero(condition).reshape(-1))


@operator("EyeLike")
def eye_like(attributes: Attributes, x: Tensor) -> Tensor:
    """Ones on a diagonal, in the shape of a matrix."""
    if "dtype" in attributes:
        raise unsupported("EyeLike with an explicit type")
    ones = torch.ones_like(x)
    k = attributes.integer("k", 0)
    return torch.triu(ones, k) - torch.triu(ones, k + 1)


@operator("ReverseSequence")
def reverse_sequence(attributes: Attributes, x: Tensor, lengths: Tensor) -> Tensor:
    """Each sample's first `length` steps in reverse order."""
    time_axis, batch_axis = attributes.integer("time_axis", 0), attributes.integer("batch_axis", 1)
    steps = torch.arange(x.shape[time_axis], device=x.device)
    shape = [1] * x.ndim
    shape[time_axis] = x.shape[time_axis]
    batch_shape = [1] * x.ndim
    batch_shape[batch_axis] = x.shape[batch_axis]
    count = lengths.reshape(batch_shape)
    steps = steps.reshape(shape)
    source = torch.where(steps < count, count - 1 - steps, steps)
    return torch.gather(x, time_axis, source.expand_as(x))
