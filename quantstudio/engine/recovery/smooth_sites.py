"""Where a factor per channel can leave an activation: what is before takes it, readers give it back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from quantstudio.core.layers import LayerInfo
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.names import NameSource
from quantstudio.engine.graph.protos import as_array, as_tensor, attribute_value
from quantstudio.engine.graph.view import GraphView, index

FloatArray = NDArray[np.float64]

# Inputs of a normalisation that its output is proportional to.
_NORMS = {
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
    "SimplifiedLayerNormalization": (1,),
}
_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu"})


@dataclass(frozen=True, slots=True)
class Slot:
    """A constant input with one value per channel, or a weight with the channels along one axis.

    Attributes:
        node: Node that reads it.
        position: Which input.
        axis: Axis of the channels.
    """

    node: str
    position: int
    axis: int


@dataclass(frozen=True, slots=True)
class Site:
    """One activation.

    Attributes:
        tensor: The activation, channels along its last axis.
        channels: How many.
        readers: Layers that read it, each with where its weight lies: channels times factors.
        producers: Constants before it: channels divided by factors. Empty where nothing takes them.
        source: Layer whose weight is among them; empty where a normalisation or Mul takes all.
    """

    tensor: str
    channels: int
    readers: tuple[tuple[LayerInfo, Slot], ...]
    producers: tuple[Slot, ...] = ()
    source: str = ""


def find_sites(graph: Graph) -> tuple[Site, ...]:
    """Every activation of the main graph that nothing but products with constant weights reads."""
    return tuple(_Finder(graph).sites())


def scale_slots(model: onnx.ModelProto, slots: tuple[Slot, ...], factors: FloatArray) -> None:
    """Multiply constants per channel, in place; what others read, too, is parted from them.

    Args:
        model: Model to edit.
        slots: Where the constants are read.
        factors: Shape [C].
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    seen = index(model.graph)
    for slot in slots:
        node = nodes[slot.node]
        name = node.input[slot.position]
        value = np.asarray(as_array(tensors[name]), dtype=np.float64)
        spread = [1] * value.ndim
        spread[slot.axis] = -1
        made = (value * factors.reshape(spread)).astype(np.float32)
        if seen.uses(name) == 1:
            tensors[name].CopyFrom(as_tensor(name, made))
        else:
            own = NameSource(model).fresh(f"{node.name}_{slot.position}")
            model.graph.initializer.append(as_tensor(own, made))
            node.input[slot.position] = own


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.view = GraphView(graph.proto)
        self.index = index(graph.proto.graph)
        self.layers = {layer.name: layer for layer in graph.layers if layer.weight_name and not layer.scope}

    def sites(self) -> Iterator[Site]:
        for tensor in dict.fromkeys(name for node in self.view.nodes for name in node.output if name):
            readers = self._readers(tensor)
            if readers is None:
                continue
            channels = self._size(readers[0][1])
            if any(self._size(slot) != channels for _, slot in readers):
                continue
            found = self._producers(tensor, channels)
            yield Site(tensor, channels, readers, *(found or ((), "")))

    def _size(self, slot: Slot) -> int:
        node = next(node for node in self.view.nodes if node.name == slot.node)
        return int(self.view.main.constants[node.input[slot.position]].dims[slot.axis])

    def _readers(self, tensor: str) -> tuple[tuple[LayerInfo, Slot], ...] | None:
        nodes = self.view.consumers[tensor]
        if not nodes or tensor in self.view.outputs or tensor in self.view.captured:
            return None
        slots = [self._reader(node, tensor) for node in nodes]
        found = [(self.layers[slot.node], slot) for slot in slots if slot is not None]
        return tuple(found) if len(found) == len(nodes) else None

    def _reader(self, node: onnx.NodeProto, tensor: str) -> Slot | None:
        """Where the weight of a product has the channels of its data."""
        if node.name not in self.layers or node.op_type not in ("MatMul", "Gemm"):
            return None
        if node.input[0] != tensor or not self._is_own(node.input[1], 2):
            return None
        if node.op_type == "MatMul":
            return Slot(node.name, 1, 0)
        if attribute_value(node, "transA", 0):
            return None
        return Slot(node.name, 1, 1 if attribute_value(node, "transB", 0) else 0)

    def _is_own(self, name: str, rank: int) -> bool:
        value = self.view.array(name)
        return (
            value is not None
            and value.dtype == np.float32
            and value.ndim == rank
            and self.index.uses(name) == 1
        )

    # What lies before it.

    def _producers(self, tensor: str, channels: int) -> tuple[tuple[Slot, ...], str] | None:
        node = self.view.producer.get(tensor)
        if node is None or self.index.producers.get(tensor) is not node:
            return None
        kind = node.op_type
        if kind in _NORMS:
            return self._normalization(node, channels)
        if kind in ("MatMul", "Gemm"):
            return self._product(node, channels)
        if kind in _HOMOGENEOUS:
            return self._behind(node.input[0], channels)
        if kind in ("Add", "Mul"):
            return self._elementwise(node, channels)
        return None

    def _behind(self, tensor: str, channels: int) -> tuple[tuple[Slot, ...], str] | None:
        """As `_producers`, for a tensor that nobody else may see."""
        if len(self.view.consumers[tensor]) != 1 or tensor in self.view.outputs | self.view.captured:
            return None
        return self._producers(tensor, channels)

    def _row(self, node: onnx.NodeProto, position: int, channels: int) -> Slot | None:
        """A constant with one value per channel along its last axis."""
        value = self.view.array(node.input[position])
        if value is None or value.dtype != np.float32 or value.size != channels or value.ndim < 1:
            return None
        return Slot(node.name, position, value.ndim - 1) if value.shape[-1] == channels else None

    def _normalization(self, node: onnx.NodeProto, channels: int) -> tuple[tuple[Slot, ...], str] | None:
        shape = self.view.shapes.get(node.input[0])
        axis = int(attribute_value(node, "axis", -1))
        if axis != -1 and (shape is None or axis != len(shape) - 1):
            return None
        found = []
        for position in _NORMS[node.op_type]:
            if len(node.input) > position and node.input[position]:
                slot = self._row(node, position, channels)
                if slot is None:
                    return None
                found.append(slot)
        return tuple(found), ""

    def _product(self, node: onnx.NodeProto, channels: int) -> tuple[tuple[Slot, ...], str] | None:
        if node.name not in self.layers or not self._is_own(node.input[1], 2):
            return None
        axis = 0 if node.op_type == "Gemm" and attribute_value(node, "transB", 0) else 1
        weight = Slot(node.name, 1, axis)
        if self._size(weight) != channels:
            return None
        if len(node.input) < 3 or not node.input[2]:
            return (weight,), node.name
        bias = self._row(node, 2, channels)
        return None if bias is None else ((weight, bias), node.name)

    def _elementwise(self, node: onnx.NodeProto, channels: int) -> tuple[tuple[Slot, ...], str] | None:
        constants = [i for i, name in enumerate(node.input) if self.view.is_constant(name)]
        if not constants and node.op_type == "Mul" and node.input[0] != node.input[1]:
            # A gate: either side can take the factors.
            sides = (self._behind(name, channels) for name in reversed(node.input))
            return next((found for found in sides if found is not None), None)
        if len(constants) != 1:
            return None
        own = self._row(node, constants[0], channels)
        other = node.input[1 - constants[0]]
        if node.op_type == "Mul" and own is not None:
            return (own,), ""
        if node.op_type == "Add" and own is not None:
            found = self._behind(other, channels)
            return None if found is None else ((own, *found[0]), found[1])
        is_scalar = as_array(self.view.main.constants[node.input[constants[0]]]).size == 1
        return self._behind(other, channels) if node.op_type == "Mul" and is_scalar else None
