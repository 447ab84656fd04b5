"""Sums a layer's output goes into beside something computed before it, as in residual networks.

What quantization did to the other part can be seen when the layer's weights are chosen, so that the sum is
what comes close to the float network's, not the layer's own output: Lin and Wan 2025, LoaQ, arXiv:2509.06297.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from quantstudio.engine.torch_graph.module import Node


@dataclass(frozen=True, slots=True, eq=False)
class Sum:
    """A node that adds something to what a layer gives.

    Attributes:
        node: The node.
        slot: Its input that holds what is added.
    """

    node: Node
    slot: int


def sums_behind(nodes: Sequence[Node], given: Mapping[str, str], before: Collection[str]) -> dict[str, Sum]:
    """The sum behind each layer whose output is read by nothing else, by layer.

    What is added must be there before the layer is computed: whichever of two summands comes later can make
    up for the error of the other.

    Args:
        nodes: The network in order of execution.
        given: What layers give, their biases added, by layer.
        before: Tensors that are there before any node; constants are not among them.
    """
    readers: dict[str, list[tuple[Node, int]]] = defaultdict(list)
    made = dict.fromkeys(before, -1)
    place = {node.name: node.index for node in nodes}
    for node in nodes:
        made.update((name, node.index) for name in node.outputs if name)
        for slot, name in enumerate(node.inputs):
            readers[name].append((node, slot))
    found = {}
    for layer, tensor in given.items():
        if len(readers[tensor]) != 1 or layer not in place:
            continue
        node, slot = readers[tensor][0]
        if node.op_type == "Add" and made.get(node.inputs[1 - slot], place[layer]) < place[layer]:
            found[layer] = Sum(node, 1 - slot)
    return found
