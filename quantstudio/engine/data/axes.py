"""Which axis of an input the samples lie on: not always the first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from quantstudio.core.errors import DataError
from quantstudio.core.layers import TensorInfo

_BATCH = re.compile(r"(n|b|bs|.*batch.*|n?_?samples?|num_?samples?)", re.IGNORECASE)


def is_batch_symbol(dimension: int | str | None) -> bool:
    """Whether a dimension is called what exporters call a batch: "batch", "batch_size", "N"."""
    return isinstance(dimension, str) and _BATCH.fullmatch(dimension) is not None


def batch_symbols(inputs: Iterable[TensorInfo]) -> frozenset[str]:
    """Symbols that stand for the number of samples: those called so, or else those that inputs start with."""
    inputs = tuple(inputs)
    called = {d for info in inputs for d in info.shape if isinstance(d, str) and is_batch_symbol(d)}
    first = {info.shape[0] for info in inputs if info.shape and isinstance(info.shape[0], str)}
    return frozenset(called or first)


def given_axis(name: str, rank: int, given: Mapping[str, int]) -> int | None:
    """The axis the user named for a tensor, counted from the front; None where he named none.

    Raises:
        DataError: the tensor has no such axis.
    """
    if name not in given:
        return None
    axis = given[name]
    if not -rank <= axis < rank:
        raise DataError(
            f"{name!r} has {rank} axes, so there is no axis {axis} for the samples",
            hint=f"Give one from 0 to {max(rank - 1, 0)}",
        )
    return axis % rank


def declared_axis(info: TensorInfo, symbols: Iterable[str]) -> int | None:
    """The axis whose symbol stands for the samples; None where none does."""
    known = set(symbols)
    return next((axis for axis, size in enumerate(info.shape) if size in known), None)


def input_axis(
    info: TensorInfo,
    stored: tuple[int, ...],
    lengths: Iterable[int],
    symbols: Iterable[str],
    given: Mapping[str, int],
) -> int:
    """The sample axis of an input: the user's, else the symbols', else what the data shows, else the first.

    Args:
        info: The input.
        stored: Shape of its array.
        lengths: First dimensions of the arrays of all other inputs.
        symbols: See `batch_symbols`.
        given: Axes the user named, by input.

    Raises:
        DataError: the user named an axis that is not there.
    """
    named = given_axis(info.name, len(info.shape), given)
    if named is not None:
        return named
    declared = declared_axis(info, symbols)
    if declared is not None:
        return declared
    if len(stored) == len(info.shape):
        # A fixed size that the data passes over, by as many as the other inputs have samples.
        other = [
            k for k, (n, d) in enumerate(zip(stored, info.shape, strict=True)) if n != d and d is not None
        ]
        if len(other) == 1 and isinstance(info.shape[other[0]], int) and stored[other[0]] in set(lengths):
            return other[0]
    return 0


def moved(info: TensorInfo, axis: int) -> TensorInfo:
    """The same input with the samples first."""
    rest = info.shape[:axis] + info.shape[axis + 1 :]
    return TensorInfo(info.name, info.dtype, (info.shape[axis], *rest))
