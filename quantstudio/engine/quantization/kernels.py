"""Which kernel each layer really runs on: read off the graph as ONNX Runtime has optimized it.

The runtime renames nodes while it fuses them (seen in 1.31): `_nchwc` behind the name of the output tensor
for blocked convolutions, `_token_N` behind the node's name for integer ones, `/MatMulAddFusion` and the like
for others. Where no name is left, the weights (themselves or with `_T` when they were transposed) and the
output tensor tell.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import onnx

from quantstudio.core.layers import LayerInfo
from quantstudio.core.results import BuiltLayer
from quantstudio.core.target import Target
from quantstudio.engine.graph.mapped import content_bytes
from quantstudio.engine.graph.protos import attribute_value, bodies
from quantstudio.engine.quantization.emit import Emission

INTEGER_KERNELS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
    }
)
# What brings the weights of a file back to float, or to INT8 where they are packed.
_UNPACKING = frozenset(
    {
        "Cast",
        "DequantizeLinear",
        "Div",
        "Gather",
        "GatherElements",
        "MatMul",
        "Mod",
        "Mul",
        "Reshape",
        "Slice",
        "Transpose",
    }
)
FOLDED = "folded"
# Kernels of which "float" says nothing: they pick rows, or unpack integers themselves.
_PLAIN = frozenset({FOLDED, "Gather", "MatMulNBits"})
# Kernels that only prepare or carry data: never what a layer "runs on" while another candidate is there.
_AUXILIARY = frozenset(
    {
        "Cast",
        "Concat",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "Identity",
        "Max",
        "NhwcMaxPool",
        "QuantizeLinear",
        "ReorderInput",
        "ReorderOutput",
        "Reshape",
        "Transpose",
    }
)
_SUFFIXES = re.compile(r"(_nchwc|_nhwc|_token_\d+|/(MatMulAddFusion|duplicated)[^/]*)+$")
# What may follow a layer inside its fused kernel.
_ACTIVATIONS = frozenset(
    {
        "Add",
        "Cast",
        "Clip",
        "Div",
        "HardSigmoid",
        "LeakyRelu",
        "Mul",
        "QuantizeLinear",
        "Relu",
        "Sigmoid",
        "Tanh",
        "Transpose",
    }
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of the optimized graph.

    Attributes:
        op_type: Its operator.
        is_integer: Whether it multiplies integers.
        node: Name of its node in the optimized graph; empty for folded layers.
    """

    op_type: str
    is_integer: bool
    node: str = ""

    @property
    def label(self) -> str:
        """What the table shows."""
        if self.is_integer or self.op_type in _PLAIN:
            return self.op_type
        plain = self.op_type.removeprefix("Fused") or self.op_type
        return f"{plain} (float)"


def map_kernels(
    layers: Sequence[LayerInfo], emission: Emission, optimized: onnx.GraphProto
) -> dict[str, Kernel]:
    """The kernel of every layer.

    Args:
        layers: The layers to find.
        emission: The variant as it was written.
        optimized: The same after the runtime's optimizers.

    Returns:
        A kernel by layer name; "folded" for layers the runtime computed at load.
    """
    return _Mapper(layers, emission, optimized).kernels()


def built_layers(
    layers: Sequence[LayerInfo], emission: Emission, kernels: dict[str, Kernel], target: Target
) -> tuple[BuiltLayer, ...]:
    """What became of every layer, with a note where it is not what was asked of a target that can."""
    sizes = weight_bytes_by_layer(layers, emission)
    built = []
    for layer in layers:
        scheme, kernel = emission.plan.schemes[layer.name], kernels[layer.name]
        note = emission.plan.notes.get(layer.name, "") or (layer.reason if layer.stored_as else "")
        if not (kernel.is_integer or note or scheme.is_weight_only) and target.support(layer, scheme).is_fast:
            note = f"{scheme.label} asked, but the runtime runs it as {kernel.label}"
        built.append(
            BuiltLayer(
                name=layer.name,
                weights=layer.stored_as.lower() or scheme.weights.name,
                activations=scheme.activations.name,
                kernel=f"{kernel.label}, simulated" if scheme.is_simulated else kernel.label,
                is_integer_kernel=kernel.is_integer,
                weight_bytes=sizes[layer.name],
                note=note,
                is_simulated=scheme.is_simulated,
            )
        )
    return tuple(built)


