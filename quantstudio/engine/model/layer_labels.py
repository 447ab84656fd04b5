"""What people call a layer: the path of its module, where the exporter kept it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from onnx import NodeProto

from quantstudio.core.layer_parts import part_name, whole_name
from quantstudio.core.layers import LayerInfo

# "layers.0.attn.q.bias", "stem.weight_bias" of a folded normalisation, "lstm.weight_ih_l0".
_PARAMETER = re.compile(r"(?P<path>[\w\-]+(?:\.[\w\-]+)*)\.(?:weight|bias|kernel|in_proj_)\w*")


def module_path(node: NodeProto, parameters: Sequence[str], *, has_weight: bool) -> str:
    """Path of the module a node was exported from; empty where the file tells none.

    Args:
        node: The layer's node.
        parameters: Names of its weight and biases, the weight first.
        has_weight: Whether it owns a weight; a product of activations is named after its operator, too.
    """
    for name in parameters:
        found = _PARAMETER.fullmatch(whole_name(name))
        if found is not None:
            return found["path"] if whole_name(name) == name else part_name(found["path"])
    return _path_in(node, has_weight=has_weight)


def _path_in(node: NodeProto, *, has_weight: bool) -> str:
    """The path in names such as "/layer2/short/short.0/Conv"."""
    if not node.name.startswith("/"):
        return ""
    *modules, operator = node.name.strip("/").split("/")
    path: list[str] = []
    for module in modules:
        if path and module.startswith(f"{path[-1]}."):
            path.pop()  # a module in a list repeats the list's name
        path.append(module)
    if not has_weight or not re.fullmatch(rf"{node.op_type}(_\d+)?", operator):
        path.append(operator)
    return ".".join(path)


def labelled(layers: Sequence[LayerInfo]) -> list[LayerInfo]:
    """The layers with labels that no two share; one that would be shared says the operator, or is dropped."""
    names = {layer.name for layer in layers}
    shared = Counter(layer.label for layer in layers)
    longer = [
        layer.label if shared[layer.label] < 2 else f"{layer.label}.{layer.op_type}" for layer in layers
    ]
    counted = Counter(longer)
    return [
        replace(layer, label=label)
        if layer.label and counted[label] < 2 and (label not in names or label == layer.name)
        else replace(layer, label="")
        for layer, label in zip(layers, longer, strict=True)
    ]
