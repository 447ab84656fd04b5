"""One walk through a network on two paths at once: as it is, and as it will be quantized.

Every tensor is a list of chunks of samples. A node is computed chunk by chunk, and each chunk of an input is
dropped as soon as its last reader has seen it, so that about two tensors a path are held at a time, however
deep the network is. What is the same on both paths is computed and held once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from quantstudio.core.events import CancelToken
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.torch_graph.module import Node, TorchGraph

Tensor = torch.Tensor
Value = Tensor | None


@dataclass(slots=True, eq=False)
class Chunk:
    """What is alive of some samples; a tensor that is the same on both paths is the same object in both."""

    real: dict[str, Value] = field(default_factory=dict)
    quantized: dict[str, Value] = field(default_factory=dict)

    def both(self, name: str) -> tuple[Tensor, Tensor]:
        """A tensor on the float path, and on the quantized one."""
        real, quantized = self.real[name], self.quantized[name]
        assert real is not None
        assert quantized is not None
        return real, quantized


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

    @property
    def nodes(self) -> tuple[Node, ...]:
        """In order of execution."""
        return self._network.nodes

    def inputs(self, node: Node, chunk: Chunk) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
        """What a node reads on the float path, and on the quantized one."""
        real = tuple(self._value(name, chunk.real) for name in node.inputs)
        quantized = []
        for slot, name in enumerate(node.inputs):
            value = self.replaced.get((node.name, slot))
            if value is None and name:
                value = self._value(name, chunk.quantized)
                value = value if value is None else self._fake.read(node.name, slot, value)
            quantized.append(value)
        return real, tuple(quantized)

    def read(self, node: Node, slot: int, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """One input of a node on the float path, and on the quantized one; one object where they agree."""
        name = node.inputs[slot]
        real, quantized = chunk.both(name)
        return real, self._fake.read(node.name, slot, quantized)

    def _value(self, name: str, values: Mapping[str, Value]) -> Value:
        if not name:
            return None
        return self._network.initializer(name) if name in self._constants else values[name]

    def step(self, node: Node) -> Iterator[Chunk]:
        """Compute a node on both paths, chunk by chunk, and drop what nobody reads any more.

        Each chunk is given out when its outputs are there, before they are rounded to the plan's grids: what
        is done to them then is what the nodes behind read. The rounding follows when the walk goes on.
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
                    chunk.real.pop(name, None)
                    chunk.quantized.pop(name, None)
            yield chunk
        for chunk in self.chunks:
            for position, name in enumerate(node.outputs):
                if name in self._freed[node.index]:
                    chunk.real.pop(name, None)
                    chunk.quantized.pop(name, None)
                    continue
                value = chunk.quantized.get(name) if name else None
                if value is not None:
                    chunk.quantized[name] = self._fake.written(node.name, position, value)


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
