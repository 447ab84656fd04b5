"""TorchGraph: an ONNX graph run node by node in torch, with hooks and write-back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from quantstudio.core.errors import QuantStudioError, UnsupportedOpError
from quantstudio.engine.graph.protos import captures, reads, subgraphs
from quantstudio.engine.torch_graph import (  # noqa: F401  each import registers its operators
    contrib,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    resize,
    sampling,
    shaping,
)
from quantstudio.engine.torch_graph.bodies import BODY_KERNELS
from quantstudio.engine.torch_graph.parameters import weight_names
from quantstudio.engine.torch_graph.registry import (
    FALLBACK_HINT,
    OPERATORS,
    Attributes,
    Kernel,
    Result,
    tensor_from_proto,
)

Tensor = torch.Tensor
Value = Tensor | None
Feed = Mapping[str, Tensor | NDArray[np.generic]]


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator of the graph.

    Attributes:
        index: Position in execution order.
        name: Unique node name.
        op_type: ONNX operator.
        inputs: Tensor names; empty for an operand left out.
        outputs: Tensor names; empty for an output nobody asked for.
        attributes: Read once.
        kernel: The computation.
    """

    index: int
    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes
    kernel: Kernel

    def compute(self, *inputs: Value) -> Result:
        """The node's own computation on these inputs.

        Raises:
            UnsupportedOpError: a mode the kernel does not have, or tensors torch refuses; names the node.
        """
        try:
            return self.kernel(self.attributes, *inputs)
        except UnsupportedOpError as error:
            raise UnsupportedOpError(
                error.what, where=f"{self.name} ({self.op_type})", hint=error.hint
            ) from error
        except (RuntimeError, ValueError, IndexError, TypeError, KeyError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UnsupportedOpError(
                f"torch cannot compute this node: {reason}",
                where=f"{self.name} ({self.op_type})",
                hint=FALLBACK_HINT,
            ) from error


Hook = Callable[[Node, tuple[Value, ...]], Result]


class TorchGraph(nn.Module):
    """A normalised ONNX graph as a torch module.

    Every initializer with the role of a weight is a parameter, reached by its ONNX name through `weights`;
    all others are constants. `hooks` maps a node's name to a function that runs in its place: it gets the
    node and its inputs and calls `node.compute` if it wants the original.

    Attributes:
        nodes: In execution order.
        input_names: Graph inputs.
        output_names: Graph outputs.
        hooks: Replacement by node name; empty for the plain network.
        overrides: Tensors to compute with in place of initializers, by name; trainers put theirs here.
    """

    def __init__(
        self, proto: onnx.ModelProto, outputs: Sequence[str] | None = None, *, is_body: bool = False
    ) -> None:
        """Build the module.

        Args:
            proto: Model at opset 13 or later with unique node names (`Graph.proto`).
            outputs: Tensors wanted, inner ones too: nodes they do not need are left out. None for the whole
                graph.
            is_body: The graph is the body of a node: it reads tensors from outside, and its weights are
                constants.

        Raises:
            UnsupportedOpError: an operator has no torch form; names the node.
        """
        super().__init__()
        graph = proto.graph
        initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._key: dict[str, str] = {}
        self._element_type = {name: tensor.data_type for name, tensor in initializers.items()}
        trainable = set() if is_body else set(weight_names(graph))
        for position, (name, tensor) in enumerate(initializers.items()):
            self._add_initializer(name, tensor_from_proto(tensor), position, name in trainable)
        self.input_names = tuple(v.name for v in graph.input if v.name not in initializers)
        self.output_names = tuple(v.name for v in graph.output) if outputs is None else tuple(outputs)
        # Bodies live on the module's device; the nodes that run them hold them as well.
        self.bodies = nn.ModuleList()
        chosen = graph.node if outputs is None else _needed(graph, outputs)
        self.nodes = tuple(self._node(i, node) for i, node in enumerate(chosen))
        self._by_name = {node.name: node for node in self.nodes}
        self._last_use = _last_uses(self.nodes)
        self._freed = self._freed_after(frozenset(self.output_names))
        self._parts: dict[tuple[frozenset[str], tuple[str, ...]], tuple[Node, ...]] = {}
        self.hooks: dict[str, Hook] = {}
        self.overrides: dict[str, Tensor] = {}

    def _add_initializer(self, name: str, tensor: Tensor, position: int, trainable: bool) -> None:
        # Module attributes may not contain dots, and names that differ in them only must not meet.
        key = f"{'weight' if trainable else 'constant'}_{position}"
        self._key[name] = key
        if trainable:
            self.register_parameter(key, nn.Parameter(tensor))
        else:
            self.register_buffer(key, tensor, persistent=False)

    def _node(self, index: int, proto: onnx.NodeProto) -> Node:
        operator = proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"
        if operator in BODY_KERNELS:
            return self._node_with_bodies(index, proto)
        if operator not in OPERATORS:
            raise UnsupportedOpError(
                f"operator {operator} has no torch form",
                where=proto.name or f"node {index}",
                hint=FALLBACK_HINT,
            )
        types = {i: self._element_type[n] for i, n in enumerate(proto.input) if n in self._element_type}
        return Node(
            index=index,
            name=proto.name or f"node_{index}",
            op_type=proto.op_type,
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            attributes=Attributes(proto, types),
            kernel=OPERATORS[operator],
        )

    def _node_with_bodies(self, index: int, proto: onnx.NodeProto) -> Node:
        """A node whose bodies are modules; what they read from outside follows the node's own inputs."""
        kernel, given = BODY_KERNELS[proto.op_type], len(proto.input)
        graphs: dict[str, TorchGraph] = {}
        outside: dict[str, None] = {}
        for name, body in subgraphs(proto):
            graphs[name] = TorchGraph(onnx.ModelProto(graph=body), is_body=True)
            outside.update(dict.fromkeys(captures(body)))
        self.bodies.extend(graphs.values())
        plain = onnx.NodeProto(op_type=proto.op_type, name=proto.name, output=proto.output)
        plain.attribute.extend(a for a in proto.attribute if not a.HasField("g"))
        attributes = Attributes(plain)

        def compute(_: Attributes, *inputs: Value) -> Result:
            around = dict(zip(outside, inputs[given:], strict=True))
            bound = {name: partial(graph.run_body, around) for name, graph in graphs.items()}
            return kernel(attributes, bound, inputs[:given], attributes.output_count)

        names = (*proto.input, *outside)
        return Node(index, proto.name, proto.op_type, names, tuple(proto.output), attributes, compute)

    # -- weights -----------------------------------------------------------------------------------------

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """Trainable tensors by initializer name."""
        return {name: self._parameters[key] for name, key in self._key.items() if key in self._parameters}  # type: ignore[misc]

    def initializer(self, name: str) -> Tensor:
        """A weight or constant by its ONNX name.

        Raises:
            KeyError: no initializer has that name.
        """
        key = self._key[name]
        tensor: Tensor | None = self._parameters.get(key)
        if tensor is None:
            tensor = self._buffers[key]
        assert tensor is not None
        return tensor

    # -- running -----------------------------------------------------------------------------------------

    def has_node(self, name: str) -> bool:
        """Whether the module computes a node of that name itself, outside all bodies."""
        return name in self._by_name

    def node(self, name: str) -> Node:
        """A node by name.

        Raises:
            KeyError: there is none.
        """
        return self._by_name[name]

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Outputs for inputs in the order of `input_names`; a single output comes bare."""
        results = self.run(dict(zip(self.input_names, inputs, strict=True)))
        values = tuple(results[name] for name in self.output_names)
        return values[0] if len(values) == 1 else values

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Tensors by name for one feed; each is freed after its last use.

        Args:
            feed: Arrays or tensors by input name.
            outputs: Tensor names wanted, inner ones too; the graph outputs by default.

        Raises:
            UnsupportedOpError: a node cannot be computed.
        """
        wanted = tuple(outputs) if outputs is not None else self.output_names
        freed = self._freed if outputs is None else self._freed_after(frozenset(wanted))
        values: dict[str, Value] = {name: self._to_tensor(value) for name, value in feed.items()}
        for node in self.nodes:
            self._step(node, values)
            for name in freed[node.index]:
                values.pop(name, None)
        return {name: self._lookup(name, values) for name in wanted}

    def run_part(self, feed: Feed, outputs: Sequence[str]) -> dict[str, Tensor]:
        """Some tensors by name from others: only the nodes in between run.

        Args:
            feed: Arrays or tensors by name, inner ones too.
            outputs: Tensor names wanted.

        Raises:
            QuantStudioError: an output needs a tensor that is not given.
            UnsupportedOpError: a node cannot be computed.
        """
        values: dict[str, Value] = {name: self._to_tensor(value) for name, value in feed.items()}
        for node in self.between(feed, outputs):
            self._step(node, values)
        return {name: self._lookup(name, values) for name in outputs}

    def between(self, given: Iterable[str], outputs: Sequence[str]) -> tuple[Node, ...]:
        """The nodes that make some tensors of those given, in order of execution."""
        key = (frozenset(given), tuple(outputs))
        if key not in self._parts:
            wanted, chosen = set(outputs) - key[0], []
            for node in reversed(self.nodes):
                if wanted.intersection(node.outputs):
                    chosen.append(node)
                    wanted.update(name for name in node.inputs if name and name not in key[0])
            self._parts[key] = tuple(reversed(chosen))
        return self._parts[key]

    def run_body(self, around: Mapping[str, Value], inputs: Sequence[Tensor]) -> list[Tensor]:
        """Outputs in order, for inputs in order and what is read from outside by name."""
        found = {name: value for name, value in around.items() if value is not None}
        found.update(zip(self.input_names, inputs, strict=True))
        results = self.run(found)
        return [results[name] for name in self.output_names]

    def record(self, feed: Feed) -> dict[str, Tensor]:
        """All tensors of one run by name."""
        values: dict[str, Value] = {name: self._to_tensor(value) for name, value in feed.items()}
        for node in self.nodes:
            self._step(node, values)
        return {name: value for name, value in values.items() if value is not None}

    def _step(self, node: Node, values: dict[str, Value]) -> None:
        inputs = tuple(self._lookup(name, values) if name else None for name in node.inputs)
        hook = self.hooks.get(node.name)
        result = node.compute(*inputs) if hook is None else hook(node, inputs)
        if isinstance(result, torch.Tensor):
            values[node.outputs[0]] = result
            return
        values.update((name, value) for name, value in zip(node.outputs, result, strict=False) if name)

    def _lookup(self, name: str, values: Mapping[str, Value]) -> Tensor:
        value = values.get(name)
        if value is not None:
            return value
        if name in self.overrides:
            return self.overrides[name]
        if name in self._key:
            return self.initializer(name)
        raise QuantStudioError(
            f"the graph reads tensor {name!r}, which no input or node provides",
            hint="Compare the data's array names with the model's inputs",
        )

    def _to_tensor(self, value: Tensor | NDArray[np.generic]) -> Tensor:
        tensor = value if isinstance(value, torch.Tensor) else _tensor_of(value)
        return tensor.to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        for tensor in (*self._parameters.values(), *self._buffers.values()):
            if tensor is not None:
                return tensor.device
        return torch.device("cpu")

    def _freed_after(self, kept: frozenset[str]) -> tuple[tuple[str, ...], ...]:
        freed: list[list[str]] = [[] for _ in self.nodes]
        for name, index in self._last_use.items():
            if name not in kept and name not in self._key:
                freed[index].append(name)
        return tuple(tuple(names) for names in freed)


def _needed(graph: onnx.GraphProto, outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes these tensors are made from, in order of execution."""
    wanted = set(outputs)
    chosen = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            chosen.append(node)
            wanted.update(reads(node))
    return chosen[::-1]


def _last_uses(nodes: Sequence[Node]) -> dict[str, int]:
    """Node after which a tensor is not read again; the producer itself for one that nobody reads."""
    last: dict[str, int] = {}
    for node in nodes:
        for name in (*node.outputs, *node.inputs):
            if name:
                last[name] = node.index
    return last


def _tensor_of(array: NDArray[np.generic]) -> Tensor:
    array = np.ascontiguousarray(array) if array.ndim else np.array(array)
    # torch warns about read-only memory (memory-mapped data); a kernel never writes into its inputs, but a
    # hook might.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
