"""Pairs of layers between which a factor per channel can move without changing what the network computes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import attribute_value
from quantstudio.engine.graph.view import GraphView, index

FloatArray = NDArray[np.float64]

# f(s x) = s f(x) for every s > 0, one factor per channel.
_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu"})
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class ChannelView:
    """How the channels of one side of a layer lie in its weight.

    Attributes:
        weight: Name of the initializer.
        shape: Shape to see it in.
        axes: Axes of that shape which together number the channels; the others are reduced.
    """

    weight: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return math.prod(self.shape[axis] for axis in self.axes)

    def ranges(self, weight: FloatArray) -> FloatArray:
        """Largest magnitude per channel, shape [C]."""
        seen = np.abs(weight).reshape(self.shape)
        others = tuple(axis for axis in range(len(self.shape)) if axis not in self.axes)
        return np.asarray(seen.max(axis=others, initial=0.0)).reshape(-1)

    def scaled(self, weight: FloatArray, factors: FloatArray) -> FloatArray:
        """The weight with each channel times its factor, shape as given."""
        spread = [size if axis in self.axes else 1 for axis, size in enumerate(self.shape)]
        return np.asarray((weight.reshape(self.shape) * factors.reshape(spread)).reshape(weight.shape))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two layers and what lies between them.

    Attributes:
        first: Layer that writes the channels.
        second: Layer that reads them.
        out: The channels in the weight of the first.
        into: The channels in the weight of the second.
        bias: Constant added to the channels of the first layer: the initializer's name, or empty.
        bias_node: Node that reads the bias.
        limits: Clip nodes between them with an upper limit, each with the rank of what it clips.
    """

    first: str
    second: str
    out: ChannelView
    into: ChannelView
    bias: str = ""
    bias_node: str = ""
    limits: tuple[tuple[str, int], ...] = ()


def find_pairs(graph: Graph) -> tuple[Pair, ...]:
    """Every pair of the main graph, in the order of the first layer.

    The tensor between them has this one reader and is not an output, so that nobody sees it scaled; both
    weights are read by their own layer only.
    """
    return tuple(_Finder(graph).pairs())


