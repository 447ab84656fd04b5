"""Where the places of axes go when a tensor is laid out anew."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from onnx import NodeProto

from quantstudio.engine.compression.flow import Flow, Unprunable
from quantstudio.engine.compression.labels import Axes, Axis, Labels

Block = tuple[list[int], list[int]]


def blocks(before: Sequence[int], after: Sequence[int]) -> list[Block]:
    """Runs of axes that hold the same elements before and after, as short as they can be.

    Axes of size one are left out: nothing can be taken from them.
    """
    found: list[Block] = []
    source = [axis for axis, size in enumerate(before) if size != 1]
    target = [axis for axis, size in enumerate(after) if size != 1]
    while source or target:
        if not (source and target):
            raise Unprunable(f"{list(before)} does not fit {list(after)}")
        first, second = [source.pop(0)], [target.pop(0)]
        while (a := prod(before[i] for i in first)) != (b := prod(after[i] for i in second)):
            short, left = (first, source) if a < b else (second, target)
            if not left:
                raise Unprunable(f"{list(before)} does not fit {list(after)}")
            short.append(left.pop(0))
        found.append((first, second))
    return found


def reshaped(flow: Flow, node: NodeProto, before: Sequence[int], after: Sequence[int]) -> Axes:
    """Labels of a tensor's axes after it was laid out anew.

    Where an axis is split, its places go with those of one factor: the outermost that anything can be taken
    from, so that it is whole heads and whole groups that go.
    """
    axes = flow.of(node.input[0])
    found: list[Axis] = [None] * len(after)
    for source, target in blocks(before, after):
        live = [axis for axis in source if axes[axis] is not None]
        for axis in live[1:]:
            flow.keep([axes[axis]], f"{node.name} lays two axes of channels into one")
        if not live:
            continue
        labels = axes[live[0]]
        if labels is not None:
            place = source.index(live[0])
            _lay(flow, node, labels, [before[i] for i in source], place, target, after, found)
    return tuple(found)


def _lay(
    flow: Flow,
    node: NodeProto,
    labels: Labels,
    sizes: Sequence[int],
    place: int,
    target: Sequence[int],
    after: Sequence[int],
    found: list[Axis],
) -> None:
    """Give the labels of one axis of a block to one axis it becomes."""
    if len(sizes) == len(target) == 1:
        found[target[0]] = labels
        return
    around = [size if axis == place else 1 for axis, size in enumerate(sizes)]
    whole = np.broadcast_to(labels.reshape(around), sizes).reshape([after[axis] for axis in target])
    rows = [np.moveaxis(whole, axis, 0).reshape(after[target[axis]], -1) for axis in range(len(target))]
    fitting = [axis for axis, own in enumerate(rows) if _is_same(flow, own)]
    if fitting:
        chosen = fitting[0]
    else:
        chosen = min(flow.choices.get(node.name, 0), len(target) - 1)
        # All elements at one place go together: each once.
        flow.labels.join_all(_distinct(rows[chosen]))
        flow.split[node.name] = (len(target), rows[chosen][:, 0])
    found[target[chosen]] = rows[chosen][:, 0].copy()


def _is_same(flow: Flow, rows: Labels) -> bool:
    roots = flow.labels.roots(rows)
    return bool((roots == roots[:, :1]).all())


def _distinct(rows: Labels) -> Labels:
    """The labels of each row without those that every row repeats at the same places."""
    _columns, first = np.unique(rows, axis=1, return_index=True)
    return rows[:, np.sort(first)]
