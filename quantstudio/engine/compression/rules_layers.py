"""Layers: convolutions, products, embeddings, normalizations."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from onnx import NodeProto

from quantstudio.engine.compression.flow import Edit, Flow, Shrink, Unprunable, rule
from quantstudio.engine.compression.labels import Axes, Axis, Labels
from quantstudio.engine.compression.rules_elementwise import broadcast
from quantstudio.engine.graph.protos import int_attribute, set_attribute, string_attribute

# From as many groups on, whole groups of a convolution are taken; of fewer, the same places of each.
_MANY_GROUPS = 8


@rule("Conv", "ConvTranspose")
def convolution(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Output channels begin here; those of groups stand or fall with the inputs of the group."""
    weight = node.input[1]
    _needs_constants(flow, node, node.input[1:3])
    source = flow.of(node.input[0])
    flow.keep((source[0], *source[2:]), f"{node.op_type} slides over it")
    is_transposed = node.op_type == "ConvTranspose"
    groups = int_attribute(node, "group", 1)
    if groups == 1:
        flow.ends(node, 0, 1)
        reads, makes = (0, 1) if is_transposed else (1, 0)
        inputs = _read(flow, node, source[1], weight, reads)
        outputs: Axis = flow.claim(node, weight, makes, makes=True)
    elif is_transposed:
        inputs, outputs = _grouped_transpose(flow, node, source[1], groups)
    else:
        inputs, outputs = _grouped(flow, node, source[1], groups)
    if len(node.input) > 2 and node.input[2] and outputs is not None:
        flow.labels.join(outputs, flow.claim(node, node.input[2], 0))
    sizes = flow.shape(weight)
    places = flow.shape(node.input[0] if is_transposed else node.output[0])
    kernel = prod(sizes[2:]) * places[0] * prod(places[2:])
    first, second = (inputs, outputs) if is_transposed else (outputs, inputs)
    flow.count(
        node, kernel, (first, sizes[0]), (second if groups == 1 or not is_transposed else None, sizes[1])
    )
    return [(None, outputs, *[None] * (len(source) - 2))]


def _read(flow: Flow, node: NodeProto, source: Axis, weight: str, axis: int) -> Axis:
    """The axis of a weight that a tensor is summed over; left alone where nothing can be taken from it."""
    if source is None:
        return None
    flow.labels.join(source, flow.claim(node, weight, axis))
    return source


def _grouped(flow: Flow, node: NodeProto, source: Axis, groups: int) -> tuple[Axis, Axis]:
    """Labels of the weight's second axis, and of the outputs."""
    made = flow.claim(node, node.input[1], 0, makes=True)
    if source is None:
        flow.keep([made], f"its groups read {flow.fixed_reason(node.input[0])}")
        return None, made
    inputs, outputs = source.reshape(groups, -1), made.reshape(groups, -1)
    if inputs.shape[1] > 1 and groups < _MANY_GROUPS:
        flow.labels.join_all(inputs.T)
        flow.labels.join_all(outputs.T)
        own = flow.claim(node, node.input[1], 1, is_inner=True)
        flow.ends(node, 0, 1)
        flow.labels.join(own, inputs[0])
        return own, made
    _join_groups(flow, node, inputs, outputs)
    return None, made


def _grouped_transpose(flow: Flow, node: NodeProto, source: Axis, groups: int) -> tuple[Axis, Axis]:
    """Labels of the weight's first axis, and of the outputs."""
    if source is None:
        return None, None
    own = flow.claim(node, node.input[1], 0)
    flow.labels.join(source, own)
    inputs = source.reshape(groups, -1)
    outputs = inputs[:, :1].repeat(flow.shape(node.input[1])[1], axis=1)
    _join_groups(flow, node, inputs, outputs)
    return own, outputs.reshape(-1)


def _join_groups(flow: Flow, node: NodeProto, inputs: Labels, outputs: Labels) -> None:
    flow.labels.join_all(inputs)
    flow.labels.join_all(outputs)
    flow.labels.join(inputs[:, 0], outputs[:, 0])
    flow.edit(node, _count_attribute("group", inputs[:, 0].copy()))


def _count_attribute(name: str, labels: Labels) -> Edit:
    def change(shrink: Shrink, node: NodeProto) -> None:
        set_attribute(node, name, int(shrink.mask(labels).sum()))

    return change


def _needs_constants(flow: Flow, node: NodeProto, names: Sequence[str]) -> None:
    if any(name and not flow.is_constant(name) for name in names):
        raise Unprunable(f"weights of {node.name} are computed")


