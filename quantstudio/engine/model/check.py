"""Is this a whole, valid graph? Every fault names the node, tensor or file."""

from __future__ import annotations

from onnx import GraphProto, ModelProto, NodeProto, defs

from quantstudio.core.errors import ModelLoadError, UnsupportedOpError
from quantstudio.engine.graph.mapped import is_mapped
from quantstudio.engine.graph.protos import all_graphs, as_array, as_tensor, reads, subgraphs, tensor_bytes

# Whoever opens a file seldom has what wrote it.
_AGAIN = "The file is damaged or was written wrongly: get it again from its source"
STANDARD_OPERATORS = "It was made for another runtime: a form of it with standard ONNX operators is needed"
# Domains whose operators ONNX Runtime brings along; it decides at load whether it has the kernel.
_RUNTIME_DOMAINS = frozenset({"ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"})


def check_text(model: ModelProto) -> None:
    """Every name is text: a damaged file can hold bytes that are none.

    Raises:
        ModelLoadError: one is not.
    """
    texts: list[object] = [entry.domain for entry in model.opset_import]
    for _scope, graph in all_graphs(model.graph):
        texts.append(graph.name)
        texts += [tensor.name for tensor in graph.initializer]
        for value in (*graph.input, *graph.output):
            texts.append(value.name)
            texts += [dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for node in graph.node:
            texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
            texts += [attribute.name for attribute in node.attribute]
    for text in texts:
        # Protocol buffers of version 2 hand over what is not UTF-8 as bytes.
        if not isinstance(text, str):
            raise ModelLoadError(f"a name is not text: {text!r}", hint="The file is damaged; copy it again")


def check_operators(model: ModelProto) -> None:
    """Every operator is known at the model's opset.

    Raises:
        UnsupportedOpError: one is not; the message names its node.
    """
    versions = {entry.domain: int(entry.version) for entry in model.opset_import}
    for scope, graph in all_graphs(model.graph):
        for node in graph.node:
            where = _where(node, scope)
            if node.domain in _RUNTIME_DOMAINS:
                continue
            if node.domain:
                raise UnsupportedOpError(
                    f"operator {node.op_type} of domain {node.domain!r} is not known here",
                    where=where,
                    hint=STANDARD_OPERATORS,
                )
            if not defs.has(node.op_type, versions[""], ""):
                raise UnsupportedOpError(
                    f"ONNX opset {versions['']} has no operator {node.op_type!r}",
                    where=where,
                    hint=STANDARD_OPERATORS,
                )
            _check_arity(node, defs.get_schema(node.op_type, versions[""], ""), where)


def _check_arity(node: NodeProto, schema: defs.OpSchema, where: str) -> None:
    if not schema.min_input <= len(node.input) <= schema.max_input:
        raise ModelLoadError(
            f"{node.op_type} has {len(node.input)} inputs, needs {schema.min_input} to {schema.max_input}",
            where=where,
            hint=_AGAIN,
        )
    present = {attribute.name for attribute in node.attribute}
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in present:
            raise ModelLoadError(f"{node.op_type} lacks its attribute {name!r}", where=where, hint=_AGAIN)


def check_initializers(graph: GraphProto) -> None:
    """Every initializer holds as many bytes as its shape says; typed fields become raw data.

    Raises:
        ModelLoadError: one does not; the message names it.
    """
    for _scope, body in all_graphs(graph):
        seen: set[str] = set()
        for position, tensor in enumerate(body.initializer):
            where = f"initializer {tensor.name!r}"
            if not tensor.name or tensor.name in seen:
                raise ModelLoadError("an initializer has no name or repeats one", where=where, hint=_AGAIN)
            seen.add(tensor.name)
            if any(dim < 0 for dim in tensor.dims):
                raise ModelLoadError("its shape has a negative dimension", where=where, hint=_AGAIN)
            if tensor.HasField("raw_data"):
                found, wanted = len(tensor.raw_data), tensor_bytes(tensor)
                if found != wanted:
                    raise ModelLoadError(
                        f"its shape {list(tensor.dims)} needs {wanted} bytes, the file holds {found}",
                        where=where,
                        hint=_AGAIN,
                    )
            elif tensor.data_type != tensor.STRING and not is_mapped(tensor):
                try:
                    body.initializer[position].CopyFrom(as_tensor(tensor.name, as_array(tensor)))
                except (ValueError, TypeError, KeyError) as error:
                    raise ModelLoadError(
                        f"its values do not fit its shape {list(tensor.dims)} ({error})",
                        where=where,
                        hint=_AGAIN,
                    ) from error


def check_and_sort(graph: GraphProto) -> bool:
    """Every tensor has exactly one source and nodes can be put in order; puts them in order.

    Returns:
        Whether the order had to change.

    Raises:
        ModelLoadError: a tensor comes from nowhere or from two nodes, or nodes form a cycle.
    """
    if not graph.output:
        raise ModelLoadError("the graph has no outputs", hint=_AGAIN)
    return _sort(graph, set(), "")


def _sort(graph: GraphProto, outer: set[str], scope: str) -> bool:
    available = outer | {value.name for value in graph.input} | {t.name for t in graph.initializer}
    given = available - outer
    produced: dict[str, str] = {}
    for node in graph.node:
        for name in node.output:
            if name and (name in produced or name in given):
                raise ModelLoadError(
                    f"tensor {name!r} is written twice", where=_where(node, scope), hint=_AGAIN
                )
            if name:
                produced[name] = node.name
    changed = _order(graph, available, produced, scope)
    inside = available | produced.keys()
    for value in graph.output:
        if value.name not in inside:
            raise ModelLoadError(
                f"output {value.name!r} is produced by no node", where=scope and f"body {scope}", hint=_AGAIN
            )
    for node in graph.node:
        for name, body in subgraphs(node):
            changed |= _sort(body, inside, f"{scope}/{node.name}.{name}" if scope else f"{node.name}.{name}")
    return changed


def _order(graph: GraphProto, available: set[str], produced: dict[str, str], scope: str) -> bool:
    """Stable topological order: always the first node in file order whose operands are there."""
    nodes = list(graph.node)
    needs: list[set[str]] = []
    for node in nodes:
        needed = set(reads(node))
        for name in sorted(needed - available - produced.keys()):
            raise ModelLoadError(
                f"{node.op_type} reads {name!r}, which is neither an input, an initializer nor an output",
                where=_where(node, scope),
                hint="The file lacks an initializer or a node: get it again from its source",
            )
        needs.append(needed & produced.keys())
    done: set[str] = set()
    order: list[int] = []
    waiting = list(range(len(nodes)))
    while waiting:
        left = []
        for position in waiting:
            if needs[position] <= done:
                order.append(position)
                done.update(nodes[position].output)
            else:
                left.append(position)
        if len(left) == len(waiting):
            raise ModelLoadError(
                "the graph has a cycle through this node",
                where=_where(nodes[_on_cycle(nodes, left)], scope),
                hint=_AGAIN,
            )
        waiting = left
    if order == sorted(order):
        return False
    copies = []
    for position in order:
        copy = NodeProto()
        copy.CopyFrom(nodes[position])
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)
    return True


def _on_cycle(nodes: list[NodeProto], left: list[int]) -> int:
    """Walk back along operands until a node repeats: that one is on the cycle, not merely behind it."""
    makers = {name: position for position in left for name in nodes[position].output if name}
    position = left[0]
    seen: set[int] = set()
    while position not in seen:
        seen.add(position)
        position = min(makers[name] for name in reads(nodes[position]) if name in makers)
    return position


def _where(node: NodeProto, scope: str) -> str:
    label = f"node {node.name!r}"
    return f"{label} in {scope}" if scope else label
