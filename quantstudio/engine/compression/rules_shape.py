"""Operators that move places about: reshapes, transposes, and what cuts, joins or repeats along an axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto

from quantstudio.engine.compression.flow import Edit, Flow, Shrink, Unprunable, rule
from quantstudio.engine.compression.labels import Axes, Axis, Labels
from quantstudio.engine.compression.reshaping import reshaped
from quantstudio.engine.graph.protos import (
    int_attribute,
    ints_attribute,
    remove_attribute,
    string_attribute,
)

# What of these comes to the same without a channel of zeros.
_SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """The same elements in the same order under other axes."""
    before = flow.of(node.input[0])
    if all(axis is None for axis in before):
        return [(None,) * len(flow.shape(node.output[0]))]
    axes = reshaped(flow, node, flow.shape(node.input[0]), flow.shape(node.output[0]))
    if node.op_type == "Reshape":
        target = flow.numbers(node.input[1])
        if target is None:
            raise Unprunable(f"the shape {node.name} gives is computed")
        flow.edit(node, _new_target(target, before, axes))
    return [axes]


def _new_target(target: Sequence[int], before: Axes, axes: Axes) -> Edit:
    def change(shrink: Shrink, node: NodeProto) -> None:
        wanted = list(target)
        for place, labels in enumerate(axes):
            if labels is None or wanted[place] == -1:
                continue
            # 0 copies the size of the operand's axis, which is shorter by itself where it is the same one.
            if wanted[place] != 0 or place >= len(before) or before[place] is not labels:
                wanted[place] = int(shrink.mask(labels).sum())
        if wanted != list(target):
            shrink.replace_constant(node, 1, np.array(wanted, dtype=np.int64))

    return change


@rule("Transpose")
def transpose(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Axes in another order."""
    axes = flow.of(node.input[0])
    order = ints_attribute(node, "perm") or list(range(len(axes)))[::-1]
    return [tuple(axes[axis] for axis in order)]


