"""The blocks of a network: what lies between tensors that carry everything, such as residual blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from quantstudio.engine.torch_graph.module import Node, TorchGraph

# Layers in a chain that are one block; a block between two cuts may have more.
_CHAINED = 3
# With more layers between two cuts than these, every layer is a block of its own.
_MOST = 8


@dataclass(frozen=True, slots=True)
class Block:
    """Some layers that are rounded together.

    Attributes:
        start: Tensors that carry everything up to here: one, or the inputs of the graph.
        inputs: Tensors the block reads; those of `start`, unless the block is one layer among others.
        output: Tensor the block writes.
        layers: Names of its layers, in order.
        is_last: Whether `output` is what the next block starts from.
    """

    start: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    layers: tuple[str, ...]
    is_last: bool = True


def find_blocks(network: TorchGraph, layers: Collection[str], known: Collection[str]) -> tuple[Block, ...]:
    """The blocks of a network that hold layers, in order.

    Args:
        network: The network.
        layers: Names of the layers that are to be rounded.
        known: Tensors a cut may be at: those the float network has, too.
    """
    blocks: list[Block] = []
    start = tuple(network.input_names)
    for part in _joined(list(_parts(network, layers, known)), layers):
        names = tuple(node.name for node in part if node.name in layers)
        output = part[-1].outputs[0]
        if names and len(names) <= _MOST:
            blocks.append(Block(start, start, output, names))
        elif names:
            each = [node for node in part if node.name in layers and node.outputs[0] in known]
            singles = [_single(start, node, network) for node in each]
            blocks.extend(singles)
            # Nothing to round: it only carries the values on to where the next block starts.
            blocks.append(Block(start, start, output, ()))
        else:
            blocks.append(Block(start, start, output, ()))
        start = (output,)
    return tuple(blocks)


def _single(start: tuple[str, ...], node: Node, network: TorchGraph) -> Block:
    made = {name for one in network.nodes for name in one.outputs} | set(network.input_names)
    inputs = tuple(dict.fromkeys(name for name in node.inputs if name in made))
    return Block(start, inputs, node.outputs[0], (node.name,), is_last=False)


def _parts(network: TorchGraph, layers: Collection[str], known: Collection[str]) -> Iterator[list[Node]]:
    """The nodes between tensors that alone carry everything, each part up to where the next layer begins."""
    cuts = _cuts(network, known)
    part: list[Node] = []
    nodes = network.nodes
    for position, node in enumerate(nodes):
        part.append(node)
        is_end = position == len(nodes) - 1
        # Behind a layer come operators that belong to it: the cut is right before the next layer.
        begins = not is_end and (position + 1 not in cuts or nodes[position + 1].name in layers)
        if is_end or (position in cuts and begins and any(one.name in layers for one in part)):
            yield part
            part = []


def _joined(parts: list[list[Node]], layers: Collection[str]) -> Iterator[list[Node]]:
    """Parts of a single layer joined with their neighbours to blocks of a few."""
    block: list[Node] = []
    count = 0
    for part in parts:
        here = sum(node.name in layers for node in part)
        if block and count + here > _CHAINED:
            yield block
            block, count = [], 0
        block, count = block + part, count + here
    if block:
        yield block


def _cuts(network: TorchGraph, known: Collection[str]) -> set[int]:
    """Positions behind which one tensor, the output of the node there, is all that is read later."""
    nodes: Sequence[Node] = network.nodes
    last: dict[str, int] = {}
    for position, node in enumerate(nodes):
        for name in node.inputs:
            if name:
                last[name] = position
    for name in network.output_names:
        last[name] = len(nodes)
    inputs = set(network.input_names)
    alive = {name for name in inputs if name in last}
    cuts = set()
    for position, node in enumerate(nodes):
        alive |= {name for name in node.outputs if name and name in last}
        alive = {name for name in alive if last[name] > position}
        if alive == {node.outputs[0]} and node.outputs[0] in known:
            cuts.add(position)
    return cuts
