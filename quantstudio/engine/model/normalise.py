"""The order in which a model is cleaned, checked, converted, folded and named, and what is said about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, ValueInfoProto, helper, inliner

from quantstudio.core.errors import ModelLoadError
from quantstudio.core.events import CancelToken, never_cancelled
from quantstudio.engine.graph.mapped import content_bytes
from quantstudio.engine.graph.names import unique_node_names, unique_tensor_names
from quantstudio.engine.graph.protos import all_graphs
from quantstudio.engine.graph.shapes import (
    Shape,
    contradicts,
    infer,
    shape_of,
    value_types,
    write_value_info,
)
from quantstudio.engine.model.batchnorm import fold_batchnorm
from quantstudio.engine.model.check import check_and_sort, check_initializers, check_operators, check_text
from quantstudio.engine.model.constants import (
    constant_nodes_to_initializers,
    dense,
    fold_constants,
    fold_shapes,
)
from quantstudio.engine.model.opset import TARGET_OPSET, convert_opset, newest_opset
from quantstudio.engine.model.patterns import (
    inline_constant_branches,
    remove_dead,
    remove_no_ops,
    spatial_means_to_pooling,
)
from quantstudio.engine.model.shape_values import cast_like_to_cast, freeze_reshape_targets
from quantstudio.engine.model.widen import widen

# Folding a shape can make another foldable; real models settle after two rounds.
_MAX_ROUNDS = 8
_WEIGHT_BYTES = 1024

# What exporters write for an axis that has no name.
_NO_SYMBOLS = frozenset({"?", "-1", "None", "none", "*", "unk", "unknown"})


@dataclass(frozen=True, slots=True)
class Changes:
    """What normalisation did to a model.

    Attributes:
        notes: One sentence each.
        widened: Element types of ONNX that became float32.
    """

    notes: tuple[str, ...]
    widened: frozenset[int]


def normalise(model: ModelProto, *, rewrite: bool = True, cancel: CancelToken | None = None) -> Changes:
    """Bring a model, in place, to the one form everything downstream relies on (see `graph.Graph`).

    Args:
        model: A parsed model with its weights inside.
        rewrite: Also put other operators in place of the file's: normalizations into weights, constant
            targets of Reshape, means into pooling.
        cancel: Looked at between passes.

    Returns:
        What was changed.

    Raises:
        ModelLoadError: the graph is not whole or contradicts itself.
        UnsupportedOpError: an operator is unknown or has no equivalent in the target opset.
    """
    token = cancel or never_cancelled()
    notes: list[str] = []
    declared = _repair(model, notes)
    token.raise_if_set()
    _to_target(model, notes)
    token.raise_if_set()
    widening = widen(model)
    notes += widening.notes
    _simplify(model, notes, token, rewrite=rewrite)
    token.raise_if_set()
    unique_node_names(model.graph)
    _drop_unused_domains(model, notes)
    _finish_shapes(model, declared, notes)
    return Changes(tuple(notes), widening.types)


def repair(model: ModelProto) -> None:
    """Only what changes no operator: unique names, order of nodes, float32 throughout, no contradictions.

    For files the runtime refuses as they are, such as ones with two nodes of one name.

    Raises:
        ModelLoadError: the graph is not whole.
        UnsupportedOpError: an operator is unknown.
    """
    _repair(model, [])
    constant_nodes_to_initializers(model.graph)
    widen(model)


def _repair(model: ModelProto, notes: list[str]) -> dict[str, ValueInfoProto]:
    check_text(model)
    declared = _clean(model, notes)
    graph = model.graph
    unnamed, repeated = unique_node_names(graph)
    if unnamed or repeated:
        notes.append(f"Named {_count(unnamed + repeated, 'node')} that had no name of its own.")
    check_initializers(graph)
    if check_and_sort(graph):
        notes.append("Put the nodes in order of execution.")
    unique_tensor_names(graph)
    check_operators(model)
    return declared


def _clean(model: ModelProto, notes: list[str]) -> dict[str, ValueInfoProto]:
    """Drop what carries no meaning; returns the outputs as the file declared them."""
    _check_versions(model)
    if model.functions:
        notes.append(f"Inlined {_count(len(model.functions), 'model function')}.")
        model.CopyFrom(inliner.inline_local_functions(model))
        del model.functions[:]
    del model.training_info[:]
    del model.metadata_props[:]
    model.ClearField("doc_string")
    graph = model.graph
    for _scope, body in all_graphs(graph):
        _strip(body)
    weights = {tensor.name for tensor in graph.initializer}
    also_inputs = [i for i, value in enumerate(graph.input) if value.name in weights]
    for position in reversed(also_inputs):
        del graph.input[position]
    if also_inputs:
        notes.append(f"Took {_count(len(also_inputs), 'weight')} off the list of inputs.")
    _open_unnamed_axes(graph)
    declared = {}
    for value in graph.output:
        kept = ValueInfoProto()
        kept.CopyFrom(value)
        declared[value.name] = kept
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return declared


def _open_unnamed_axes(graph: GraphProto) -> None:
    """Some exporters write -1 for a dynamic axis; ONNX Runtime reads it as one, shape inference does not.

    Others write the same "?" for every dynamic axis, which says that all have one length.
    """
    for value in (*graph.input, *graph.output):
        if value.type.HasField("tensor_type"):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_value < 0 or dim.dim_param in _NO_SYMBOLS:
                    dim.Clear()


def _check_versions(model: ModelProto) -> None:
    for entry in model.opset_import:
        if entry.domain == "ai.onnx":
            entry.domain = ""
    for _scope, graph in all_graphs(model.graph):
        for node in graph.node:
            if node.domain == "ai.onnx":
                node.domain = ""
    version = next((int(e.version) for e in model.opset_import if e.domain == ""), None)
    if version is None:
        raise ModelLoadError(
            "the file names no ONNX opset",
            hint="It is damaged or not an ONNX model: get it again from its source",
        )
    if version > newest_opset():
        raise ModelLoadError(
            f"opset {version} is newer than {newest_opset()}, the newest known here",
            hint=f"Update QuantStudio, or get the model in opset {TARGET_OPSET}",
        )


def _strip(graph: GraphProto) -> None:
    del graph.value_info[:]
    del graph.metadata_props[:]
    del graph.quantization_annotation[:]
    graph.ClearField("doc_string")
    for sparse in graph.sparse_initializer:
        graph.initializer.append(dense(sparse))
    del graph.sparse_initializer[:]
    for thing in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        thing.ClearField("doc_string")
        del thing.metadata_props[:]


def _to_target(model: ModelProto, notes: list[str]) -> None:
    lifted = constant_nodes_to_initializers(model.graph)
    if lifted:
        notes.append(f"Moved {_count(lifted, 'constant')} out of nodes.")
    source = convert_opset(model, _types(model))
    if source < TARGET_OPSET:
        notes.append(f"Converted opset {source} to {TARGET_OPSET}.")


def _simplify(model: ModelProto, notes: list[str], token: CancelToken, *, rewrite: bool) -> None:
    graph = model.graph
    removed = folded = 0
    weights = _large_weights(graph)
    for number in range(_MAX_ROUNDS):
        token.raise_if_set()
        removed += remove_no_ops(graph) + remove_dead(graph)
        unread = len(weights - _large_weights(graph)) if number == 0 else 0
        if unread:
            notes.append(
                f"Left out {_count(unread, 'weight')} that nothing reads: what is written is smaller."
            )
        types = _types(model)
        found = fold_shapes(graph, types) + cast_like_to_cast(graph, types)
        if rewrite:
            found += freeze_reshape_targets(graph, types)
        found += fold_constants(model) + inline_constant_branches(graph)
        folded += found
        if not found:
            break
    if folded:
        notes.append(f"Computed {_count(folded, 'constant expression')} once.")
    token.raise_if_set()
    if rewrite:
        _replace_operators(model, notes, token)
    removed += remove_no_ops(graph) + remove_dead(graph)
    if removed:
        notes.append(f"Removed {_count(removed, 'node')} without effect.")


def _large_weights(graph: GraphProto) -> set[str]:
    """Names of initializers that are more than shapes and scalars."""
    return {one.name for one in graph.initializer if content_bytes(one) >= _WEIGHT_BYTES}


def _replace_operators(model: ModelProto, notes: list[str], token: CancelToken) -> None:
    graph = model.graph
    normed = fold_batchnorm(graph, _types(model))
    if normed:
        notes.append(
            f"Folded {_count(normed, 'batch normalization or per-channel shift', 's')} into weights."
        )
    token.raise_if_set()
    pooled = spatial_means_to_pooling(graph, _types(model))
    if pooled:
        notes.append(f"Rewrote {_count(pooled, 'spatial mean')} as global average pooling.")


def _drop_unused_domains(model: ModelProto, notes: list[str]) -> None:
    used = {node.domain for _scope, graph in all_graphs(model.graph) for node in graph.node} | {""}
    unused = [i for i, entry in enumerate(model.opset_import) if entry.domain not in used]
    names = [model.opset_import[i].domain for i in unused]
    for position in reversed(unused):
        del model.opset_import[position]
    if names:
        notes.append(f"Dropped unused operator domains: {', '.join(names)}.")


def _finish_shapes(model: ModelProto, declared: dict[str, ValueInfoProto], notes: list[str]) -> None:
    """Infer all shapes; what the file states about outputs is kept where the graph does not say otherwise.

    ONNX Runtime runs a file whose stated shapes lie, with a warning.
    """
    inferred = infer(model)
    found = {value.name: value for value in inferred.graph.output}
    for value in model.graph.output:
        stated = declared[value.name]
        if not value.type.HasField("tensor_type"):
            continue
        shapes = shape_of(stated), shape_of(found[value.name])
        if contradicts(*shapes):
            notes.append(_lie(value.name, *shapes))
            stated.CopyFrom(found[value.name])
        stated.type.tensor_type.elem_type = value.type.tensor_type.elem_type  # bfloat16 became float32
        value.CopyFrom(stated)
    write_value_info(model, inferred)


def _types(model: ModelProto) -> dict[str, tuple[int, Shape | None]]:
    return value_types(infer(model))


def correct_outputs(model: ModelProto, shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """Write what a run showed over the stated shapes of outputs.

    Args:
        model: Model to edit.
        shapes: Shape by output name.

    Returns:
        A note for each.
    """
    notes = []
    for value in model.graph.output:
        if value.name in shapes:
            notes.append(_lie(value.name, shape_of(value), shapes[value.name]))
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shapes[value.name]))
    return tuple(notes)


def _lie(name: str, stated: Shape | None, found: Shape | None) -> str:
    return f"Output {name!r} has the shape {_text(found)}, not {_text(stated)} as the file says."


def _text(shape: Shape | None) -> str:
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape or ()) + "]"


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"