@rule("Concat")
def concat(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Places along one axis in a row; along the others all operands go together."""
    rank = len(flow.shape(node.input[0]))
    along = int_attribute(node, "axis", 0) % rank
    axes = [
        None if axis == along else flow.joined(node, [(name, axis) for name in node.input])
        for axis in range(rank)
    ]
    pieces = [flow.of(name)[along] for name in node.input]
    if any(piece is not None for piece in pieces):
        axes[along] = np.concatenate(
            [
                _kept(flow, flow.shape(name)[along], flow.fixed_reason(name)) if piece is None else piece
                for name, piece in zip(node.input, pieces, strict=True)
            ]
        )
    return [tuple(axes)]


def _kept(flow: Flow, count: int, reason: str) -> Labels:
    """Labels of places that stay."""
    found = flow.labels.fresh(count)
    flow.labels.keep(found, reason)
    return found


@rule("Split")
def split(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Runs of places along one axis."""
    axes = flow.of(node.input[0])
    along = int_attribute(node, "axis", 0) % len(axes)
    labels = axes[along]
    if labels is None:
        return [axes for _name in node.output]
    if len(node.input) > 1 and node.input[1] and flow.numbers(node.input[1]) is None:
        raise Unprunable(f"where {node.name} splits is computed")
    ends = np.cumsum([flow.shape(name)[along] for name in node.output])
    pieces = np.split(labels, ends[:-1])

    def change(shrink: Shrink, node: NodeProto) -> None:
        if not shrink.mask(labels).all():
            sizes = [int(shrink.mask(piece).sum()) for piece in pieces]
            remove_attribute(node, "num_outputs")
            shrink.replace_constant(node, 1, np.array(sizes, dtype=np.int64))

    flow.edit(node, change)
    return [(*axes[:along], piece, *axes[along + 1 :]) for piece in pieces]


@rule("Slice")
def slice_(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """A run of places along some axes."""
    axes = list(flow.of(node.input[0]))
    if all(axis is None for axis in axes):
        return [tuple(axes)]
    shape = flow.shape(node.input[0])
    starts, ends = flow.numbers(node.input[1]), flow.numbers(node.input[2])
    given = [flow.numbers(name) if name else None for name in node.input[3:5]]
    if starts is None or ends is None or any(flow.numbers(name) is None for name in node.input[3:5] if name):
        raise Unprunable(f"where {node.name} cuts is computed")
    places = given[0] if given and given[0] is not None else list(range(len(starts)))
    steps = given[1] if len(given) > 1 and given[1] is not None else [1] * len(starts)
    cut: list[tuple[int, Labels, int, int]] = []
    for number, place in enumerate(places):
        axis = place % len(axes)
        labels = axes[axis]
        run = range(shape[axis])[slice(starts[number], ends[number], steps[number])]
        if labels is None:
            continue
        if steps[number] != 1:
            flow.keep([labels], f"{node.name} picks places along it")
            axes[axis] = None
        elif len(run) < shape[axis]:
            cut.append((number, labels, run.start, run.stop))
            axes[axis] = labels[run.start : run.stop]
    flow.edit(node, _new_limits(starts, ends, cut))
    return [tuple(axes)]


def _new_limits(starts: list[int], ends: list[int], cut: list[tuple[int, Labels, int, int]]) -> Edit:
    def change(shrink: Shrink, node: NodeProto) -> None:
        first, last = list(starts), list(ends)
        for number, labels, start, stop in cut:
            mask = shrink.mask(labels)
            if not mask.all():
                first[number], last[number] = int(mask[:start].sum()), int(mask[:stop].sum())
        for slot, values, old in ((1, first, starts), (2, last, ends)):
            if values != old:
                shrink.replace_constant(node, slot, np.array(values, dtype=np.int64))

    return change


@rule("Pad")
def pad(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """New places at the ends of axes; along channels they stay."""
    axes = list(flow.of(node.input[0]))
    if all(axis is None for axis in axes):
        return [tuple(axes)]
    pads = flow.numbers(node.input[1])
    places = flow.numbers(node.input[3]) if len(node.input) > 3 and node.input[3] else list(range(len(axes)))
    if pads is None or places is None:
        raise Unprunable(f"how much {node.name} pads is computed")
    for number, place in enumerate(places):
        axis, before, after = place % len(axes), pads[number], pads[number + len(places)]
        labels = axes[axis]
        if labels is None or before == after == 0:
            continue
        if min(before, after) < 0 or string_attribute(node, "mode", "constant") != "constant":
            flow.keep([labels], f"{node.name} cuts or mirrors it")
            axes[axis] = None
        else:
            ends = [_kept(flow, count, f"{node.name} pads it") for count in (before, after)]
            axes[axis] = np.concatenate([ends[0], labels, ends[1]])
    return [tuple(axes)]


@rule("Expand")
def expand(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Axes of size one are repeated; those with channels keep theirs."""
    axes = flow.of(node.input[0])
    after = flow.shape(node.output[0])
    if all(axis is None for axis in axes):
        return [(None,) * len(after)]
    target = flow.numbers(node.input[1])
    if target is None:
        raise Unprunable(f"the shape {node.name} gives is computed")
    found = (*[None] * (len(after) - len(axes)), *axes)

    def change(shrink: Shrink, node: NodeProto) -> None:
        wanted = list(target)
        for place, labels in enumerate(found[len(after) - len(wanted) :]):
            # 1 leaves an axis as long as it is.
            if labels is not None and len(labels) > 1 and not shrink.mask(labels).all():
                wanted[place] = 1
        if wanted != target:
            shrink.replace_constant(node, 1, np.array(wanted, dtype=np.int64))

    flow.edit(node, change)
    before = flow.shape(node.input[0])
    return [
        tuple(
            labels
            if axis < len(after) - len(axes) or before[axis - len(after) + len(axes)] == after[axis]
            else None
            for axis, labels in enumerate(found)
        )
    ]


@rule("Tile")
def tile(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Axes again and again."""
    axes = flow.of(node.input[0])
    if all(axis is None for axis in axes):
        return [axes]
    repeats = flow.numbers(node.input[1])
    if repeats is None:
        raise Unprunable(f"how often {node.name} repeats is computed")
    return [tuple(None if a is None else np.tile(a, n) for a, n in zip(axes, repeats, strict=True))]


@rule("Resize", "Upsample")
def resize(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Other sizes in space; axes that keep their size keep their channels."""
    axes, before = list(flow.of(node.input[0])), flow.shape(node.input[0])
    after = flow.shape(node.output[0])
    for axis, labels in enumerate(axes):
        if before[axis] != after[axis]:
            flow.keep([labels], f"{node.name} resizes it")
            axes[axis] = None
    slot = 3
    if len(node.input) > slot and node.input[slot] and any(axis is not None for axis in axes):
        sizes = flow.numbers(node.input[slot])
        if sizes is None:
            raise Unprunable(f"the sizes {node.name} gives are computed")
        flow.edit(node, _new_sizes(sizes, ints_attribute(node, "axes"), tuple(axes), slot))
    return [tuple(axes)]


def _new_sizes(sizes: list[int], places: list[int] | None, axes: Axes, slot: int) -> Edit:
    def change(shrink: Shrink, node: NodeProto) -> None:
        wanted = list(sizes)
        for number, place in enumerate(places or range(len(sizes))):
            labels = axes[place % len(axes)]
            if labels is not None:
                wanted[number] = int(shrink.mask(labels).sum())
        if wanted != sizes:
            shrink.replace_constant(node, slot, np.array(wanted, dtype=np.int64))

    return change


@rule("DepthToSpace", "SpaceToDepth")
def blocks_of_space(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Channels become places in space, or the other way round: those of one place's block go together."""
    axes, area = flow.of(node.input[0]), int_attribute(node, "blocksize", 1) ** 2
    flow.keep((axes[0], *axes[2:]), f"{node.op_type} moves it")
    labels = axes[1]
    if labels is None:
        return [(None,) * len(axes)]
    if node.op_type == "SpaceToDepth":
        return [(None, np.tile(labels, area), None, None)]
    is_outer = string_attribute(node, "mode", "DCR") == "DCR"
    rows = labels.reshape(area, -1).T if is_outer else labels.reshape(-1, area)
    flow.labels.join_all(rows)
    return [(None, rows[:, 0].copy(), None, None)]


@rule(
    *_SUMS, "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp",
    "ArgMax", "ArgMin", "TopK", "LpNormalization",
)  # fmt: skip
def reduce(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Sums over channels are the same without one that is zero; other figures are not."""
    axes = list(flow.of(node.input[0]))
    places = _reduced(flow, node, len(axes))
    is_sum = node.op_type in _SUMS or (node.op_type == "LpNormalization")
    for axis in places:
        if is_sum:
            flow.ends(node, 0, axis)
        else:
            flow.keep([axes[axis]], f"{node.op_type} is taken over it")
            axes[axis] = None
    if node.op_type == "LpNormalization":
        return [tuple(axes)]
    if node.op_type == "TopK":
        return [tuple(axes)] * len(node.output)
    if int_attribute(node, "keepdims", 1):
        left: list[Axis] = [None if axis in places else labels for axis, labels in enumerate(axes)]
    else:
        left = [labels for axis, labels in enumerate(axes) if axis not in places]
    return [tuple(left)]


def _reduced(flow: Flow, node: NodeProto, rank: int) -> set[int]:
    match node.op_type:
        case "ArgMax" | "ArgMin":
            return {int_attribute(node, "axis", 0) % rank}
        case "TopK" | "LpNormalization":
            return {int_attribute(node, "axis", -1) % rank}
    found = ints_attribute(node, "axes")
    if found is None and len(node.input) > 1 and node.input[1]:
        found = flow.numbers(node.input[1])
        if found is None:
            raise Unprunable(f"what {node.name} reduces is computed")
    if not found:
        return set() if int_attribute(node, "noop_with_empty_axes", 0) else set(range(rank))
    return {axis % rank for axis in found}


@rule("Shape")
def shape(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """A size that is read must not change, unless all who read pick others."""
    axes = flow.of(node.input[0])
    first = int_attribute(node, "start", 0)
    run = range(len(axes))[slice(first, int_attribute(node, "end", len(axes)))]
    for place, axis in enumerate(run):
        if axes[axis] is not None and not _is_unread(flow, node, place, len(run)):
            flow.keep([axes[axis]], f"{node.name} reads its size")
    return [(None,)]


def _is_unread(flow: Flow, node: NodeProto, place: int, count: int) -> bool:
    if node.output[0] in flow.view.outputs:
        return False
    for reader in flow.view.consumers[node.output[0]]:
        picks = flow.numbers(reader.input[1]) if reader.op_type == "Gather" else None
        if picks is None or place in {pick % count for pick in picks}:
            return False
    return True


@rule("ConstantOfShape", "Range", "EyeLike", "RandomNormal", "RandomUniform", "OneHot")
def new_tensor(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Made of sizes and numbers: there are no channels in it."""
    for name in node.input:
        flow.keep(flow.of(name), f"{node.name} reads it")
    return [(None,) * len(flow.shape(node.output[0]))]
