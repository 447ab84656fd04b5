"""Changes of one layer in a graph about to run: other weights, rounded activations, and back again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from quantstudio.core.affine import IntegerGrid, affine_qparams
from quantstudio.core.errors import MeasureError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.layers import LayerInfo
from quantstudio.engine.graph.cut import Edit
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import all_graphs


def weight_edit(layer: LayerInfo, weight: NDArray[np.float32]) -> Edit:
    """The layer with its weights replaced; other layers that share them keep theirs."""
    return partial(_give_own_weight, layer, weight)


def activation_edit(layer: LayerInfo, ranges: Mapping[str, tuple[float, float]], grid: IntegerGrid) -> Edit:
    """The layer reading rounded activations.

    Written in plain float operators, so that no optimizer can turn them into something else.
    """
    return partial(_put_fake_quantizers, layer, ranges, grid)


def both_edits(first: Edit, second: Edit) -> Edit:
    """One edit after the other."""

    def both(part: onnx.GraphProto) -> None:
        first(part)
        second(part)

    return both


def restoring_edit(graph: Graph, layer: LayerInfo) -> Edit:
    """The layer as it is in a graph, inside a copy where it was changed by the other edits."""
    original, position = _find(graph.proto.graph, layer)
    return partial(_read_again, layer, tuple(original.node[position].input))


def edited(graph: Graph, edits: Iterable[Edit]) -> Graph:
    """A copy of a graph with edits of several layers."""
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    for edit in edits:
        edit(proto.graph)
    return Graph(proto, graph.summary)


def first_node(graph: Graph, layer: LayerInfo) -> str:
    """Name of the first node an edit put in front of a layer, or of the layer itself."""
    part, _ = _find(graph.proto.graph, layer)
    prefix = f"{layer.name}::"
    return next((node.name for node in part.node if node.name.startswith(prefix)), layer.name)


def _read_again(layer: LayerInfo, operands: Sequence[str], part: onnx.GraphProto) -> None:
    graph, position = _find(part, layer)
    del graph.node[position].input[:]
    graph.node[position].input.extend(operands)


def _give_own_weight(layer: LayerInfo, weight: NDArray[np.float32], part: onnx.GraphProto) -> None:
    graph, position = _find(part, layer)
    # Layers that share a weight may all be changed, each with a copy of its own.
    name = f"{layer.name}::{layer.weight_name}"
    graph.initializer.append(numpy_helper.from_array(weight, name))
    node = graph.node[position]
    for i, operand in enumerate(node.input):
        if operand == layer.weight_name:
            node.input[i] = name


def _put_fake_quantizers(
    layer: LayerInfo, ranges: Mapping[str, tuple[float, float]], grid: IntegerGrid, part: onnx.GraphProto
) -> None:
    """In front of the layer: clip(round(x / s), lo - z, hi - z) * s."""
    graph, position = _find(part, layer)
    node = graph.node[position]
    made: list[onnx.NodeProto] = []
    for i, name in enumerate(node.input):
        if name not in ranges or name not in layer.inputs:
            continue
        scale, zero_point = affine_qparams(*ranges[name], grid)
        tag = f"{layer.name}::{i}"
        constants: dict[str, float] = {
            "scale": float(scale),
            "low": float(grid.low - zero_point),
            "high": float(grid.high - zero_point),
        }
        for key, value in constants.items():
            graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"{tag}::{key}"))
        made += [
            helper.make_node("Div", [name, f"{tag}::scale"], [f"{tag}::a"], name=f"{tag}::div"),
            helper.make_node("Round", [f"{tag}::a"], [f"{tag}::b"], name=f"{tag}::round"),
            helper.make_node(
                "Clip", [f"{tag}::b", f"{tag}::low", f"{tag}::high"], [f"{tag}::c"], name=f"{tag}::clip"
            ),
            helper.make_node("Mul", [f"{tag}::c", f"{tag}::scale"], [f"{tag}::d"], name=f"{tag}::mul"),
        ]
        node.input[i] = f"{tag}::d"
    for offset, extra in enumerate(made):
        graph.node.insert(position + offset, extra)


def _find(part: onnx.GraphProto, layer: LayerInfo) -> tuple[onnx.GraphProto, int]:
    """The graph or body that holds the layer's node, and the node's position there."""
    for _, graph in all_graphs(part):
        for i, node in enumerate(graph.node):
            if node.name == layer.name:
                return graph, i
    raise MeasureError(
        "the layer is not in the graph",
        where=layer.name,
        hint=Hint("Open the model again", HintAction.OPEN_MODEL_AGAIN),
    )
