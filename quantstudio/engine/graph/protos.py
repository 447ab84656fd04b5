"""Reading and editing ONNX protocol buffers: bodies, uses, attributes, constants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

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


def all_graphs(graph: GraphProto, scope: str = "") -> Iterator[tuple[str, GraphProto]]:
    """The graph and every body below it, each with its scope: "loop1.body/if2.then_branch"."""
    yield scope, graph
    for node in graph.node:
        for name, body in subgraphs(node):
            inner = f"{node.name or node.op_type}.{name}"
            yield from all_graphs(body, f"{scope}/{inner}" if scope else inner)


def attribute(node: NodeProto, name: str) -> AttributeProto | None:
    """The attribute of that name, or None."""
    return next((a for a in node.attribute if a.name == name), None)


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
    return numpy_helper.to_array(tensor)


def as_tensor(name: str, values: Array) -> TensorProto:
    """A tensor with raw little-endian data, contiguous."""
    # ascontiguousarray would turn a scalar into a vector.
    return numpy_helper.from_array(np.asarray(values, order="C"), name)


@dataclass(slots=True)
class Index:
    """Who makes and who reads each tensor, over the main graph and all bodies.

    Tensor names must be unique over all graphs (`names.unique_tensor_names`).

    Attributes:
        producers: Node that writes a tensor.
        consumers: Nodes that read it, once a reading slot.
        constants: Initializers.
        homes: Graph an initializer or produced tensor belongs to.
        outputs: Names that are outputs of the main graph or a body, with the number of times.
        graph_inputs: Inputs of the main graph and of bodies.
    """

    producers: dict[str, NodeProto] = field(default_factory=dict)
    consumers: dict[str, list[NodeProto]] = field(default_factory=dict)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    homes: dict[str, GraphProto] = field(default_factory=dict)
    outputs: Counter[str] = field(default_factory=Counter)
    graph_inputs: set[str] = field(default_factory=set)

    def uses(self, name: str) -> int:
        """Reading slots and graph outputs that need the tensor."""
        return len(self.consumers.get(name, ())) + self.outputs[name]

    def only_consumer(self, name: str) -> NodeProto | None:
        """The node that alone reads the tensor, or None."""
        readers = self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and not self.outputs[name] else None

    def array(self, name: str) -> Array | None:
        """Value of a constant of a native type, or None."""
        tensor = self.constants.get(name)
        return as_array(tensor) if tensor is not None and tensor.data_type in NATIVE_TYPES else None

    def names(self) -> set[str]:
        """Every tensor name in use."""
        return self.producers.keys() | self.constants.keys() | self.graph_inputs


def index(graph: GraphProto) -> Index:
    """Index the graph and its bodies."""
    made = Index()
    for _scope, body in all_graphs(graph):
        made.graph_inputs.update(value.name for value in body.input)
        made.outputs.update(value.name for value in body.output)
        for tensor in body.initializer:
            made.constants[tensor.name] = tensor
            made.homes[tensor.name] = body
        for node in body.node:
            for name in node.input:
                if name:
                    made.consumers.setdefault(name, []).append(node)
            for name in node.output:
                if name:
                    made.producers[name] = node
                    made.homes[name] = body
    return made


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


def fresh_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, or `wanted_2`, `wanted_3`, ...; the name is then taken."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name
