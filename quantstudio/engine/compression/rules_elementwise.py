"""Operators that leave every place of a tensor by itself, with broadcasting, and pooling."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto

from quantstudio.engine.compression.flow import Flow, rule
from quantstudio.engine.compression.labels import Axes, Axis
from quantstudio.engine.graph.protos import int_attribute

_ELEMENTWISE = (
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Div",
    "Dropout",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pow",
    "PRelu",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Sum",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Where",
    "Xor",
    "com.microsoft.Gelu",
    "com.microsoft.BiasGelu",
    "com.microsoft.FastGelu",
    "com.microsoft.QuickGelu",
)
_POOLS = ["MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"]


@rule(*_ELEMENTWISE)
def elementwise(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Each place of the result comes of the same place of the operands."""
    axes = broadcast(flow, node, [name for name in node.input if name])
    return [axes for _name in node.output]


def broadcast(flow: Flow, node: NodeProto, names: Sequence[str], *, leave: int = 0) -> Axes:
    """Labels of what operands broadcast to, their last `leave` axes left out."""
    shapes = {name: flow.shape(name)[: len(flow.shape(name)) - leave] for name in names}
    rank = max((len(shape) for shape in shapes.values()), default=0)
    found: list[Axis] = []
    for axis in range(rank):
        places = []
        for name in names:
            own = axis - rank + len(shapes[name])
            if own >= 0 and shapes[name][own] != 1:
                places.append((name, own))
        # A constant that is stretched over an axis of size one makes no channel that anybody would miss.
        is_alive = any(not flow.is_constant(name) for name, _own in places)
        found.append(flow.joined(node, places) if is_alive else None)
    return tuple(found)


@rule(*_POOLS)
def pool(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Channels stay apart; what slides over the other axes needs all of them."""
    axes = flow.of(node.input[0])
    flow.keep(axes[2:], f"{node.op_type} slides over it")
    left = (*axes[:2], *[None] * (len(axes) - 2))
    return [left for _name in node.output]


@rule("CumSum", "Trilu", "LRN", "Softmax", "LogSoftmax", "Hardmax", "MeanVarianceNormalization")
def mixed_along(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Along some axes every place depends on the others, so that all of them stay."""
    axes = list(flow.of(node.input[0]))
    for axis in _mixing_axes(flow, node, len(axes)):
        flow.keep([axes[axis]], f"{node.op_type} mixes the places along it")
        axes[axis] = None
    return [tuple(axes)]


def _mixing_axes(flow: Flow, node: NodeProto, rank: int) -> list[int]:
    match node.op_type:
        case "CumSum":
            found = flow.numbers(node.input[1])
            return [axis % rank for axis in found] if found is not None else list(range(rank))
        case "Trilu":
            return [rank - 2, rank - 1]
        case "LRN":
            return [1]
        case "MeanVarianceNormalization":
            return list(range(rank))
        case _:
            return [int_attribute(node, "axis", -1) % rank]
