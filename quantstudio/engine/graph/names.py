"""Names for nodes and tensors that mean one thing, in the main graph and in every body, and stay the same."""

from __future__ import annotations

from onnx import GraphProto, ModelProto

from quantstudio.engine.graph.protos import all_graphs, bodies


def fresh_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, or `wanted_2`, `wanted_3`, ...; the name is then taken."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class NameSource:
    """Names nothing else in the model has; the same requests in the same order give the same names.

    Args:
        model: The model.
        is_short: Give the shortest names there are, whatever is wanted: in a small file names weigh.
    """

    def __init__(self, model: ModelProto, *, is_short: bool = False) -> None:
        self.is_short = is_short
        self._count = 0
        self._taken: set[str] = set()
        for _scope, graph in all_graphs(model.graph):
            self._taken.update(_local_names(graph), (value.name for value in graph.output))
            self._taken.update(node.name for node in graph.node)

    def fresh(self, name: str) -> str:
        """`name`, or with a number where it is taken; a short one where those are given."""
        if not self.is_short:
            return self.given(name)
        short = ""
        while not short or short in self._taken:
            short, left = "", self._count
            self._count += 1
            while left or not short:
                left, digit = divmod(left, len(_DIGITS))
                short = _DIGITS[digit] + short
            short = f"_{short}"
        self._taken.add(short)
        return short

    def given(self, name: str) -> str:
        """`name`, or with a number where it is taken."""
        return fresh_name(name, self._taken)


def unique_node_names(graph: GraphProto) -> tuple[int, int]:
    """Name every node; a name depends only on the operator, its first output and the order of nodes.

    Returns:
        How many nodes had no name, and how many shared one.
    """
    unnamed = repeated = 0
    # Given names win over made-up ones, so that a made-up name never displaces the author's.
    taken: set[str] = set()
    pending = []
    for _scope, body in all_graphs(graph):
        for node in body.node:
            if node.name and node.name not in taken:
                taken.add(node.name)
            else:
                pending.append(node)
    for node in pending:
        if node.name:
            repeated += 1
            node.name = fresh_name(node.name, taken)
        else:
            unnamed += 1
            first = next((name for name in node.output if name), "unused")
            node.name = fresh_name(f"{node.op_type}_{first}", taken)
    return unnamed, repeated


def unique_tensor_names(graph: GraphProto) -> int:
    """Rename tensors inside bodies that repeat a name used elsewhere.

    Sibling bodies may use one name for two tensors; layers and weights are found by name, so each name must
    mean one tensor.

    Returns:
        How many were renamed.
    """
    taken = {"", *_local_names(graph)}
    renamed = 0
    for node in graph.node:
        for body in bodies(node):
            renamed += _rename_body(body, {}, taken)
    return renamed


def _local_names(graph: GraphProto) -> list[str]:
    names = [value.name for value in graph.input]
    names += [tensor.name for tensor in graph.initializer]
    for node in graph.node:
        names += [name for name in node.output if name]
    return names


def _rename_body(body: GraphProto, outer: dict[str, str], taken: set[str]) -> int:
    mapping = dict(outer)
    renamed = 0
    for name in dict.fromkeys(_local_names(body)):
        new = fresh_name(name, taken)
        mapping[name] = new
        renamed += new != name
    for value in (*body.input, *body.output, *body.value_info):
        value.name = mapping.get(value.name, value.name)
    for tensor in body.initializer:
        tensor.name = mapping.get(tensor.name, tensor.name)
    for node in body.node:
        for slots in (node.input, node.output):
            for slot, name in enumerate(slots):
                slots[slot] = mapping.get(name, name)
        for inner in bodies(node):
            renamed += _rename_body(inner, mapping, taken)
    return renamed