@rule("MatMul")
def matmul(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Rows of the one and columns of the other go on; the index they share is summed."""
    first, second = node.input[:2]
    if min(len(flow.shape(first)), len(flow.shape(second))) < 2:
        raise Unprunable(f"{node.name} multiplies by a vector")
    summed = _summed(flow, node, [(first, -1), (second, -2)])
    batch = broadcast(flow, node, (first, second), leave=2)
    rows, columns = flow.joined(node, [(first, -2)]), flow.joined(node, [(second, -1)])
    axes = (*batch, rows, columns)
    sizes = flow.shape(node.output[0])
    flow.count(node, 1, *zip(axes, sizes, strict=True), (summed, flow.shape(first)[-1]))
    return [axes]


def _summed(flow: Flow, node: NodeProto, places: Sequence[tuple[str, int]]) -> Axis:
    """An index that is summed over; one of constants alone is no channel."""
    if all(flow.is_constant(name) for name, _axis in places):
        return None
    for name, axis in places:
        if not flow.is_constant(name):
            flow.ends(node, list(node.input).index(name), axis)
    return flow.joined(node, places)


@rule("Gemm")
def gemm(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """A product of two matrices, transposed or not, and a bias."""
    first, second = node.input[:2]
    across, along = int_attribute(node, "transA", 0), int_attribute(node, "transB", 0)
    summed = _summed(flow, node, [(first, 0 if across else 1), (second, 1 if along else 0)])
    rows = flow.joined(node, [(first, 1 if across else 0)])
    columns = flow.joined(node, [(second, 0 if along else 1)])
    if len(node.input) > 2 and node.input[2]:
        rows, columns = _with_bias(flow, node, rows, columns)
    sizes = flow.shape(node.output[0])
    inner = flow.shape(first)[0 if across else 1]
    flow.count(node, 1, (rows, sizes[0]), (columns, sizes[1]), (summed, inner))
    return [(rows, columns)]


def _with_bias(flow: Flow, node: NodeProto, rows: Axis, columns: Axis) -> tuple[Axis, Axis]:
    bias = node.input[2]
    shape = flow.shape(bias)
    if not flow.is_constant(bias) and any(size > 1 for size in shape):
        flow.keep([rows, columns, *flow.of(bias)], f"a computed bias of {node.name} is added to it")
        return None, None
    for axis, labels in ((len(shape) - 2, rows), (len(shape) - 1, columns)):
        if axis >= 0 and shape[axis] > 1 and labels is not None:
            flow.labels.join(labels, flow.claim(node, bias, axis))
    return rows, columns


@rule("Einsum")
def einsum(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """A letter is an index: all operands that have it share its channels."""
    equation = string_attribute(node, "equation", "").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    operands = terms.split(",")
    if not arrow or "." in equation or any(len(set(term)) != len(term) for term in operands):
        raise Unprunable(f"the equation {equation!r} of {node.name} leaves axes open")
    places: dict[str, list[tuple[str, int]]] = {}
    for name, term in zip(node.input, operands, strict=True):
        for axis, letter in enumerate(term):
            places.setdefault(letter, []).append((name, axis))
    labels: dict[str, Axis] = {}
    for letter, found in places.items():
        labels[letter] = flow.joined(node, found) if letter in result else _summed(flow, node, found)
    sizes = {letter: flow.shape(found[0][0])[found[0][1]] for letter, found in places.items()}
    flow.count(node, 1, *((labels[letter], sizes[letter]) for letter in places))
    return [tuple(labels[letter] for letter in result)]


@rule("Gather")
def gather(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Rows of a table, whose columns are channels; or places of an axis, which go with what is there."""
    table, picks = node.input[:2]
    rank = len(flow.shape(table))
    axis = int_attribute(node, "axis", 0) % rank
    indices = flow.of(picks)
    flow.keep(indices, f"{node.name} looks up by it")
    own = [flow.joined(node, [(table, place)]) if place != axis else None for place in range(rank)]
    flow.keep([flow.of(table)[axis]], f"{node.name} picks places along it")
    return [(*own[:axis], *[None] * len(indices), *own[axis + 1 :])]


@rule("BatchNormalization", "InstanceNormalization")
def per_channel(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Every channel is normalized by itself."""
    source = flow.of(node.input[0])
    _needs_constants(flow, node, node.input[1:])
    channels = flow.joined(node, [(node.input[0], 1), *((name, 0) for name in node.input[1:])])
    if node.op_type == "InstanceNormalization":
        flow.keep(source[2:], "its mean is taken over it")
        source = (*source[:2], *[None] * (len(source) - 2))
    _count_elements(flow, node, axes := (source[0], channels, *source[2:]))
    return [axes, *[()] * (len(node.output) - 1)]


@rule("GroupNormalization")
def group_normalization(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Whole groups can go, no part of one: its mean is taken over all its channels."""
    source = flow.of(node.input[0])
    _needs_constants(flow, node, node.input[1:])
    flow.keep(source[2:], "its mean is taken over it")
    channels, groups = source[1], int_attribute(node, "num_groups", 1)
    if channels is not None:
        rows = channels.reshape(groups, -1)
        flow.labels.join_all(rows)
        for name in node.input[1:3]:
            own = flow.claim(node, name, 0)
            flow.labels.join(own, channels if len(own) == len(channels) else rows[:, 0])
        flow.edit(node, _count_attribute("num_groups", rows[:, 0].copy()))
    _count_elements(flow, node, axes := (source[0], channels, *[None] * (len(source) - 2)))
    return [axes]


@rule(
    "LayerNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "com.microsoft.SimplifiedLayerNormalization",
)
def layer_normalization(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """The mean over an axis changes with what is in it, so that all of it stays."""
    source = flow.of(node.input[0])
    axis = int_attribute(node, "axis", -1) % len(source)
    flow.keep(source[axis:], "a normalization takes its mean over it")
    _count_elements(flow, node, axes := (*source[:axis], *[None] * (len(source) - axis)))
    return [axes for _name in node.output]


def _count_elements(flow: Flow, node: NodeProto, axes: Axes) -> None:
    flow.count(node, 1, *zip(axes, flow.shape(node.output[0]), strict=True))
