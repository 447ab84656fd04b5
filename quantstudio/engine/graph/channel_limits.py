"""Upper limits per channel that equalization leaves behind, and how static quantization goes without them.

ReLU6 behind scaled channels is Relu and a Min with one limit per channel. No integer kernel takes that: the
pair of conversions around a float Min made the reference depthwise network take 1.8 times as long. The
integers of a tensor end where their range ends anyway, so static layers do without the Min. Values between a
channel's limit and the end of the tensor's range then pass; at 4 bits that was worth 0.1 points of accuracy,
either way (`fmnist_mobilenet`, one scale per weight: 90.6 % with the limits, 90.7 % without).
"""

from __future__ import annotations

from collections.abc import Collection

import onnx

from quantstudio.engine.graph.view import GraphView

_KEY = "quantstudio.limit"
_VALUE = "per-channel"


def mark_limit(node: onnx.NodeProto) -> None:
    """Say of a Min that it limits channels, and that integers may go without it."""
    node.metadata_props.add(key=_KEY, value=_VALUE)


def is_limit(node: onnx.NodeProto) -> bool:
    """Whether `mark_limit` was said of a node."""
    return node.op_type == "Min" and any(
        entry.key == _KEY and entry.value == _VALUE for entry in node.metadata_props
    )


def without_limits(
    view: GraphView, static: Collection[str], between: Collection[str]
) -> tuple[GraphView, tuple[str, ...]]:
    """The view without the limits that lie between integers, and the layers whose channels they limited.

    Args:
        view: Main graph.
        static: Names of the layers with a static scheme.
        between: Operators that may run on integers between such layers.
    """
    dropped: dict[str, onnx.NodeProto] = {}
    layers: list[str] = []
    for node in view.nodes:
        if not is_limit(node):
            continue
        relu = view.producer.get(node.input[0])
        layer = view.producer.get(relu.input[0]) if relu is not None and relu.op_type == "Relu" else None
        readers = view.consumers[node.output[0]]
        is_inside = layer is not None and layer.name in static and readers
        if relu is None or layer is None or not is_inside or node.output[0] in view.outputs:
            continue
        if all(reader.name in static or reader.op_type in between for reader in readers):
            dropped[node.name] = node
            dropped[relu.name] = onnx.helper.make_node(
                "Relu", [relu.input[0]], [node.output[0]], name=relu.name
            )
            layers.append(layer.name)
    if not dropped:
        return view, ()
    nodes = [
        dropped.get(node.name, node) for node in view.nodes if not is_limit(node) or node.name not in dropped
    ]
    return GraphView(view.model, nodes), tuple(layers)
