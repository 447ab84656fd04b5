"""A graph cut in two at any node, so that what comes before a changed layer need not run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from quantstudio.core.events import CancelToken
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.mapped import content_bytes
from quantstudio.engine.graph.protos import all_graphs, as_array, bodies, reads, used_names
from quantstudio.engine.graph.runtime import Optimization, check_provider, open_session, reference

# Initializers from this size on are handed to the runtime by reference instead of being written into every
# part; smaller ones may be shapes and axes, which the runtime reads while it loads.
SHARED_FROM_BYTES = 4096

Edit = Callable[[onnx.GraphProto], None]
Types = Mapping[str, onnx.ValueInfoProto]

_ELEMENT_TYPES: dict[str, int] = {
    "tensor(float)": TensorProto.FLOAT,
    "tensor(double)": TensorProto.DOUBLE,
    "tensor(float16)": TensorProto.FLOAT16,
    "tensor(int8)": TensorProto.INT8,
    "tensor(int16)": TensorProto.INT16,
    "tensor(int32)": TensorProto.INT32,
    "tensor(int64)": TensorProto.INT64,
    "tensor(uint8)": TensorProto.UINT8,
    "tensor(uint16)": TensorProto.UINT16,
    "tensor(uint32)": TensorProto.UINT32,
    "tensor(uint64)": TensorProto.UINT64,
    "tensor(bool)": TensorProto.BOOL,
}
# Among these, full optimization makes integer kernels of float layers, but not of their changed copies.
_QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


class CutGraph:
    """The nodes a graph's outputs need, in parts.

    Attributes:
        outputs: The outputs kept.
        end: Position behind the last node.
        input_types: Types of the graph inputs by name.
    """

    def __init__(
        self,
        graph: Graph,
        outputs: Sequence[str],
        *,
        threads: int,
        provider: str,
        cancel: CancelToken | None = None,
    ) -> None:
        """Take the graph apart.

        Args:
            graph: The model.
            outputs: Graph outputs to keep.
            threads: Intra-op threads of the parts.
            provider: Full name of the execution provider they run on.
            cancel: Ends the load of a part.
        """
        self._cancel = cancel
        self.outputs = tuple(outputs)
        self._threads = threads
        self._provider = provider
        self._source = graph.proto
        self._nodes = _needed_nodes(graph.proto.graph, outputs)
        self.end = len(self._nodes)
        self.input_types: dict[str, onnx.ValueInfoProto] = {v.name: v for v in graph.proto.graph.input}
        self._symbols = {
            d.dim_param for v in graph.proto.graph.input for d in v.type.tensor_type.shape.dim if d.dim_param
        }
        self._constants = {t.name: t for t in graph.proto.graph.initializer}
        self._shared: dict[str, NDArray[np.generic]] = {
            t.name: as_array(t) for t in self._constants.values() if _is_shared(t)
        }
        self._positions = {name: i for i, node in enumerate(self._nodes) for name in _names(node)}
        self._made, self._read = self._lifetimes()
        has_quantizers = any(node.op_type in _QUANTIZERS for node in self._nodes)
        self._optimization = Optimization.BASIC if has_quantizers else Optimization.ALL

    def _lifetimes(self) -> tuple[dict[str, int], dict[str, int]]:
        """Where each tensor is made (-1 for inputs) and read last."""
        made = dict.fromkeys(self.input_types, -1)
        read: dict[str, int] = {}
        for i, node in enumerate(self._nodes):
            made.update((name, i) for name in node.output if name)
            read.update((name, i) for name in reads(node))
        read.update((name, self.end) for name in self.outputs)
        return made, read

    def position(self, node_name: str) -> int | None:
        """Where a node, or the control-flow node around it, is; None where no output depends on it."""
        return self._positions.get(node_name)

    def live_at(self, position: int) -> tuple[str, ...]:
        """Tensors made before a position that are read from there on."""
        return tuple(n for n, i in self._made.items() if i < position <= self._read.get(n, -1))

    def session(
        self,
        start: int,
        stop: int,
        inputs: Types,
        outputs: Sequence[str],
        edit: Edit | None = None,
    ) -> ort.InferenceSession:
        """A session over nodes start to stop.

        Args:
            start: First node.
            stop: One past the last.
            inputs: Types of `live_at(start)`.
            outputs: Tensors it gives out.
            edit: Changes the part before it is loaded.

        Raises:
            ModelLoadError: the runtime refuses the part.
            MeasureError: the provider cannot start.
            JobCancelled: the token was set.
        """
        model = onnx.ModelProto(
            ir_version=self._source.ir_version,
            opset_import=self._source.opset_import,
            functions=self._source.functions,
        )
        part = model.graph
        part.name = "part"
        part.node.extend(self._nodes[start:stop])
        part.input.extend(inputs.values())
        part.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        part.sparse_initializer.extend(self._source.graph.sparse_initializer)
        if edit is not None:
            edit(part)
        used = set(used_names(part)) & set(self._constants)
        shared = {name: self._shared[name] for name in self._shared if name in used}
        part.initializer.extend(
            reference(t) if name in shared else t for name, t in self._constants.items() if name in used
        )
        session = open_session(
            model.SerializeToString(),
            threads=self._threads,
            optimization=self._optimization,
            provider=self._provider,
            initializers=shared,
            cancel=self._cancel,
        )
        check_provider(session, self._provider)
        return session

    def output_types(self, session: ort.InferenceSession) -> dict[str, onnx.ValueInfoProto] | None:
        """Types of what a session gives out, for the part behind it; None where one is not a plain tensor."""
        found = {}
        for output in session.get_outputs():
            kind = _ELEMENT_TYPES.get(output.type)
            if kind is None:
                return None
            # Two sessions make up the same names for different unknown lengths, and the runtime plans its
            # memory by name: only the model's own symbols mean the same everywhere. An unknown rank looks
            # like a scalar's.
            shape = [d if isinstance(d, int) or d in self._symbols else None for d in output.shape]
            found[output.name] = helper.make_tensor_value_info(output.name, kind, shape or None)
        return found


def _needed_nodes(graph: onnx.GraphProto, outputs: Sequence[str]) -> list[onnx.NodeProto]:
    wanted = set(outputs)
    kept = []
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted.update(reads(node))
    return kept[::-1]


def _names(node: onnx.NodeProto) -> Iterator[str]:
    yield node.name
    for body in bodies(node):
        for _, inner in all_graphs(body):
            yield from (one.name for one in inner.node)


def _is_shared(tensor: TensorProto) -> bool:
    return tensor.data_type in _ELEMENT_TYPES.values() and content_bytes(tensor) >= SHARED_FROM_BYTES
