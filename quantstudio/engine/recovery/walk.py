"""One walk through a network on two paths at once: as it is, and as it will be quantized.

Every tensor is a list of chunks of samples. A node is computed chunk by chunk, and each chunk of an input is
dropped as soon as its last reader has seen it, so that about two tensors a path are held at a time, however
deep the network is. What is the same on both paths is computed and held once; what is large is packed while
it waits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from quantstudio.core.events import CancelToken
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.view import GraphView
from quantstudio.engine.quantization.activations import ActivationParams
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.recovery.held import LARGE_BYTES, Held, bytes_of, give_back, packed, read
from quantstudio.engine.torch_graph.module import Node, TorchGraph

Tensor = torch.Tensor
Value = Tensor | None

# Samples of a chunk, and bytes the largest tensor of one may take.
_SAMPLES, _CHUNK_BYTES = 32, 32 * 2**20


def samples_at_once(graph: Graph) -> int:
    """Samples of a chunk: fewer where a sample's tensors are large."""
    return max(1, min(_SAMPLES, _CHUNK_BYTES // (4 * max(sample_sizes(graph), default=1))))


def sample_sizes(graph: Graph) -> list[int]:
    """Numbers each computed tensor holds of one sample, at least one; dimensions nobody knows count once."""
    view = GraphView(graph.proto)
    shapes = (shape for name, shape in view.shapes.items() if name in view.producer)
    return [max(1, math.prod(size for size in shape[1:] if size is not None)) for shape in shapes]


@dataclass(slots=True, eq=False)
class Chunk:
    """What is alive of some samples; a tensor that is the same on both paths is the same object in both."""

    real: dict[str, Held] = field(default_factory=dict)
    quantized: dict[str, Held] = field(default_factory=dict)

    def both(self, name: str) -> tuple[Tensor, Tensor]:
        """A tensor on the float path, and on the quantized one; one object where they agree."""
        held, other = self.real[name], self.quantized[name]
        real = read(held)
        quantized = real if other is held else read(other)
        assert real is not None
        assert quantized is not None
        return real, quantized

    def drop(self, name: str) -> None:
        """Forget a tensor."""
        self.real.pop(name, None)
        self.quantized.pop(name, None)

    @property
    def held_bytes(self) -> int:
        """Bytes of all that is alive."""
        alive = {id(one): one for one in (*self.real.values(), *self.quantized.values())}
        return sum(map(bytes_of, alive.values()))


class TwoPathWalk:
    """The walk.

    Args:
        fake: The network, and what its plan does to the tensors between layers. What nodes with bodies do
            inside is left as it is, on both paths.
        feeds: Samples, a chunk each.
        cancel: Looked at before every chunk of every node.

    Attributes:
        chunks: The samples.
        replaced: What the quantized path reads in place of a weight, by node and slot: at first what rounding
            makes of it.
        shifts: What a tensor of the quantized path is raised by before it is rounded, by name; to be given
            while its node is computed.
    """

    def __init__(
        self, fake: FakeQuantized, feeds: Sequence[Mapping[str, Tensor]], cancel: CancelToken
    ) -> None:
        self._fake = fake
        self._network = fake.network
        for module in self._network.modules():
            if isinstance(module, TorchGraph):
                module.hooks.clear()
        self._cancel = cancel
        made = {name for node in self.nodes for name in node.outputs}.union(self._network.input_names)
        self._constants = {name for node in self.nodes for name in node.inputs if name} - made
        self._freed = _freed_after(self.nodes)
        self.chunks = [Chunk(dict(feed), dict(feed)) for feed in feeds]
        device = self._network.device
        self.replaced = {slot: weight.to(device) for slot, weight in fake.weights.items()}
        self.shifts: dict[str, Tensor] = {}
        self._packed_bytes = 0

    @property
    def nodes(self) -> tuple[Node, ...]:
        """In order of execution."""
        return self._network.nodes

    def inputs(self, node: Node, chunk: Chunk) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
        """What a node reads on the float path, and on the quantized one."""
        real, quantized = [], []
        for slot, name in enumerate(node.inputs):
            first, second = self._pair(name, chunk)
            own = self.replaced.get((node.name, slot))
            if own is None and second is not None:
                own = self._fake.read(node.name, slot, second)
            real.append(first)
            quantized.append(own)
        return tuple(real), tuple(quantized)

    def read(self, node: Node, slot: int, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """One input of a node on the float path, and on the quantized one; one object where they agree."""
        name = node.inputs[slot]
        real, quantized = chunk.both(name)
        return real, self._fake.read(node.name, slot, quantized)

    def _pair(self, name: str, chunk: Chunk) -> tuple[Value, Value]:
        """A tensor on both paths; one object where they agree."""
        if not name:
            return None, None
        if name in self._constants:
            constant = self._network.initializer(name)
            return constant, constant
        held, other = chunk.real[name], chunk.quantized[name]
        real = read(held)
        return real, real if other is held else read(other)

    def step(self, node: Node, *, waits: bool = False) -> Iterator[Chunk]:
        """Compute a node on both paths, chunk by chunk, and drop what nobody reads any more.

        Each chunk is given out when its outputs are there, before they are rounded to the plan's grids.

        Args:
            node: The node.
            waits: Whether `shifts` of its outputs may come with the last chunk: all are rounded behind it.
        """
        place = self._fake.rounding.get(node.name)
        is_own = (place is not None and bool(place.reads or place.dynamic)) or any(
            (node.name, slot) in self.replaced for slot in range(len(node.inputs))
        )
        for chunk in self.chunks:
            self._cancel.raise_if_set()
            real, quantized = self.inputs(node, chunk)
            is_same = not is_own and all(a is b for a, b in zip(real, quantized, strict=True))
            first = _named(node, node.compute(*real))
            second = first if is_same else _named(node, node.compute(*quantized))
            chunk.real.update(first)
            chunk.quantized.update(second)
            del real, quantized, first, second
            for name in self._freed[node.index]:
                if name not in node.outputs:
                    chunk.drop(name)
            yield chunk
            self._put(node, chunk, is_rounded=not waits)
        if waits:
            for chunk in self.chunks:
                self._put(node, chunk, is_rounded=True)

    def _put(self, node: Node, chunk: Chunk, *, is_rounded: bool) -> None:
        """Leave outputs of a node waiting for those who read them, the quantized ones on the plan's grid."""
        for position, name in enumerate(node.outputs):
            if name in self._freed[node.index]:
                chunk.drop(name)
                continue
            if chunk.real.get(name) is None:
                continue
            real, quantized = chunk.real[name], chunk.quantized[name]
            params, shift = self._fake.params(node.name, position), self.shifts.get(name)
            chunk.real[name] = self._waiting(real)
            if is_rounded and not (params is None and shift is None):
                value = read(quantized)
                assert value is not None
                value = value if shift is None else value + shift.to(value)
                written = self._fake.written(node.name, position, value)
                chunk.quantized[name] = self._waiting(written, params)
            else:
                chunk.quantized[name] = chunk.real[name] if quantized is real else self._waiting(quantized)

    def _waiting(self, value: Held, params: ActivationParams | None = None) -> Held:
        if not isinstance(value, torch.Tensor) or value.nbytes * len(self.chunks) <= LARGE_BYTES:
            return value
        self._packed_bytes += value.nbytes
        if self._packed_bytes > LARGE_BYTES:
            self._packed_bytes = 0
            give_back()
        return packed(value, params)


def _named(node: Node, result: Tensor | tuple[Tensor, ...]) -> dict[str, Value]:
    values = (result,) if isinstance(result, torch.Tensor) else result
    return {name: value for name, value in zip(node.outputs, values, strict=False) if name}


def _freed_after(nodes: Sequence[Node]) -> list[tuple[str, ...]]:
    """Tensors nobody reads after each node."""
    last: dict[str, int] = {}
    for node in nodes:
        for name in (*node.outputs, *node.inputs):
            if name:
                last[name] = node.index
    freed: list[list[str]] = [[] for _ in nodes]
    for name, index in last.items():
        freed[index].append(name)
    return [tuple(names) for names in freed]
