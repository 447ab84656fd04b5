"""Small rewrites that change no value: no-ops out, spatial means to pooling, dead parts removed."""

from __future__ import annotations

from onnx import GraphProto, NodeProto, helper

from quantstudio.engine.graph.names import fresh_name
from quantstudio.engine.graph.protos import all_graphs, delete_nodes, int_attribute, rename_reads, subgraphs
from quantstudio.engine.graph.shapes import Shape
from quantstudio.engine.graph.view import Index, index


def remove_no_ops(graph: GraphProto) -> int:
    """Take out Identity and Dropout (inference form) nodes.

    Returns:
        How many were removed.
    """
    removed = 0
    for _scope, body in all_graphs(graph):
        made = index(graph)
        doomed = [node for node in body.node if _is_no_op(node, made) and _bypass(node, body, made)]
        delete_nodes(body, doomed)
        removed += len(doomed)
    return removed


def _is_no_op(node: NodeProto, made: Index) -> bool:
    if node.domain:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout" or (len(node.output) > 1 and made.uses(node.output[1])):
        return False
    if len(node.input) < 3 or not node.input[2]:
        return True
    training = made.array(node.input[2])
    return training is not None and not bool(training.any())


def _bypass(node: NodeProto, body: GraphProto, made: Index) -> bool:
    source, target = node.input[0], node.output[0]
    if not made.outputs[target]:
        readers = made.consumers.pop(target, [])
        rename_reads(readers, target, source)
        made.consumers[source] = [n for n in made.consumers[source] if n is not node] + readers
        return True
    # The output's name is the model's interface: the producer must take it over, and can only if it lives
    # in the same graph and its tensor is not part of the interface itself.
    producer = made.producers.get(source)
    if producer is None or made.homes[source] is not body or made.outputs[source]:
        return False
    producer.output[list(producer.output).index(source)] = target
    readers = [n for n in made.consumers.pop(source, []) if n is not node]
    rename_reads(readers, source, target)
    made.consumers.setdefault(target, []).extend(readers)
    made.producers[target] = producer
    made.homes[target] = body
    return True


def spatial_means_to_pooling(graph: GraphProto, types: dict[str, tuple[int, Shape | None]]) -> int:
    """ReduceMean over all axes after the channel becomes GlobalAveragePool, which has integer kernels.

    Args:
        graph: Graph to edit.
        types: Inferred types; a node whose input rank is unknown is left alone.

    Returns:
        How many were rewritten.
    """
    count = 0
    for _scope, body in all_graphs(graph):
        made = index(graph)
        taken = made.names()
        for position in reversed(range(len(body.node))):
            node = body.node[position]
            if node.op_type != "ReduceMean" or node.domain or not _is_spatial(node, made, types):
                continue
            keep = int_attribute(node, "keepdims", 1)
            pooled = node.output[0] if keep else fresh_name(f"{node.output[0]}_pooled", taken)
            if not keep:
                flat = helper.make_node("Flatten", [pooled], [node.output[0]], f"{node.name}_flatten", axis=1)
                body.node.insert(position + 1, flat)
            pool = helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], node.name)
            node.CopyFrom(pool)
            count += 1
    return count


def _is_spatial(node: NodeProto, made: Index, types: dict[str, tuple[int, Shape | None]]) -> bool:
    _kind, shape = types.get(node.input[0], (0, None))
    if shape is None or len(shape) < 4 or len(node.input) < 2:
        return False
    axes = made.array(node.input[1])
    if axes is None:
        return False
    wanted = list(range(2, len(shape)))
    return sorted(int(axis) % len(shape) for axis in axes.reshape(-1)) == wanted


def inline_constant_branches(graph: GraphProto) -> int:
    """Replace an If whose condition is a constant by the branch that runs.

    Returns:
        How many were replaced.
    """
    count = 0
    made = index(graph)
    for _scope, body in list(all_graphs(graph)):
        for position in reversed(range(len(body.node))):
            node = body.node[position]
            if node.op_type != "If" or node.domain:
                continue
            condition = made.array(node.input[0])
            if condition is None or condition.size != 1:
                continue
            _inline(body, position, "then_branch" if condition.reshape(-1)[0] else "else_branch")
            count += 1
        if count:
            made = index(graph)
    return count


def _inline(body: GraphProto, position: int, branch: str) -> None:
    node = body.node[position]
    chosen = GraphProto()
    chosen.CopyFrom(next(graph for name, graph in subgraphs(node) if name == branch))
    outputs = list(node.output)
    name = node.name
    del body.node[position]
    body.initializer.extend(chosen.initializer)
    new_nodes = list(chosen.node)
    for number, (value, target) in enumerate(zip(chosen.output, outputs, strict=True)):
        if target:
            new_nodes.append(helper.make_node("Identity", [value.name], [target], f"{name}_result{number}"))
    for offset, new in enumerate(new_nodes):
        body.node.insert(position + offset, new)


def remove_dead(graph: GraphProto) -> int:
    """Remove nodes whose outputs nobody reads, optional outputs nobody reads, and unused initializers.

    Returns:
        How many nodes were removed.
    """
    removed = 0
    while True:
        made = index(graph)
        found = 0
        for _scope, body in list(all_graphs(graph)):
            doomed = [n for n in body.node if not any(made.uses(name) for name in n.output if name)]
            delete_nodes(body, doomed)
            found += len(doomed)
        removed += found
        if not found:
            break
    made = index(graph)
    for _scope, body in all_graphs(graph):
        for position in reversed(range(len(body.initializer))):
            if not made.uses(body.initializer[position].name):
                del body.initializer[position]
        for node in body.node:
            if node.op_type == "BatchNormalization" and not node.domain:
                _drop_training_outputs(node, made)
    return removed


def _drop_training_outputs(node: NodeProto, made: Index) -> None:
    if int_attribute(node, "training_mode", 0):
        return
    while len(node.output) > 1 and not (node.output[-1] and made.uses(node.output[-1])):
        del node.output[-1]
