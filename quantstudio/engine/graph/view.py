"""Who writes and who reads each tensor: `Index` inside every body, `GraphView` as the main graph sees it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto

from quantstudio.engine.graph.mapped import is_mapped
from quantstudio.engine.graph.protos import NATIVE_TYPES, Array, all_graphs, as_array, bodies, captures
from quantstudio.engine.graph.shapes import shape_of


@dataclass(slots=True)
class Scope:
    """The main graph or one control-flow body.

    Attributes:
        graph: The graph or body.
        parent: The enclosing scope; None for the main graph.
        constants: Initializers of this scope by name.
    """

    graph: GraphProto
    parent: Scope | None = None
    constants: dict[str, TensorProto] = field(default_factory=dict)

    def constant(self, name: str) -> TensorProto | None:
        """The initializer a name means here, looked up outwards; None if it is an activation."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.constants:
                return scope.constants[name]
            scope = scope.parent
        return None


class GraphView:
    """Lookups over the main graph of a model; reads only.

    Args:
        model: The model.
        nodes: Nodes to use in place of the main graph's own.
    """

    def __init__(self, model: onnx.ModelProto, nodes: list[NodeProto] | None = None) -> None:
        self.model = model
        self.graph = model.graph
        self.nodes: list[NodeProto] = list(model.graph.node) if nodes is None else nodes
        self.inputs = frozenset(value.name for value in model.graph.input)
        self.outputs = frozenset(value.name for value in model.graph.output)
        self.main = Scope(model.graph, None, {t.name: t for t in model.graph.initializer})
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        captured: set[str] = set()
        for node in self.nodes:
            for name in node.input:
                if name:
                    self.consumers[name].append(node)
            for body in bodies(node):
                names = set(captures(body))
                captured |= names
                for name in names:
                    self.consumers[name].append(node)
        self.captured = frozenset(captured)
        self._arrays: dict[str, NDArray[Any]] = {}

    def array(self, name: str) -> NDArray[Any] | None:
        """Value of a main-graph initializer, or None for anything else. Do not write to it."""
        proto = self.main.constants.get(name)
        if proto is None:
            return None
        if is_mapped(proto):
            return as_array(proto)  # kept, all of them would stay mapped
        if name not in self._arrays:
            self._arrays[name] = as_array(proto)
        return self._arrays[name]

    def is_constant(self, name: str) -> bool:
        """Whether a name is a main-graph initializer."""
        return name in self.main.constants

    @cached_property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shapes that are recorded in the file, None for dynamic dimensions."""
        known: dict[str, tuple[int | None, ...]] = {}
        for value in (*self.graph.input, *self.graph.output, *self.graph.value_info):
            shape = shape_of(value)
            if shape is not None:
                known[value.name] = tuple(size if isinstance(size, int) else None for size in shape)
        known.update({name: tuple(t.dims) for name, t in self.main.constants.items()})
        return known


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