@dataclass(slots=True)
class _Path:
    """What a walk from a layer to the next one has met."""

    view: ChannelView
    rank: int
    bias: str = ""
    bias_node: str = ""
    limits: list[tuple[str, int]] = field(default_factory=list)
    repeats: int = 1
    is_plain: bool = True


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.view = GraphView(graph.proto)
        self.index = index(graph.proto.graph)
        self.layers = {layer.name for layer in graph.layers if layer.weight_name and not layer.scope}

    def pairs(self) -> Iterator[Pair]:
        for node in self.view.nodes:
            path = self._start(node) if node.name in self.layers else None
            if path is None:
                continue
            second = self._walk(node.output[0], path)
            into = self._input_view(second, path) if second is not None else None
            if second is not None and into is not None and into.channels == path.view.channels:
                limits = tuple(path.limits)
                yield Pair(node.name, second.name, path.view, into, path.bias, path.bias_node, limits)

    # The first layer.

    def _start(self, node: onnx.NodeProto) -> _Path | None:
        view = self._output_view(node)
        if view is None:
            return None
        shape = self.view.main.constants[view.weight].dims
        path = _Path(view, len(shape) if node.op_type.startswith("Conv") else 0)
        bias = node.input[2] if len(node.input) > 2 else ""
        if bias:
            if not self._is_row(bias, view.channels):
                return None
            path.bias, path.bias_node = bias, node.name
        return path

    def _output_view(self, node: onnx.NodeProto) -> ChannelView | None:
        shape = self._own_weight(node)
        if shape is None:
            return None
        axis = 0
        if node.op_type == "ConvTranspose":
            if attribute_value(node, "group", 1) != 1:
                return None
            axis = 1
        elif node.op_type == "Gemm":
            axis = 0 if attribute_value(node, "transB", 0) else 1
        elif node.op_type == "MatMul":
            axis = 1
        return ChannelView(node.input[1], shape, (axis,))

    def _own_weight(self, node: onnx.NodeProto) -> tuple[int, ...] | None:
        """Shape of the weight a layer multiplies its data with, if nobody else reads it."""
        if node.op_type not in _LAYERS or self.view.is_constant(node.input[0]):
            return None
        name = node.input[1]
        proto = self.view.main.constants.get(name)
        if proto is None or proto.data_type != onnx.TensorProto.FLOAT or self.index.uses(name) != 1:
            return None
        shape = tuple(proto.dims)
        is_matrix = node.op_type in ("Gemm", "MatMul")
        if len(shape) != 2 if is_matrix else len(shape) < 3:
            return None
        if node.op_type == "Gemm" and attribute_value(node, "transA", 0):
            return None
        return shape

    def _is_row(self, name: str, channels: int) -> bool:
        """Whether a bias is a constant with one value per channel, or one for all."""
        value = self.view.array(name)
        if value is None or value.dtype != np.float32:
            return False
        return value.size == 1 or (value.size == channels and value.shape[-1] == channels)

    # What lies between.

    def _walk(self, tensor: str, path: _Path) -> onnx.NodeProto | None:
        """The layer that reads the channels in the end, or None."""
        while True:
            reader = self._only_reader(tensor)
            if reader is None:
                return None
            if reader.op_type in _LAYERS:
                return reader if reader.input[0] == tensor else None
            if not self._passes(reader, tensor, path):
                return None
            tensor = reader.output[0]

    def _only_reader(self, tensor: str) -> onnx.NodeProto | None:
        if tensor in self.view.outputs or tensor in self.view.captured:
            return None
        readers = self.view.consumers[tensor]
        return readers[0] if len(readers) == 1 else None

    def _passes(self, node: onnx.NodeProto, tensor: str, path: _Path) -> bool:
        """Whether factors per channel go through a node; notes in `path` what they meet there."""
        kind = node.op_type
        if kind == "Add":
            return self._is_bias(node, tensor, path)
        path.is_plain = False
        if kind in _HOMOGENEOUS:
            return True
        if kind == "PRelu":
            slope = self.view.array(node.input[1])
            return slope is not None and slope.size == 1
        if kind == "Clip":
            return self._clips(node, path)
        if kind in _POOLS:
            return path.repeats == 1 and path.rank > 2 and len([name for name in node.output if name]) == 1
        if kind in ("Flatten", "Reshape"):
            return self._flattens(node, path)
        return False

    def _is_bias(self, node: onnx.NodeProto, tensor: str, path: _Path) -> bool:
        """The Add behind a product that has no bias of its own."""
        other = node.input[1] if node.input[0] == tensor else node.input[0]
        if path.rank or path.bias or not path.is_plain or not self._is_row(other, path.view.channels):
            return False
        path.bias, path.bias_node, path.is_plain = other, node.name, False
        return True

    def _clips(self, node: onnx.NodeProto, path: _Path) -> bool:
        limits = []
        for position in (1, 2):
            name = node.input[position] if len(node.input) > position else ""
            value = self.view.array(name) if name else None
            if name and (value is None or value.size != 1):
                return False
            limits.append(None if value is None else float(value.reshape(-1)[0]))
        low, high = limits
        if low != 0.0 or (high is not None and not high > 0.0) or path.repeats != 1:
            return False
        if high is not None and math.isfinite(high):
            path.limits.append((node.name, path.rank))
        return True

    def _flattens(self, node: onnx.NodeProto, path: _Path) -> bool:
        """Whether a node makes one row per sample of [N, C, ...], each channel staying in one piece."""
        if path.rank < 3 or path.repeats != 1:
            return False
        before, after = self.view.shapes.get(node.input[0]), self.view.shapes.get(node.output[0])
        if before is None or after is None or len(before) < 3 or len(after) != 2:
            return False
        sizes = [size for size in before[1:] if size is not None]
        if len(sizes) != len(before) - 1 or sizes[0] != path.view.channels or after[1] != math.prod(sizes):
            return False
        path.repeats, path.rank = math.prod(sizes[1:]), 2
        return True

    # The second layer.

    def _input_view(self, node: onnx.NodeProto, path: _Path) -> ChannelView | None:
        shape = self._own_weight(node)
        if shape is None:
            return None
        name, channels = node.input[1], path.view.channels
        if node.op_type in ("Gemm", "MatMul"):
            if path.rank > 2:
                return None  # the product runs along the last spatial axis, not along the channels
            transposed = node.op_type == "Gemm" and attribute_value(node, "transB", 0)
            rows, columns = shape if transposed else shape[::-1]
            if columns != channels * path.repeats:
                return None
            if transposed:
                return ChannelView(name, (rows, channels, path.repeats), (1,))
            return ChannelView(name, (channels, path.repeats, rows), (0,))
        if path.rank < 3 or path.repeats != 1:
            return None
        groups = int(attribute_value(node, "group", 1))
        if node.op_type == "ConvTranspose":
            return ChannelView(name, shape, (0,)) if groups == 1 else None
        inner = math.prod(shape[2:])
        return ChannelView(name, (groups, shape[0] // groups, shape[1], inner), (0, 2))
