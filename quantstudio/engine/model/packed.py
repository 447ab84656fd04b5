"""Weights a file holds packed or as indices into tables, recognised by the operators that unpack them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto

from quantstudio.core.figures import counted
from quantstudio.engine.graph.protos import all_graphs, int_attribute, tensor_bytes
from quantstudio.engine.graph.view import Index, index

_MOVES = frozenset({"Reshape", "Slice", "Transpose"})
_ENDS = _MOVES | {"Cast", "Gather", "GatherElements"}
_NIBBLES = frozenset({TensorProto.INT4, TensorProto.UINT4})
_INDICES = _NIBBLES | {TensorProto.UINT8}


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A weight that constant operators unpack, to INT8 or to floats.

    Attributes:
        name: The initializer that holds its bits.
        text: How it is held: "INT4 packed", "codebook, 2 bits", "group codebook, 2 bits", "table, 2 bits";
            "16 shared values" of floats.
        shape: Of the tensor.
        size_bytes: Bytes of its bits and of its table.
        nodes: Names of the nodes that unpack it.
    """

    name: str
    text: str
    shape: tuple[int, ...]
    size_bytes: int
    nodes: frozenset[str]


def packed_weight(name: str, made: Index) -> PackedWeight | None:
    """The packed weight a tensor is unpacked from; None where it is not."""
    shape = _shape(name, made)
    end, moves = _before_moves(name, made)
    if end is None or shape is None:
        return None
    if end.op_type == "Cast" and int_attribute(end, "to", 0) == TensorProto.INT8:
        bits = made.constants.get(end.input[0])
        if bits is None or bits.data_type not in _NIBBLES:
            return None
        return PackedWeight(bits.name, "INT4 packed", shape, tensor_bytes(bits), _names([end, *moves]))
    table = made.constants.get(end.input[0]) if end.op_type in ("Gather", "GatherElements") else None
    if table is None or table.data_type not in (TensorProto.INT8, TensorProto.FLOAT):
        return None
    found = _digits(end.input[1], made)
    if found is None:
        return None
    text, size = _text(end, table, moves, made), tensor_bytes(found[0]) + tensor_bytes(table)
    return PackedWeight(found[0].name, text, shape, size, _names([end, *moves, *found[1]]))


def unpacking_nodes(graph: GraphProto) -> set[str]:
    """Names of all nodes that unpack weights: computing them once would make the file an INT8 one."""
    made, found = index(graph), set[str]()
    for _scope, body in all_graphs(graph):
        for node in body.node:
            if node.op_type in _ENDS and not node.domain:
                packed = packed_weight(node.output[0], made)
                found |= packed.nodes if packed is not None else frozenset()
    return found


def _text(end: NodeProto, table: TensorProto, moves: list[NodeProto], made: Index) -> str:
    if table.data_type == TensorProto.FLOAT:
        values = made.array(table.name)
        if values is None:
            return "shared values"
        rows = np.atleast_2d(values.T if _across(end) else values)
        return f"{max(len(np.unique(row)) for row in rows)} shared values"
    if end.op_type == "GatherElements":
        entries = table.dims[int_attribute(end, "axis", 0)]
        kind = "group codebook" if table.dims[0] < _channels(moves, made) else "codebook"
        return f"{kind}, {counted(max(1, math.ceil(math.log2(entries))), 'bit')}"
    levels = made.array(table.name)
    codes: list[int] = [] if levels is None else levels.astype(np.int64).tolist()
    count = len(codes)
    if count > 1 and codes != [-1, 1] and codes != list(range(codes[0], codes[0] + count)):
        return f"table, {counted(max(1, math.ceil(math.log2(count))), 'bit')}"
    if count == 3:
        return "ternary packed"
    if count == 2:
        return "binary packed"
    return f"INT{math.ceil(math.log2(max(count, 2)))} packed"


def _across(end: NodeProto) -> bool:
    """Whether tables lie in columns."""
    return end.op_type == "GatherElements" and int_attribute(end, "axis", 0) == 0


def _channels(moves: list[NodeProto], made: Index) -> int:
    """Rows the picks of some tables are brought to, a channel each; 0 where they stay as they are."""
    shapes = [made.array(node.input[1]) for node in moves if node.op_type == "Reshape"]
    return max((int(shape[0]) for shape in shapes if shape is not None and shape.size), default=0)


def _names(nodes: Iterable[NodeProto]) -> frozenset[str]:
    return frozenset(node.name for node in nodes)


def _before_moves(name: str, made: Index) -> tuple[NodeProto | None, list[NodeProto]]:
    """The node behind those that only move values, and these."""
    moves, node = [], made.producers.get(name)
    while node is not None and node.op_type in _MOVES and not node.domain:
        moves.append(node)
        node = made.producers.get(node.input[0])
    return (node if node is not None and not node.domain else None), moves


def _digits(name: str, made: Index) -> tuple[TensorProto, list[NodeProto]] | None:
    """The initializer that indices are unpacked from, and the nodes that do it."""
    node, nodes = _before_moves(name, made)
    if node is not None and node.op_type == "Cast":
        bits = made.constants.get(node.input[0])
        return (bits, [*nodes, node]) if bits is not None and bits.data_type in _INDICES else None
    for op_type, slot in (("Mod", 0), ("Div", 0), ("MatMul", 1)):
        if node is not None and node.op_type == op_type:
            nodes.append(node)
            node = made.producers.get(node.input[slot])
        elif op_type != "MatMul":
            return None
    if node is None or node.op_type != "Cast":
        return None
    packed = made.constants.get(node.input[0])
    return (packed, [*nodes, node]) if packed is not None and packed.data_type == TensorProto.UINT8 else None


def _shape(name: str, made: Index) -> tuple[int, ...] | None:
    constant, node = made.constants.get(name), made.producers.get(name)
    if constant is not None:
        return tuple(constant.dims)
    if node is None:
        return None
    if node.op_type == "Reshape":
        target = made.array(node.input[1])
        sizes = [] if target is None else [int(size) for size in target]
        return tuple(sizes) if target is not None and min(sizes, default=0) >= 0 else None
    if node.op_type == "Transpose":
        before = _shape(node.input[0], made)
        order = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), None)
        # The shape of what a Gather picks is not that of its indices, where it reads no table of codes.
        if before is None or (order and len(order) != len(before)):
            return None
        return tuple(before[axis] for axis in order) if order else before[::-1]
    if node.op_type in ("Cast", "Gather", "GatherElements"):
        return _shape(node.input[0 if node.op_type == "Cast" else 1], made)
    return None
