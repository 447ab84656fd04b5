"""Channels followed through a whole graph: every node by its rule, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from onnx import ModelProto, NodeProto

from quantstudio.engine.compression import (  # noqa: F401  each import registers its rules
    rules_elementwise,
    rules_layers,
    rules_recurrent,
    rules_shape,
)
from quantstudio.engine.compression.flow import LONE, RULES, Flow, Unprunable
from quantstudio.engine.compression.labels import Axes, Axis
from quantstudio.engine.graph.protos import reads
from quantstudio.engine.graph.shapes import infer, skeleton, value_types
from quantstudio.engine.graph.view import GraphView

# Sizes put for symbols: primes no layer has for a width, so that a product of axes is told from another.
_IMAGE, _IMAGE_AXIS = 32, 2
_PRIMES = (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)


def walk(
    view: GraphView, shapes: Mapping[str, tuple[int, ...]], samples: int, choices: Mapping[str, int]
) -> Flow:
    """The channels of a graph, every node by its rule.

    Args:
        view: A normalised graph.
        shapes: Shape of every tensor (see `bound_shapes`).
        samples: Size of the sample axis in them.
        choices: Which factor of an axis that a node splits is taken away from, by node.
    """
    flow = Flow(view, shapes, samples, choices)
    for name in view.inputs:
        flow.why[name] = "an input of the network"
    for node in view.nodes:
        flow.begin()
        for name, axes in zip(node.output, _results(flow, node), strict=False):
            if name and (axes or not flow.shapes.get(name, (0,))):
                flow.axes[name] = tuple(_lone_kept(flow, axis) for axis in axes)
        flow.finish(node, reads(node))
    for name in view.outputs:
        flow.keep(flow.axes.get(name, ()), "an output of the network")
    return flow


def _lone_kept(flow: Flow, axis: Axis) -> Axis:
    """An axis of one place keeps it."""
    if axis is None or len(axis) > 1:
        return axis
    flow.labels.keep(axis, LONE)
    return None


def _results(flow: Flow, node: NodeProto) -> list[Axes]:
    operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    known = RULES.get(operator)
    reason = f"what {operator} does to channels is not known"
    if known is not None:
        try:
            found = list(known(flow, node))
            if _fits(flow, node, found):
                if all(axis is None for axes in found for axis in axes):
                    _say_why(flow, node)
                return found
            reason = f"{node.name} gives another shape than is stated"
        except Unprunable as error:
            reason = str(error)
        except (ValueError, IndexError, KeyError, ZeroDivisionError):  # a form that no rule was written for
            reason = f"{node.name} is written in a way that is not known"
    flow.give_up(node, reason)
    return [(None,) * len(flow.shapes.get(name, ())) for name in node.output]


def _fits(flow: Flow, node: NodeProto, found: Sequence[Axes]) -> bool:
    """Whether there are as many labels along each axis as there are places."""
    for name, axes in zip(node.output, found, strict=False):
        shape = flow.shapes.get(name)
        if not name or shape is None or all(axis is None for axis in axes):
            continue
        if len(axes) != len(shape):
            return False
        if any(axis is not None and len(axis) != size for axis, size in zip(axes, shape, strict=True)):
            return False
    return True


def _say_why(flow: Flow, node: NodeProto) -> None:
    """What comes of tensors that keep all their channels keeps them for the same reason."""
    for name in node.input:
        if name in flow.why:
            for output in node.output:
                flow.why[output] = flow.why[name]
            return


def bound_shapes(model: ModelProto, sizes: Mapping[str, int]) -> tuple[dict[str, tuple[int, ...]], int]:
    """Every shape that inference can tell, in numbers, and the size of the sample axis in them.

    Args:
        model: A normalised model.
        sizes: Size by symbol; others get sizes of their own.
    """
    bare = skeleton(model)
    primes = iter(_PRIMES)
    later = count(53, 2)
    found = dict(sizes)
    samples = 1
    for value in bare.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                symbol = dim.dim_param or f"{value.name}@{axis}"
                if symbol not in found:
                    size = next(primes, 0) or next(later)
                    # Images are halved again and again, and joined with what they were before.
                    found[symbol] = size * _IMAGE if axis >= _IMAGE_AXIS else size
                dim.dim_value = found[symbol]
    first = next(
        (v.type.tensor_type.shape.dim for v in bare.graph.input if v.type.tensor_type.shape.dim), None
    )
    if first is not None and len(first):
        samples = first[0].dim_value
    for value in bare.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return {
        name: tuple(dim for dim in shape if isinstance(dim, int))
        for name, (_kind, shape) in value_types(infer(bare)).items()
        if shape is not None and all(isinstance(dim, int) for dim in shape)
    }, samples
