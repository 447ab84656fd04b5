"""Shapes computed by nodes at run time, followed symbolically, so that Reshape gets a constant target.

Exporters write `x.view(x.size(0), -1)` as Shape, Gather, Unsqueeze, Concat, Reshape. Each element of such a
chain is a number or one dimension of a tensor; a target with one dynamic element becomes a constant with -1.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from quantstudio.engine.graph.names import fresh_name
from quantstudio.engine.graph.protos import (
    all_graphs,
    as_tensor,
    delete_nodes,
    int_attribute,
    remove_attribute,
)
from quantstudio.engine.graph.shapes import Shape
from quantstudio.engine.graph.view import Index, index

Types = dict[str, tuple[int, Shape | None]]
Element = int | str

# Chains longer than this are not shapes.
_MAX_ELEMENTS = 16


def freeze_reshape_targets(graph: GraphProto, types: Types) -> int:
    """Give Reshape nodes a constant target where it can be told, and fold parts of shapes that are numbers.

    Returns:
        How many nodes were changed.
    """
    made = index(graph)
    taken = made.names()
    values: dict[str, list[Element]] = {}
    count = 0
    for _scope, body in all_graphs(graph):
        known = []
        for node in body.node:
            if node.domain:
                continue
            _follow(node, made, types, values)
            constant = _as_constant(node, types, values)
            if constant is not None and not made.outputs[node.output[0]]:
                body.initializer.append(constant)
                known.append(node)
            elif node.op_type == "Reshape" and node.input[1] not in made.constants:
                target = _constant_target(node, values.get(node.input[1]), types)
                if target is not None:
                    name = fresh_name(f"{node.name}.target", taken)
                    body.initializer.append(as_tensor(name, np.array(target, dtype=np.int64)))
                    node.input[1] = name
                    remove_attribute(node, "allowzero")
                    count += 1
        delete_nodes(body, known)
        count += len(known)
    return count


def _as_constant(node: NodeProto, types: Types, values: dict[str, list[Element]]) -> TensorProto | None:
    """The node's output as an initializer when every element is a number."""
    elements = values.get(node.output[0]) if node.output else None
    kind, shape = types.get(node.output[0], (0, None)) if elements else (0, None)
    numbers = [element for element in elements or [] if isinstance(element, int)]
    if not elements or len(numbers) < len(elements) or shape is None or len(shape) > 1:
        return None
    if kind not in (TensorProto.INT64, TensorProto.INT32):
        return None
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return as_tensor(node.output[0], np.array(numbers, dtype=dtype).reshape([len(numbers)] * len(shape)))


def cast_like_to_cast(graph: GraphProto, types: Types) -> int:
    """CastLike to a known type depends on no value of its second input: make it a Cast.

    Returns:
        How many were changed.
    """
    count = 0
    for _scope, body in all_graphs(graph):
        for node in body.node:
            kind, _shape = types.get(node.input[1], (0, None)) if node.op_type == "CastLike" else (0, None)
            if kind and not node.domain:
                node.CopyFrom(helper.make_node("Cast", [node.input[0]], node.output, node.name, to=kind))
                count += 1
    return count


def _constant_target(node: NodeProto, target: list[Element] | None, types: Types) -> list[int] | None:
    if target is None:
        return None
    symbols = [element for element in target if isinstance(element, str)]
    numbers = [element for element in target if isinstance(element, int)]
    if 0 in numbers:
        return None
    if len(symbols) + numbers.count(-1) <= 1:
        return [-1 if isinstance(element, str) else element for element in target]
    # 0 keeps the input's dimension at that place: several dynamic axes stay dynamic.
    _kind, shape = types.get(node.input[0], (0, None))
    kept = [
        0 if isinstance(e, str) and shape is not None and axis < len(shape) and shape[axis] == e else e
        for axis, e in enumerate(target)
    ]
    left = [element for element in kept if isinstance(element, str)]
    if len(left) + numbers.count(-1) > 1:
        return None
    return [-1 if isinstance(element, str) else element for element in kept]


def _follow(node: NodeProto, made: Index, types: Types, values: dict[str, list[Element]]) -> None:
    """Note what the node's output holds, if it is a list of numbers and dimensions."""
    match node.op_type:
        case "Shape":
            found = _shape_elements(node, types)
        case "Squeeze" | "Unsqueeze" | "Identity" | "Cast" | "Reshape":
            found = _elements(node.input[0], made, values)
        case "Gather":
            found = _gathered(node, made, values)
        case "Slice":
            found = _sliced(node, made, values)
        case "Mul" | "Add" | "Sub":
            found = _arithmetic(node, made, values)
        case "Concat":
            parts = [_elements(name, made, values) for name in node.input]
            known = [part for part in parts if part is not None]
            found = [element for part in known for element in part] if len(known) == len(parts) else None
        case _:
            found = None
    if found is not None and len(found) <= _MAX_ELEMENTS:
        values[node.output[0]] = found


def _elements(name: str, made: Index, values: dict[str, list[Element]]) -> list[Element] | None:
    if name in values:
        return values[name]
    array = made.array(name)
    if array is None or array.ndim > 1 or array.size > _MAX_ELEMENTS or array.dtype.kind != "i":
        return None
    return [int(v) for v in array.reshape(-1)]


def _shape_elements(node: NodeProto, types: Types) -> list[Element] | None:
    _kind, shape = types.get(node.input[0], (0, None))
    if shape is None:
        return None
    elements = [f"{node.input[0]}@{axis}" if dim is None else dim for axis, dim in enumerate(shape)]
    start, end = int_attribute(node, "start", 0), int_attribute(node, "end", len(shape))
    return list(elements[slice(start, end)])


def _arithmetic(node: NodeProto, made: Index, values: dict[str, list[Element]]) -> list[Element] | None:
    first, second = (_elements(name, made, values) for name in node.input)
    if not first or not second or not (node.input[0] in values or node.input[1] in values):
        return None
    count = max(len(first), len(second))
    if len(first) not in (1, count) or len(second) not in (1, count):
        return None
    pairs = zip(first * (count // len(first)), second * (count // len(second)), strict=True)
    result: list[Element] = []
    for position, (a, b) in enumerate(pairs):
        if isinstance(a, int) and isinstance(b, int):
            result.append({"Mul": a * b, "Add": a + b}.get(node.op_type, a - b))
        else:
            # Some new dynamic number.
            result.append(f"{node.output[0]}#{position}")
    return result


def _gathered(node: NodeProto, made: Index, values: dict[str, list[Element]]) -> list[Element] | None:
    source, places = values.get(node.input[0]), made.array(node.input[1])
    if source is None or places is None or places.ndim > 1:
        return None
    numbers = [int(v) for v in places.reshape(-1)]
    return [source[v] for v in numbers] if all(-len(source) <= v < len(source) for v in numbers) else None


def _sliced(node: NodeProto, made: Index, values: dict[str, list[Element]]) -> list[Element] | None:
    source = values.get(node.input[0])
    limits = [made.array(name) for name in node.input[1:3]]
    steps = made.array(node.input[4]) if len(node.input) > 4 and node.input[4] else np.ones(1, np.int64)
    if source is None or steps is None or steps.size != 1:
        return None
    known = [limit for limit in limits if limit is not None and limit.size == 1]
    if len(known) != 2:
        return None
    start, end = (int(limit.reshape(-1)[0]) for limit in known)
    return source[slice(start, end, int(steps.reshape(-1)[0]))]
