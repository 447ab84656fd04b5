"""What a network says of itself: its inputs and outputs, and the operators that make each output."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from quantstudio.core.layers import TensorInfo

# Operators that only write values in another form.
_FORMS = frozenset(
    {"Cast", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose"}
    | {"Unsqueeze"}
)
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "QLinearConv"})
# Far enough to see through a decomposed LayerNormalization or a norm.
_DEPTH = 14


@dataclass(frozen=True, slots=True)
class OutputFacts:
    """One output of a network.

    Attributes:
        info: Name, element type, declared shape.
        last: Operator that made the values; empty for an input passed through.
        axis: Axis attribute of that operator; None where it has none, or the form was changed behind it.
        behind: Operators of the last dozen nodes, nearest first.
        parts: Operators that made each part, where parts were joined.
    """

    info: TensorInfo
    last: str
    axis: int | None
    behind: tuple[str, ...]
    parts: frozenset[str]

    @property
    def name(self) -> str:
        """Of the output."""
        return self.info.name

    @property
    def is_float(self) -> bool:
        """Whether it holds float numbers."""
        return self.info.dtype.startswith(("float", "bfloat"))


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What can be told of a network without running it.

    Attributes:
        inputs: Its inputs.
        outputs: Its outputs.
        operators: All operators of the main graph.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[OutputFacts, ...]
    operators: frozenset[str]


# What the runtime calls element types otherwise than numpy does.
_RUNTIME_NAMES = {"float": "float32", "double": "float64"}


def numpy_name(runtime_type: str) -> str:
    """The element type of what the runtime calls "tensor(float)"."""
    inner = runtime_type.removeprefix("tensor(").removesuffix(")")
    return _RUNTIME_NAMES.get(inner, inner)


def network_facts(model: onnx.ModelProto) -> NetworkFacts:
    """The facts of a model; its weights are not read."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    return NetworkFacts(
        tuple(_info(value) for value in graph.input if value.name not in weights),
        tuple(_output(value, producers) for value in graph.output),
        frozenset(node.op_type for node in graph.node),
    )


def _output(value: onnx.ValueInfoProto, producers: Mapping[str, onnx.NodeProto]) -> OutputFacts:
    node = producers.get(value.name)
    was_formed = False
    while node is not None and node.op_type in _FORMS:
        was_formed = was_formed or node.op_type not in ("Identity", "Cast")
        node = producers.get(node.input[0])
    info = _info(value)
    if node is None:
        return OutputFacts(info, "", None, (), frozenset())
    parts: frozenset[str] = frozenset()
    if node.op_type == "Concat":
        parts = frozenset(_maker(name, producers) for name in node.input)
    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), None)
    last = _maker(node.output[0], producers)
    return OutputFacts(info, last, None if was_formed else axis, _behind(node, producers), parts)


def _maker(name: str, producers: Mapping[str, onnx.NodeProto]) -> str:
    """Operator that made a tensor, seen through changes of form and the addition of a bias."""
    node = producers.get(name)
    while node is not None and node.op_type in _FORMS:
        node = producers.get(node.input[0])
    if node is None:
        return ""
    if node.op_type == "Add":
        terms = [producers.get(one) for one in node.input]
        known = [one for one in terms if one is not None]
        if len(known) == 1 and known[0].op_type in _PRODUCTS:
            return known[0].op_type
    return node.op_type


def _behind(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto]) -> tuple[str, ...]:
    found: list[str] = []
    waiting, seen = deque([node]), {node.output[0]}
    while waiting and len(found) < _DEPTH:
        one = waiting.popleft()
        found.append(one.op_type)
        for name in one.input:
            before = producers.get(name)
            if before is not None and before.output[0] not in seen:
                seen.add(before.output[0])
                waiting.append(before)
    return tuple(found)


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    kind = value.type.tensor_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    except (KeyError, TypeError):  # a sequence, or a type numpy has no name for
        dtype = "other"
    shape = tuple(_dimension(d) for d in kind.shape.dim) if kind.HasField("shape") else ()
    return TensorInfo(value.name, dtype, shape)


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value > 0 else None
    return dim.dim_param or None
