"""The residual stream of a transformer: every tensor whose last axis can turn together, and what turns it.

From the input of a normalisation the stream is followed both ways. Writers and readers are products with
constant weights; a normalisation's gain moves into what reads it, so that its output can turn as well. The
matrix keeps the vector of ones: means over the last axis stay what they are, and layer normalisation needs no
other form.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from quantstudio.core.errors import UnsupportedOpError
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import attribute_value
from quantstudio.engine.graph.view import GraphView, Index, index

FloatArray = NDArray[np.float64]

_NORMS = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})
_MEANS = frozenset({"ReduceMean", "ReduceSum"})
# These leave the last axis alone where it has the same length afterwards.
_SHAPING = frozenset({"Identity", "Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Expand"})
# A bias over gains next to zero would be larger than all else.
_LARGEST_RATIO = 1e3


@dataclass(frozen=True, slots=True)
class Turn:
    """What becomes of one constant.

    Attributes:
        name: The initializer.
        axis: Axis that turns.
        gain: What it is multiplied with along that axis before, shape [C]; None for ones.
        is_gain: Whether it is a gain itself, and becomes ones.
    """

    name: str
    axis: int
    gain: FloatArray | None = None
    is_gain: bool = False

    def of(self, value: FloatArray, matrix: FloatArray) -> FloatArray:
        """The constant for a stream that is multiplied with a matrix [C, C] from the right."""
        if self.is_gain:
            return np.ones_like(value)
        rows = np.moveaxis(value, self.axis, -1)
        rows = rows if self.gain is None else rows * self.gain
        return np.moveaxis(rows @ matrix, -1, self.axis)


@dataclass(slots=True)
class Stream:
    """One stream.

    Attributes:
        width: Length of its last axis.
        gains: By tensor, what its channels are multiplied with in comparison with the turned tensor.
        turns: Constants to change, by name and axis.
        norms: Normalisations on it.
        readers: Layers that read it.
        writers: Layers that write it.
    """

    width: int
    gains: dict[str, FloatArray | None] = field(default_factory=dict)
    turns: dict[tuple[str, int], Turn] = field(default_factory=dict)
    norms: int = 0
    readers: list[str] = field(default_factory=list)
    writers: list[str] = field(default_factory=list)


def find_streams(graph: Graph) -> tuple[tuple[Stream, ...], str]:
    """Every residual stream that can turn, and why another one cannot; empty where none is left."""
    finder = _Finder(graph)
    seen: set[str] = set()
    found, reason = [], ""
    for tensor, width in finder.seeds():
        if tensor in seen:
            continue
        walk = _Walk(finder.view, finder.uses, Stream(width))
        try:
            walk.go(tensor)
        except UnsupportedOpError as error:
            reason = reason or error.what
        else:
            if walk.stream.readers and walk.stream.writers:
                found.append(walk.stream)
        seen.update(walk.stream.gains)
    return tuple(found), reason


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.view = GraphView(graph.proto)
        self.uses = index(graph.proto.graph)

    def seeds(self) -> Iterator[tuple[str, int]]:
        """What normalisations read, written as one node or as several."""
        for node in self.view.nodes:
            name = ""
            if node.op_type in _NORMS or (
                _is_square(node, self.view)
                and any(reader.op_type in _MEANS for reader in self.view.consumers[node.output[0]])
            ):
                name = node.input[0]
            shape = self.view.shapes.get(name)
            if name and shape and isinstance(shape[-1], int):
                yield name, shape[-1]


def _is_square(node: onnx.NodeProto, view: GraphView) -> bool:
    if node.op_type == "Mul":
        return bool(node.input[0] == node.input[1])
    if node.op_type != "Pow":
        return False
    power = view.array(node.input[1])
    return power is not None and power.size == 1 and float(power.reshape(-1)[0]) == 2.0


class _Walk:
    """Follows one stream to all its ends.

    Raises:
        UnsupportedOpError: from `go`, where something on the stream cannot turn.
    """

    def __init__(self, view: GraphView, uses: Index, stream: Stream) -> None:
        self.view = view
        self.uses = uses
        self.stream = stream
        self.left: list[str] = []
        self.reads: dict[str, set[str]] = defaultdict(set)
        self.done: set[tuple[str, bool]] = set()

    def go(self, tensor: str) -> None:
        self._join(tensor, None)
        while self.left:
            name = self.left.pop()
            if name in self.view.outputs or name in self.view.captured:
                raise _refused(f"the residual stream is an output of the network ({name})")
            gain = self.stream.gains[name]
            maker = self.view.producer.get(name)
            if maker is None:
                raise _refused(f"the residual stream starts at input {name!r} of the network")
            if self._is_new(maker, is_read=False):
                self._made(maker, name, gain)
            for node in {one.name: one for one in self.view.consumers[name]}.values():
                if self._is_new(node, is_read=True):
                    self._read(node, name, gain)
        self._check_own()

    def _is_new(self, node: onnx.NodeProto, *, is_read: bool) -> bool:
        """Whether a node is met for the first time; products are met on either side by themselves."""
        key = node.name, is_read and node.op_type in ("MatMul", "Gemm")
        if key in self.done:
            return False
        self.done.add(key)
        return True

    def _join(self, tensor: str, gain: FloatArray | None) -> None:
        if tensor in self.stream.gains:
            if self.stream.gains[tensor] is not gain:
                raise _refused(f"{tensor} is read with and without the gain of a normalisation")
            return
        if self._last(tensor) != self.stream.width:
            raise _refused(f"{tensor} does not keep the width of the residual stream")
        self.stream.gains[tensor] = gain
        self.left.append(tensor)

    def _last(self, tensor: str) -> int | None:
        shape = self.view.shapes.get(tensor)
        return shape[-1] if shape else 1 if shape is not None else None

    # What makes a tensor of the stream.

    def _made(self, node: onnx.NodeProto, tensor: str, gain: FloatArray | None) -> None:
        if gain is not None:
            raise _refused(f"{node.name} ({node.op_type}) gives what other than products read")
        if node.op_type in ("MatMul", "Gemm"):
            self._writer(node)
        elif node.op_type in ("Add", "Sub", "Mul", "Div"):
            self._elementwise(node, None)
        elif node.op_type == "Gather" and self.view.is_constant(node.input[0]):
            if attribute_value(node, "axis", 0) != 0:
                raise _refused(f"{node.name} gathers along the width of the residual stream")
            self._turn(node, node.input[0], -1)
        elif node.op_type in _SHAPING and self._last(node.input[0]) == self.stream.width:
            self._shaping(node, None)
        elif node.op_type == "Concat":
            self._concat(node, None)
        else:
            self._convolution(tensor)

    def _writer(self, node: onnx.NodeProto) -> None:
        is_turned = node.op_type == "Gemm" and attribute_value(node, "transB", 0)
        self._turn(node, node.input[1], 0 if is_turned else -1)
        if len(node.input) > 2 and node.input[2]:
            self._turn(node, node.input[2], -1)
        self.stream.writers.append(node.name)

    def _convolution(self, tensor: str) -> None:
        """Patches: a convolution whose channels have been moved to the last axis."""
        shape = self.view.shapes.get(tensor)
        axis, start = len(shape or ()) - 1, tensor
        while tensor == start or len(self.view.consumers[tensor]) == 1:
            node = self.view.producer.get(tensor)
            if node is None:
                break
            before = self.view.shapes.get(node.input[0]) if node.input else None
            if node.op_type == "Conv" and axis == 1 and attribute_value(node, "group", 1) == 1:
                for position in range(1, len(node.input)):
                    if node.input[position]:
                        self._turn(node, node.input[position], 0)
                self.stream.writers.append(node.name)
                return
            if node.op_type == "Transpose" and before is not None:
                default = list(range(len(before)))[::-1]
                axis = int(list(attribute_value(node, "perm", default))[axis])
            elif node.op_type in ("Reshape", "Flatten") and before and len(before) > 1 and axis == 1:
                if before[1] != self.stream.width:
                    break
            else:
                break
            tensor = node.input[0]
        raise _refused(f"{start} writes the residual stream and cannot turn")

    # What reads one.

    def _read(self, node: onnx.NodeProto, tensor: str, gain: FloatArray | None) -> None:
        kind = node.op_type
        if kind in _NORMS and node.input[0] == tensor:
            self._norm(node, gain)
        elif kind in ("MatMul", "Gemm"):
            self._reader(node, tensor, gain)
        elif _is_square(node, self.view):
            readers = self.view.consumers[node.output[0]]
            if gain is not None or any(not self._is_over_last(one) for one in readers):
                raise _refused(f"{node.name} squares the residual stream channel by channel")
        elif kind in ("Add", "Sub", "Mul", "Div"):
            self._elementwise(node, gain)
        elif kind in _MEANS:
            self._mean(node, gain)
        elif kind == "Transpose" or kind in _SHAPING:
            self._shaping(node, gain)
        elif kind == "Concat":
            self._concat(node, gain)
        elif kind != "Shape":
            raise _refused(f"{node.name} ({kind}) reads the residual stream and cannot turn")

    def _reader(self, node: onnx.NodeProto, tensor: str, gain: FloatArray | None) -> None:
        if node.input[0] != tensor or (node.op_type == "Gemm" and attribute_value(node, "transA", 0)):
            raise _refused(f"{node.name} multiplies the residual stream with an activation")
        weight = self.view.array(node.input[1])
        if weight is None or weight.ndim != 2:
            raise _refused(f"{node.name} multiplies the residual stream with an activation")
        is_turned = node.op_type == "Gemm" and attribute_value(node, "transB", 0)
        self._turn(node, node.input[1], -1 if is_turned else 0, gain=gain)
        self.stream.readers.append(node.name)

    def _norm(self, node: onnx.NodeProto, gain: FloatArray | None) -> None:
        shape = self.view.shapes.get(node.input[0])
        axis = int(attribute_value(node, "axis", -1))
        if gain is not None or not shape or axis not in (-1, len(shape) - 1) or len(node.output) > 1:
            raise _refused(f"{node.name} ({node.op_type}) normalises more than the width of the stream")
        own = self._gain(node, node.input[1])
        if len(node.input) > 2 and node.input[2]:
            self._turn(node, node.input[2], -1, gain=self._inverse(own, node.input[2]))
        self.stream.norms += 1
        self._join(node.output[0], own)

    def _gain(self, node: onnx.NodeProto, name: str) -> FloatArray:
        value = self.view.array(name)
        if value is None or value.size != self.stream.width:
            raise _refused(f"the gain {name} of a normalisation is not one constant per channel")
        self._set(node, Turn(name, -1, is_gain=True))
        return value.reshape(-1).astype(np.float64)

    def _inverse(self, gain: FloatArray | None, name: str) -> FloatArray | None:
        """What a bias behind a gain is multiplied with, so that the gain can be moved behind it."""
        if gain is None:
            return None
        value = np.abs(np.asarray(self.view.array(name), dtype=np.float64).reshape(-1, self.stream.width))
        smallest = np.abs(gain).min()
        if smallest == 0 or (value.max(axis=0) / np.abs(gain)).max() > _LARGEST_RATIO * max(value.max(), 1.0):
            raise _refused("a gain of a normalisation is next to zero")
        return np.asarray(1 / gain)

    def _elementwise(self, node: onnx.NodeProto, gain: FloatArray | None) -> None:
        is_sum = node.op_type in ("Add", "Sub")
        for name in node.input:
            if name in self.stream.gains:
                continue
            last = self._last(name)
            if last == 1:
                if gain is not None and is_sum:
                    raise _refused(f"{node.name} adds to what a normalisation gives")
            elif not is_sum:
                if not self.view.is_constant(name) or node.op_type == "Div" or gain is not None:
                    raise _refused(f"{node.name} ({node.op_type}) multiplies channel by channel")
                self.stream.norms += 1
                self._join(next(one for one in node.input if one != name), None)
                self._join(node.output[0], self._gain(node, name))
                return
            elif self.view.is_constant(name):
                self._turn(node, name, -1, gain=self._inverse(gain, name))
            elif gain is not None:
                raise _refused(f"{node.name} adds to what a normalisation gives")
            else:
                self._join(name, None)
        self._join(node.output[0], gain)

    def _mean(self, node: onnx.NodeProto, gain: FloatArray | None) -> None:
        if self._is_over_last(node):
            if gain is not None:
                raise _refused(f"{node.name} takes the mean of what a normalisation gives")
            return
        self._join(node.output[0], gain)

    def _is_over_last(self, node: onnx.NodeProto) -> bool:
        """Whether a mean is over the last axis alone."""
        if node.op_type not in _MEANS:
            return False
        given = self.view.array(node.input[1]) if len(node.input) > 1 else None
        axes = given.reshape(-1).tolist() if given is not None else list(attribute_value(node, "axes", []))
        shape = self.view.shapes.get(node.input[0])
        rank = len(shape) if shape else 0
        last = [int(axis) in (-1, rank - 1) for axis in axes]
        if not axes or (any(last) and len(axes) > 1):
            raise _refused(f"{node.name} ({node.op_type}) joins the width of the stream with other axes")
        return all(last)

    def _shaping(self, node: onnx.NodeProto, gain: FloatArray | None) -> None:
        shape = self.view.shapes.get(node.input[0]) or ()
        if node.op_type == "Transpose":
            perm = list(attribute_value(node, "perm", list(range(len(shape)))[::-1]))
            if perm[-1] != len(perm) - 1:
                raise _refused(f"{node.name} moves the width of the residual stream")
        elif node.op_type == "Gather" and attribute_value(node, "axis", 0) in (-1, len(shape) - 1):
            raise _refused(f"{node.name} gathers along the width of the residual stream")
        if self.view.is_constant(node.input[0]):
            self._turn(node, node.input[0], -1)
        else:
            self._join(node.input[0], gain)
        self._join(node.output[0], gain)

    def _concat(self, node: onnx.NodeProto, gain: FloatArray | None) -> None:
        for name in node.input:
            if self.view.is_constant(name):
                self._turn(node, name, -1, gain=self._inverse(gain, name))
            else:
                self._join(name, gain)
        self._join(node.output[0], gain)

    # Constants.

    def _turn(self, node: onnx.NodeProto, name: str, axis: int, *, gain: FloatArray | None = None) -> None:
        value = self.view.array(name)
        if value is None or value.dtype != np.float32:
            raise _refused(f"{name} on the residual stream is not a constant")
        if value.shape[axis] != self.stream.width:
            raise _refused(f"{name} does not have the width of the residual stream")
        self._set(node, Turn(name, axis % value.ndim, gain))

    def _set(self, node: onnx.NodeProto, turn: Turn) -> None:
        # A product may read the stream and write it: its weight turns along both axes.
        key = turn.name, turn.axis
        before = self.stream.turns.get(key)
        if before is not None and not (before.is_gain and turn.is_gain):
            raise _refused(f"{turn.name} is read more than once")
        self.stream.turns[key] = turn
        self.reads[turn.name].add(node.name)

    def _check_own(self) -> None:
        """Whether nobody else reads what changes."""
        for name, readers in self.reads.items():
            if self.uses.uses(name) != len(readers):
                raise _refused(f"{name} is read by what is not on the residual stream, too")


def _refused(what: str) -> UnsupportedOpError:
    return UnsupportedOpError(what)
