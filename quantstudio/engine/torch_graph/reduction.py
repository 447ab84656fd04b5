"""Reductions, positions of extremes, running sums."""

from __future__ import annotations

from collections.abc import Callable

import torch

from quantstudio.engine.torch_graph.registry import Attributes, Result, operator, optional_integers

Tensor = torch.Tensor
Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceProd": _product,
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt(),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
}


def _register(name: str, reduce: Reduction) -> None:
    @operator(name)
    def kernel(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = optional_integers(attributes, "axes", axes)
        if not chosen:
            if attributes.flag("noop_with_empty_axes"):
                return x
            chosen = list(range(x.ndim))
        if x.ndim == 0:
            return reduce(x.reshape(1), [0], False)
        return reduce(x, chosen, attributes.flag("keepdims", True))


for _name, _reduce in _REDUCTIONS.items():
    _register(_name, _reduce)


def _extreme_position(attributes: Attributes, x: Tensor, largest: bool) -> Tensor:
    axis, keep = attributes.integer("axis", 0), attributes.flag("keepdims", True)
    find = torch.argmax if largest else torch.argmin
    if attributes.flag("select_last_index"):
        return x.shape[axis] - 1 - find(x.flip(axis), axis, keepdim=keep)
    return find(x, axis, keepdim=keep)


@operator("ArgMax")
def arg_max(attributes: Attributes, x: Tensor) -> Tensor:
    """Position of the largest element along the axis."""
    return _extreme_position(attributes, x, largest=True)


@operator("ArgMin")
def arg_min(attributes: Attributes, x: Tensor) -> Tensor:
    """Position of the smallest element along the axis."""
    return _extreme_position(attributes, x, largest=False)


@operator("TopK")
def top_k(attributes: Attributes, x: Tensor, count: Tensor) -> Result:
    """The `count` largest (or smallest) elements along the axis, with their positions."""
    values, positions = torch.topk(
        x,
        int(count.item()),
        attributes.integer("axis", -1),
        attributes.flag("largest", True),
        attributes.flag("sorted", True),
    )
    return values, positions


@operator("CumSum")
def cumulative_sum(attributes: Attributes, x: Tensor, axis: Tensor) -> Tensor:
    """Running sum along the axis."""
    dim = int(axis.item())
    if attributes.flag("reverse"):
        x = x.flip(dim)
    y = x.cumsum(dim, dtype=x.dtype)
    if attributes.flag("exclusive"):
        y = y - x
    return y.flip(dim) if attributes.flag("reverse") else y
