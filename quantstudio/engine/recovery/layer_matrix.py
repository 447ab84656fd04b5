"""A layer with weights as a product of matrices: which numbers a channel multiplies with which inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from quantstudio.engine.torch_graph.convolution import pad_spatial, transposed_pads, window_pads
from quantstudio.engine.torch_graph.module import Node

Tensor = torch.Tensor

# Part of the golden ratio: consecutive multiples of it, modulo one, never fall close together.
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True, eq=False)
class LayerMatrix:
    """How one node's weight and data become matrices, a group at a time.

    Attributes:
        node: The layer.
        slot: Input that holds the weight.
        groups: Groups G of channels that share nothing.
        rows_of: Data of one chunk and its number -> input vectors [G, K, R], at most so many a sample.
        written_of: What the layer writes -> products of weight and data [G, O, R] at the same places.
        to_matrix: Weight as it lies -> [G, O, K].
        to_weight: The way back.
    """

    node: Node
    slot: int
    groups: int
    rows_of: Callable[[Tensor, int, int], Tensor]
    written_of: Callable[[Tensor, int, int], Tensor]
    to_matrix: Callable[[Tensor], Tensor]
    to_weight: Callable[[Tensor], Tensor]

    @property
    def data_slot(self) -> int:
        """Input that holds the data."""
        return 1 - self.slot


def layer_matrix(node: Node, slot: int, weight: Tensor) -> LayerMatrix | None:
    """The matrices of a layer; None where its weight is no matrix that channels multiply with.

    Args:
        node: Conv, ConvTranspose, Gemm or MatMul.
        slot: Input that holds the weight.
        weight: The weight.
    """
    match node.op_type:
        case "Conv" if slot == 1 and 3 <= weight.ndim <= 5:
            return _convolution(node, weight)
        case "ConvTranspose" if slot == 1 and 3 <= weight.ndim <= 5:
            return _transposed(node, weight)
        case "Gemm" if weight.ndim == 2:
            return _gemm(node, slot, weight)
        case "MatMul" if weight.ndim == 2 or (weight.ndim == 3 and slot == 1):
            return _product(node, slot, weight)
        case _:
            return None


def _convolution(node: Node, weight: Tensor) -> LayerMatrix:
    groups, kernel = node.attributes.integer("group", 1), tuple(weight.shape[2:])
    strides = node.attributes.integers("strides") or [1] * len(kernel)
    dilations = node.attributes.integers("dilations") or [1] * len(kernel)

    def rows_of(x: Tensor, chunk: int, limit: int) -> Tensor:
        pads = window_pads(node.attributes, x.shape[2:], kernel, strides, dilations)
        window = _Window(kernel, tuple(strides), tuple(dilations), tuple(pads), groups)
        return window.rows(x, chunk, limit)

    shape = weight.shape
    return LayerMatrix(
        node,
        1,
        groups,
        rows_of,
        partial(_written, groups),
        lambda w: w.reshape(groups, shape[0] // groups, -1),
        lambda m: m.reshape(shape),
    )


def _transposed(node: Node, weight: Tensor) -> LayerMatrix | None:
    """A transposed convolution is one with a turned kernel over its input with zeros in between."""
    groups, kernel = node.attributes.integer("group", 1), tuple(weight.shape[2:])
    strides = node.attributes.integers("strides") or [1] * len(kernel)
    dilations = node.attributes.integers("dilations") or [1] * len(kernel)
    extra = node.attributes.integers("output_padding") or [0] * len(kernel)
    turned = list(range(3, 3 + len(kernel)))
    inputs, outputs = weight.shape[0] // groups, weight.shape[1]

    def rows_of(x: Tensor, chunk: int, limit: int) -> Tensor:
        pads = transposed_pads(node.attributes, x.shape[2:], kernel, strides, dilations, extra)
        around = [
            (dilation * (size - 1) - before, dilation * (size - 1) - after + more)
            for size, dilation, (before, after), more in zip(kernel, dilations, pads, extra, strict=True)
        ]
        spread = _spread(x, strides)
        ones = (1,) * len(kernel)
        return _Window(kernel, ones, tuple(dilations), tuple(around), groups).rows(spread, chunk, limit)

    def to_matrix(w: Tensor) -> Tensor:
        parts = w.reshape(groups, inputs, outputs, *kernel).flip(turned)
        return parts.transpose(1, 2).reshape(groups, outputs, -1)

    def to_weight(m: Tensor) -> Tensor:
        parts = m.reshape(groups, outputs, inputs, *kernel).transpose(1, 2)
        return parts.flip(turned).reshape(groups * inputs, outputs, *kernel)

    return LayerMatrix(node, 1, groups, rows_of, partial(_written, groups), to_matrix, to_weight)


def _written(groups: int, y: Tensor, chunk: int, limit: int) -> Tensor:
    """Outputs of a window at the places its inputs are taken from."""
    flat = y.flatten(2)
    seen = flat.index_select(2, _places(flat.shape[2], limit, chunk, y.device))
    return seen.permute(1, 0, 2).reshape(groups, y.shape[1] // groups, -1)


def _spread(x: Tensor, strides: list[int]) -> Tensor:
    """x with stride - 1 zeros between its values along every spatial axis."""
    if all(stride == 1 for stride in strides):
        return x
    sizes = [(size - 1) * stride + 1 for size, stride in zip(x.shape[2:], strides, strict=True)]
    wide = x.new_zeros((*x.shape[:2], *sizes))
    wide[(slice(None), slice(None), *(slice(None, None, stride) for stride in strides))] = x
    return wide


def _gemm(node: Node, slot: int, weight: Tensor) -> LayerMatrix | None:
    names = ("transA", "transB")
    # As it lies, a second factor is [K, O] and a first one [O, K]; the data the other way round.
    is_turned = node.attributes.flag(names[slot]) != (slot == 0)
    is_data_turned = node.attributes.flag(names[1 - slot]) != (slot == 0)
    alpha = node.attributes.real("alpha", 1.0)
    if alpha == 0.0:
        return None

    def rows_of(x: Tensor, chunk: int, limit: int) -> Tensor:
        del chunk, limit
        return (x if is_data_turned else x.T)[None]

    def turn(w: Tensor) -> Tensor:
        return w if is_turned else w.transpose(-1, -2)

    def written_of(y: Tensor, chunk: int, limit: int) -> Tensor:
        del chunk, limit
        return (y.T if slot == 1 else y)[None] / alpha

    return LayerMatrix(node, slot, 1, rows_of, written_of, lambda w: turn(w)[None], lambda m: turn(m[0]))


def _product(node: Node, slot: int, weight: Tensor) -> LayerMatrix | None:
    stack = weight.shape[0] if weight.ndim == 3 else 1

    def rows_of(x: Tensor, chunk: int, limit: int) -> Tensor:
        # [..., R, K]; of a weight in front of the data [..., K, R].
        vectors = x if slot == 1 else x.transpose(-1, -2)
        if weight.ndim == 3:
            if vectors.ndim < 3 or vectors.shape[-3] not in (1, stack):
                raise ValueError(f"data {tuple(x.shape)} does not lie as a stack of {stack} matrices")
            vectors = vectors.expand(*vectors.shape[:-3], stack, *vectors.shape[-2:])
            vectors = vectors.reshape(-1, *vectors.shape[-3:]).transpose(0, 1)
            vectors = vectors.reshape(stack, -1, vectors.shape[-1])
        else:
            samples = vectors.shape[0] if vectors.ndim > 2 else 1
            lines = vectors.reshape(samples, -1, vectors.shape[-1])
            if vectors.ndim > 2:
                lines = lines[:, _places(lines.shape[1], limit, chunk, x.device)]
            vectors = lines.reshape(1, -1, vectors.shape[-1])
        return vectors.transpose(1, 2)

    def to_matrix(w: Tensor) -> Tensor:
        stacked = w.reshape(stack, *w.shape[-2:])
        return stacked.transpose(1, 2) if slot == 1 else stacked

    def to_weight(m: Tensor) -> Tensor:
        return (m.transpose(1, 2) if slot == 1 else m).reshape(weight.shape)

    # What is written lies as what is read does, its vectors being the outputs.
    return LayerMatrix(node, slot, stack, rows_of, rows_of, to_matrix, to_weight)


@dataclass(frozen=True, slots=True)
class _Window:
    """A sliding window over the spatial axes."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    groups: int

    def rows(self, x: Tensor, chunk: int, limit: int) -> Tensor:
        """What the window sees at some places: [G, K, samples * places], K as a weight lies."""
        x = _cropped(x, self.pads)
        x = pad_spatial(x, [(max(before, 0), max(after, 0)) for before, after in self.pads])
        counts = [
            (size - dilation * (width - 1) - 1) // stride + 1
            for size, width, dilation, stride in zip(
                x.shape[2:], self.kernel, self.dilations, self.strides, strict=True
            )
        ]
        places = _places(math.prod(counts), limit, chunk, x.device)
        start = torch.zeros_like(places)
        left = places
        steps = _line_steps(x.shape[2:])
        for axis in reversed(range(len(counts))):
            start = start + (left % counts[axis]) * self.strides[axis] * steps[axis]
            left = left // counts[axis]
        flat, count = x.flatten(2), len(places)
        offsets = torch.tensor(list(self._offsets(steps)), device=x.device)
        samples, channels = flat.shape[:2]
        # A gather reads channel by channel; an index_select place by place, ten times as long where many are.
        seen = flat.gather(2, (offsets[:, None] + start).reshape(-1).expand(samples, channels, -1))
        grouped = seen.reshape(samples, self.groups, channels // self.groups * len(offsets), count)
        return grouped.permute(1, 2, 0, 3).reshape(self.groups, grouped.shape[2], samples * count)

    def _offsets(self, steps: list[int]) -> Iterator[int]:
        for number in range(math.prod(self.kernel)):
            left, offset = number, 0
            for axis in reversed(range(len(self.kernel))):
                offset += left % self.kernel[axis] * self.dilations[axis] * steps[axis]
                left //= self.kernel[axis]
            yield offset


def _line_steps(sizes: torch.Size) -> list[int]:
    """Distance in memory between neighbours along each axis."""
    return [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]


def _cropped(x: Tensor, pads: tuple[tuple[int, int], ...]) -> Tensor:
    """x without what negative pads take away."""
    for axis, (before, after) in enumerate(pads, start=2):
        low, high = max(-before, 0), max(-after, 0)
        if low or high:
            x = x.narrow(axis, low, x.shape[axis] - low - high)
    return x


def _places(total: int, limit: int, chunk: int, device: torch.device) -> Tensor:
    """At most `limit` of so many places, evenly spread, others in every chunk; always the same."""
    if limit >= total:
        return torch.arange(total, device=device)
    shift = chunk * _GOLDEN % 1.0
    even = (torch.arange(limit, dtype=torch.float64, device=device) + shift) * (total / limit)
    return even.to(torch.int64).clamp_(max=total - 1)
