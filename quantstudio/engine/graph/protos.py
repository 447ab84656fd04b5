"""Reading and editing ONNX protocol buffers: bodies, what they read, attributes, constants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

from quantstudio.engine.graph.mapped import content_of, is_mapped, kept

Array = NDArray[np.generic]

# Element types numpy holds natively; bfloat16, float8, 4 bit and string tensors stay untouched.
NATIVE_TYPES = frozenset(
    {
        TensorProto.FLOAT,
        TensorProto.DOUBLE,
        TensorProto.FLOAT16,
        TensorProto.INT8,
        TensorProto.INT16,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.UINT8,
        TensorProto.UINT16,
        TensorProto.UINT32,
        TensorProto.UINT64,
        TensorProto.BOOL,
    }
)

# Floating types numpy knows.
FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16})

_BITS: dict[int, int] = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    TensorProto.BFLOAT16: 16,
    TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E4M3FNUZ: 8,
    TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8,
    TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128,
}


def subgraphs(node: NodeProto) -> Iterator[tuple[str, GraphProto]]:
    """Attribute name and graph of each body an If, Loop or Scan node holds."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.name, attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            for index, graph in enumerate(attribute.graphs):
                yield f"{attribute.name}{index}", graph


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies alone."""
    yield from (body for _, body in subgraphs(node))


def all_graphs(graph: GraphProto, scope: str = "") -> Iterator[tuple[str, GraphProto]]:
    """The graph and every body below it, each with its scope: "loop1.body/if2.then_branch"."""
    yield scope, graph
    for node in graph.node:
        for name, body in subgraphs(node):
            inner = f"{node.name or node.op_type}.{name}"
            yield from all_graphs(body, f"{scope}/{inner}" if scope else inner)


def captures(body: GraphProto) -> Iterator[str]:
    """Names a body reads from outside, its nested bodies included."""
    own = {value.name for value in body.input} | {t.name for t in body.initializer}
    own |= {name for node in body.node for name in node.output}
    for node in body.node:
        for name in node.input:
            if name and name not in own:
                yield name
        for inner in bodies(node):
            yield from (name for name in captures(inner) if name not in own)
    yield from (value.name for value in body.output if value.name not in own)


def reads(node: NodeProto) -> Iterator[str]:
    """Every tensor a node needs: its inputs that are not left out, and what its bodies read from outside."""
    yield from (name for name in node.input if name)
    for body in bodies(node):
        yield from captures(body)


def used_names(graph: GraphProto) -> Iterator[str]:
    """Every name read in a graph and its bodies, its outputs included."""
    for node in graph.node:
        yield from node.input
        for body in bodies(node):
            yield from used_names(body)
    yield from (value.name for value in graph.output)


def used_domains(graph: GraphProto) -> Iterator[str]:
    """Operator domains of a graph and its bodies."""
    for node in graph.node:
        yield node.domain
        for body in bodies(node):
            yield from used_domains(body)


def attribute(node: NodeProto, name: str) -> AttributeProto | None:
    """The attribute of that name, or None."""
    return next((a for a in node.attribute if a.name == name), None)


def attribute_value(node: NodeProto, name: str, default: Any = None) -> Any:  # noqa: ANN401
    """Value of an attribute as Python holds it, or the default."""
    found = attribute(node, name)
    return default if found is None else onnx.helper.get_attribute_value(found)


def int_attribute(node: NodeProto, name: str, default: int) -> int:
    """An integer attribute or its default."""
    found = attribute(node, name)
    return int(found.i) if found is not None else default


def ints_attribute(node: NodeProto, name: str) -> list[int] | None:
    """An integer list attribute, or None where it is absent."""
    found = attribute(node, name)
    return [int(v) for v in found.ints] if found is not None else None


def float_attribute(node: NodeProto, name: str, default: float) -> float:
    """A float attribute or its default."""
    found = attribute(node, name)
    return float(found.f) if found is not None else default


def string_attribute(node: NodeProto, name: str, default: str) -> str:
    """A string attribute or its default."""
    found = attribute(node, name)
    return found.s.decode(errors="replace") if found is not None else default


def remove_attribute(node: NodeProto, *names: str) -> None:
    """Drop attributes by name; absent ones are ignored."""
    for position in reversed(range(len(node.attribute))):
        if node.attribute[position].name in names:
            del node.attribute[position]


def set_attribute(node: NodeProto, name: str, value: object) -> None:
    """Set or replace an attribute."""
    remove_attribute(node, name)
    node.attribute.append(onnx.helper.make_attribute(name, value))


def element_bits(data_type: int) -> int:
    """Bits one element takes in a file; 0 for strings."""
    if data_type in _BITS:
        return _BITS[data_type]
    if data_type in NATIVE_TYPES:
        return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize) * 8
    return 0


def tensor_elements(tensor: TensorProto) -> int:
    """Number of elements, from the shape."""
    count = 1
    for dim in tensor.dims:
        count *= dim
    return count


def tensor_bytes(tensor: TensorProto) -> int:
    """Bytes the elements take in a file, from shape and type."""
    if tensor.data_type == TensorProto.STRING:
        return sum(len(s) for s in tensor.string_data)
    return -(-tensor_elements(tensor) * element_bits(tensor.data_type) // 8)


def type_name(data_type: int) -> str:
    """numpy name of an element type where there is one, else ONNX's own in lower case."""
    if data_type in NATIVE_TYPES:
        return str(onnx.helper.tensor_dtype_to_np_dtype(data_type).name)
    known = data_type in TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(data_type)).lower() if known else f"type {data_type}"


def as_array(tensor: TensorProto) -> Array:
    """The tensor's values; read-only where the file's bytes are used as they are."""
    if not is_mapped(tensor):
        return numpy_helper.to_array(tensor)
    content = content_of(tensor)
    if tensor.data_type in NATIVE_TYPES:
        stored = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).newbyteorder("<")
        return content.view(stored).reshape(tuple(tensor.dims))
    held = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=content.tobytes())
    return numpy_helper.to_array(held)


def as_tensor(name: str, values: Array) -> TensorProto:
    """A tensor with raw little-endian data, contiguous."""
    # ascontiguousarray would turn a scalar into a vector.
    return kept(numpy_helper.from_array(np.asarray(values, order="C"), name))


def rename_reads(consumers: Iterable[NodeProto], old: str, new: str) -> None:
    """Make nodes read another tensor."""
    for node in consumers:
        for slot, name in enumerate(node.input):
            if name == old:
                node.input[slot] = new


def delete_nodes(graph: GraphProto, doomed: Iterable[NodeProto]) -> None:
    """Remove nodes of one graph by identity."""
    ids = {id(node) for node in doomed}
    # Keep the wrappers alive while comparing: a collected wrapper's id may be given out again.
    nodes = list(graph.node)
    for position in reversed(range(len(nodes))):
        if id(nodes[position]) in ids:
            del graph.node[position]