class _Mapper:
    def __init__(self, layers: Sequence[LayerInfo], emission: Emission, optimized: onnx.GraphProto) -> None:
        self.layers = {layer.name: layer for layer in layers}
        self.candidates = [n for n in _all_nodes(optimized) if n.op_type not in _AUXILIARY]
        self.written = {node.name: node for node in _all_nodes(emission.model.graph)}
        self.owner = {part: layer for layer, parts in emission.parts.items() for part in parts}
        self.producer = {o: n for n in self.written.values() for o in n.output if o}
        self.constants = {tensor.name for tensor in _all_initializers(emission.model.graph)}
        self.weights = self._weight_owners()
        self.found: dict[str, onnx.NodeProto] = {}

    def kernels(self) -> dict[str, Kernel]:
        """Certain matches first, so that a tensor behind two fused layers goes to the one left over."""
        rest = self.candidates
        for match in (self._by_name, self._by_weights, self._by_output):
            rest = [node for node in rest if not self._assign(match(node), node)]
        kernels = {}
        for name in self.layers:
            node = self.found.get(name)
            found = Kernel(FOLDED, False)
            if node is not None:
                found = Kernel(node.op_type, _is_integer(node), node.name)
            kernels[name] = found
        return kernels

    def _assign(self, names: Sequence[str], node: onnx.NodeProto) -> bool:
        for name in names:
            if name in self.layers and name not in self.found:
                self.found[name] = node
                return True
        return False

    def _by_name(self, node: onnx.NodeProto) -> Sequence[str]:
        stripped = _SUFFIXES.sub("", node.name)
        # A fused kernel may keep the name of any of the nodes a layer was written as.
        return [own for own in (self.owner.get(node.name), self.owner.get(stripped)) if own]

    def _by_weights(self, node: onnx.NodeProto) -> Sequence[str]:
        owners: list[str] = []
        for name in node.input:
            owners += self.weights.get(name, []) or self.weights.get(name.removesuffix("_T"), [])
        return owners

    def _by_output(self, node: onnx.NodeProto) -> Sequence[str]:
        names = [node.name.removesuffix("_nchwc"), *node.output]
        return [owner for name in names for owner in self._behind(name)]

    def _behind(self, tensor: str) -> Iterator[str]:
        """Layers whose result reaches a tensor through operators that fuse, nearest first."""
        queue, seen = [tensor], {tensor}
        while queue:
            node = self.producer.get(queue.pop(0))
            if node is None:
                continue
            owner = self.owner.get(node.name)
            if owner is not None:
                yield owner
            elif node.op_type in _ACTIVATIONS:
                new = [name for name in node.input if name and name not in seen]
                seen.update(new)
                queue.extend(new)

    def _weight_owners(self) -> dict[str, list[str]]:
        owners: dict[str, list[str]] = defaultdict(list)
        for name, layer in self.owner.items():
            node = self.written[name]
            for tensor in _constants_behind(node, self.producer, self.constants):
                owners[tensor].append(layer)
        return owners


def _is_integer(node: onnx.NodeProto) -> bool:
    if node.op_type == "MatMulNBits":
        # Level 4, the runtime's default, rounds the activations to INT8 before it multiplies.
        return int(attribute_value(node, "accuracy_level", 0)) == 4
    return node.op_type in INTEGER_KERNELS


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in bodies(node):
            yield from _all_nodes(body)


def _all_initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for body in bodies(node):
            yield from _all_initializers(body)


def _constants_behind(
    node: onnx.NodeProto, producer: dict[str, onnx.NodeProto], constants: Container[str]
) -> Iterator[str]:
    """Constants a node reads directly or through the nodes that bring its weights back to float."""
    for name in node.input:
        leaves = _leaves(name, producer)
        if all(leaf in constants for leaf in leaves):
            yield from leaves


def _leaves(name: str, producer: dict[str, onnx.NodeProto]) -> list[str]:
    """What a tensor is computed from, if that is by scaling or unpacking alone; else the tensor itself."""
    maker = producer.get(name)
    if maker is None or maker.op_type not in _UNPACKING:
        return [name] if name else []
    return [leaf for source in maker.input for leaf in _leaves(source, producer)]


def weight_bytes_by_layer(layers: Sequence[LayerInfo], emission: Emission) -> dict[str, int]:
    """Bytes of each layer's constants; what two layers share counts at the first."""
    written = {node.name: node for node in _all_nodes(emission.model.graph)}
    producer = {o: n for n in written.values() for o in n.output if o}
    sizes = {t.name: content_bytes(t) or t.ByteSize() for t in _all_initializers(emission.model.graph)}
    counted: set[str] = set()
    totals = {}
    for layer in layers:
        names: list[str] = []
        for part in emission.parts.get(layer.name, ()):
            names.extend(_constants_behind(written[part], producer, sizes))
        new = [name for name in dict.fromkeys(names) if name in sizes and name not in counted]
        counted.update(new)
        totals[layer.name] = sum(sizes[name] for name in new)
    return totals
