"""Networks stored in half or double precision become float32, the one type weights are quantized from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from quantstudio.engine.graph.names import fresh_name
from quantstudio.engine.graph.protos import (
    NATIVE_TYPES,
    all_graphs,
    as_array,
    as_tensor,
    int_attribute,
    rename_reads,
    set_attribute,
    type_name,
)
from quantstudio.engine.graph.shapes import Shape, infer, value_types
from quantstudio.engine.graph.view import Index, index

_OTHER_FLOATS = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
# Operators whose weights make the network one of that type; a lone constant elsewhere does not.
_WEIGHTED = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "Gather", "LSTM", "GRU", "RNN", "FusedMatMul"}
)
# Attributes that name the element type of a result.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_datatype")


@dataclass(frozen=True, slots=True)
class Widening:
    """What became float32.

    Attributes:
        types: Element types of ONNX that did; empty when nothing changed.
        notes: One sentence each.
    """

    types: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


def widen(model: ModelProto) -> Widening:
    """Compute in float32 whatever computes in the type of a layer's float16, bfloat16 or float64 weights.

    Inputs and outputs keep their types behind a Cast, so that the model stays a drop-in replacement; only
    bfloat16, which numpy cannot hold, becomes float32 there too. float64 values beyond float32 become its
    largest value.

    Args:
        model: A model at the target opset with its constants in initializers; edited in place.
    """
    made = index(model.graph)
    narrow = _types_of_weights(model, made)
    if not narrow or _has_containers(model, narrow):
        return Widening()
    types = value_types(infer(model))
    counts: Counter[int] = Counter()
    for _scope, graph in all_graphs(model.graph):
        for position, tensor in enumerate(graph.initializer):
            if tensor.data_type in narrow:
                counts[tensor.data_type] += 1
                graph.initializer[position].CopyFrom(_float32(tensor))
        for node in graph.node:
            _widen_node(node, narrow, types)
    changed = _widen_interface(model, made, narrow)
    return Widening(narrow, _notes(counts, changed))


def _types_of_weights(model: ModelProto, made: Index) -> frozenset[int]:
    found: set[int] = set()
    for _scope, graph in all_graphs(model.graph):
        for node in graph.node:
            if node.op_type in _WEIGHTED:
                constants = (made.constants.get(name) for name in node.input)
                found.update(
                    tensor.data_type for tensor in constants if tensor is not None and len(tensor.dims) >= 2
                )
    return frozenset(found & _OTHER_FLOATS)


def _has_containers(model: ModelProto, narrow: frozenset[int]) -> bool:
    """Sequences and optional values carry their element type in many places: such models stay as they are."""
    values = [v for _scope, graph in all_graphs(model.graph) for v in (*graph.input, *graph.output)]
    return any(
        value.type.WhichOneof("value") not in ("tensor_type", None)
        and any(f"elem_type: {kind}\n" in str(value.type) for kind in narrow)
        for value in values
    )


def _float32(tensor: TensorProto) -> TensorProto:
    values = as_array(tensor)
    largest = np.finfo(np.float32).max
    if tensor.data_type == TensorProto.DOUBLE:
        # Infinities stay what they are; a mask of -1e308 must not become one.
        values = np.where(np.isfinite(values), np.clip(values, -largest, largest), values)
    return as_tensor(tensor.name, values.astype(np.float32))


def _widen_node(node: NodeProto, narrow: frozenset[int], types: dict[str, tuple[int, Shape | None]]) -> None:
    for name in _TYPE_ATTRIBUTES:
        if int_attribute(node, name, 0) in narrow:
            set_attribute(node, name, int(TensorProto.FLOAT))
    for attribute in node.attribute:
        if attribute.HasField("t") and attribute.t.data_type in narrow:
            attribute.t.CopyFrom(_float32(attribute.t))
    if node.op_type == "Cast" and int_attribute(node, "to", 0) == TensorProto.FLOAT:
        kind, _shape = types.get(node.input[0], (0, None))
        if kind in narrow or kind == TensorProto.FLOAT:
            node.op_type = "Identity"
            del node.attribute[:]


def _widen_interface(model: ModelProto, made: Index, narrow: frozenset[int]) -> list[str]:
    """Casts at the borders of the main graph; returns the names of tensors whose type changed."""
    graph, taken = model.graph, made.names()
    changed = []
    for scope, body in all_graphs(graph):
        for value in (*body.input, *body.output):
            kind = value.type.tensor_type.elem_type
            if kind in narrow and (scope or kind not in NATIVE_TYPES):
                value.type.tensor_type.elem_type = TensorProto.FLOAT
                if not scope:
                    changed.append(value.name)
    for value in graph.input:
        if value.type.tensor_type.elem_type in narrow:
            _cast_input(graph, value, made, taken)
    for value in graph.output:
        if value.type.tensor_type.elem_type in narrow:
            _cast_output(graph, value, made, taken)
    return changed


def _cast_input(graph: GraphProto, value: ValueInfoProto, made: Index, taken: set[str]) -> None:
    inner = fresh_name(f"{value.name}_float32", taken)
    rename_reads(made.consumers.get(value.name, ()), value.name, inner)
    node = helper.make_node("Cast", [value.name], [inner], f"{value.name}_to_float32", to=TensorProto.FLOAT)
    graph.node.insert(0, node)


def _cast_output(graph: GraphProto, value: ValueInfoProto, made: Index, taken: set[str]) -> None:
    producer = made.producers.get(value.name)
    if producer is None:
        return  # an input handed through: it has its type already
    inner = fresh_name(f"{value.name}_float32", taken)
    producer.output[list(producer.output).index(value.name)] = inner
    rename_reads(made.consumers.get(value.name, ()), value.name, inner)
    kind = value.type.tensor_type.elem_type
    graph.node.append(
        helper.make_node("Cast", [inner], [value.name], f"{value.name}_to_{type_name(kind)}", to=kind)
    )


def _notes(counts: Counter[int], changed: list[str]) -> tuple[str, ...]:
    parts = [
        f"{count} {type_name(kind)} tensor{'' if count == 1 else 's'}"
        for kind, count in sorted(counts.items())
    ]
    text = f"Converted {' and '.join(parts)} to float32, to quantize from"
    if changed:
        return (f"{text}; {', '.join(changed)} became float32 too.",)
    return (f"{text}; inputs and outputs keep their types.",)
