"""Ranges of activations that training chose, written at the nodes that make them.

A range is learned together with the weights, so it is a part of the trained graph and not of the statistics
that anybody may collect of it afterwards. It holds for one number of bits: at another the statistics decide.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

_PREFIX = "quantstudio.range:"

Range = tuple[float, float]


def mark_range(node: onnx.NodeProto, tensor: str, bits: int, limits: Range) -> None:
    """Say which range a tensor has on the grid of so many bits, in place of what was said before.

    Args:
        node: The node that writes the tensor.
        tensor: Its name.
        bits: Bits of the grid.
        limits: Low and high end.
    """
    key = f"{_PREFIX}{bits}:{tensor}"
    kept = [(entry.key, entry.value) for entry in node.metadata_props if entry.key != key]
    del node.metadata_props[:]
    for name, value in (*kept, (key, f"{limits[0]!r} {limits[1]!r}")):
        node.metadata_props.add(key=name, value=value)


def learned_ranges(nodes: Iterable[onnx.NodeProto]) -> dict[tuple[str, int], Range]:
    """Every range that was said, by tensor and bits."""
    found: dict[tuple[str, int], Range] = {}
    for node in nodes:
        for entry in node.metadata_props:
            if entry.key.startswith(_PREFIX):
                bits, _, tensor = entry.key.removeprefix(_PREFIX).partition(":")
                low, _, high = entry.value.partition(" ")
                found[tensor, int(bits)] = float(low), float(high)
    return found
