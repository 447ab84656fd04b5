"""Who writes and who reads each tensor of a normalised graph, and what its constants hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from quantstudio.engine.graph.protos import subgraphs


@dataclass(slots=True)
class Scope:
    """The main graph or one control-flow body.

    Attributes:
        graph: The graph or body.
        parent: The enclosing scope; None for the main graph.
        constants: Initializers of this scope by name.
    """

    graph: onnx.GraphProto
    parent: Scope | None = None
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def constant(self, name: str) -> onnx.TensorProto | None:
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

    def __init__(self, model: onnx.ModelProto, nodes: list[onnx.NodeProto] | None = None) -> None:
        self.model = model
        self.graph = model.graph
        self.nodes: list[onnx.NodeProto] = list(model.graph.node) if nodes is None else nodes
        self.inputs = frozenset(value.name for value in model.graph.input)
        self.outputs = frozenset(value.name for value in model.graph.output)
        self.main = Scope(model.graph, None, {t.name: t for t in model.graph.initializer})
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
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
        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(proto)
        return self._arrays[name]

    def is_constant(self, name: str) -> bool:
        """Whether a name is a main-graph initializer."""
        return name in self.main.constants

    @cached_property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shapes that are recorded in the file, None for dynamic dimensions."""
        known: dict[str, tuple[int | None, ...]] = {}
        for value in (*self.graph.input, *self.graph.output, *self.graph.value_info):
            tensor = value.type.tensor_type
            if tensor.HasField("shape"):
                known[value.name] = tuple(
                    d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim
                )
        known.update({name: tuple(t.dims) for name, t in self.main.constants.items()})
        return known


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:  # noqa: ANN401
    """Value of an attribute, or the default."""
    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Control-flow bodies a node owns."""
    yield from (body for _, body in subgraphs(node))


def captures(body: onnx.GraphProto) -> Iterator[str]:
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
