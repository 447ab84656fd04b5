"""Proves that a packed file runs as the unpacked one does: folded at load, the same outputs."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np
import onnx

from quantstudio.core.errors import BuildError, MeasureError
from quantstudio.core.events import CancelToken
from quantstudio.core.results import PackedFile
from quantstudio.engine.evaluation.footprint import footprint
from quantstudio.engine.graph.protos import bodies
from quantstudio.engine.graph.runtime import Feed, open_session, run

# Operators that unpack weights; none may be left that reads constants alone.
_UNPACK = frozenset(
    {"Cast", "Div", "Gather", "GatherElements", "MatMul", "Mod", "Reshape", "Slice", "Transpose"}
)


def check_folded(optimized: onnx.GraphProto, own: Container[str] | None = None) -> None:
    """Refuse a file whose weights would be unpacked on every run.

    Args:
        optimized: The graph that runs.
        own: Names of the nodes that layers were written as; others are the network's. None for all.

    Raises:
        BuildError: the runtime left an operator that reads constants alone.
    """
    left = [n for n in _unfolded(optimized, frozenset()) if own is None or n.name in own]
    if left:
        raise BuildError(
            f"the runtime does not unpack the weights at load: {len(left)} operators are left, such as "
            f"{left[0].op_type}",
            hint="Write the unpacked form",
        )


def _unfolded(graph: onnx.GraphProto, outer: frozenset[str]) -> Iterator[onnx.NodeProto]:
    constants = outer | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        names = [name for name in node.input if name]
        if node.op_type in _UNPACK and names and constants.issuperset(names):
            yield node
        for body in bodies(node):
            yield from _unfolded(body, constants)


def check_same_outputs(packed: Path, unpacked: Path, feed: Feed, cancel: CancelToken) -> None:
    """Refuse a file that does not answer exactly as its unpacked form.

    Raises:
        BuildError: an output differs in a bit.
    """
    sessions = [open_session(path, threads=1, cancel=cancel) for path in (packed, unpacked)]
    answers = [run(session, feed, cancel=cancel) for session in sessions]
    for one, other in zip(*answers, strict=True):
        if not (isinstance(one, np.ndarray) and isinstance(other, np.ndarray)):
            continue
        if one.dtype != other.dtype or not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
            raise BuildError(
                "the packed file does not answer as the unpacked one does", hint="Write the unpacked form"
            )


def measured(packed: Path, unpacked: Path, feed: Feed | None, layers: int, cancel: CancelToken) -> PackedFile:
    """What packing saves in the file and costs at load: in a fresh process each, run once.

    Args:
        packed: The file.
        unpacked: The same with a byte a weight.
        feed: What both run on; None measures sizes alone.
        layers: Layers whose weights are packed.
        cancel: Ends the processes.
    """
    sizes = PackedFile(layers, packed.stat().st_size, unpacked.stat().st_size)
    if feed is None:
        return sizes
    try:
        one, other = (
            footprint(path, feed, threads=1, probes=1, cancel=cancel) for path in (packed, unpacked)
        )
    except MeasureError:
        return sizes
    return PackedFile(
        layers=layers,
        size_bytes=sizes.size_bytes,
        unpacked_bytes=sizes.unpacked_bytes,
        load_ms=one.load_ms,
        unpacked_load_ms=other.load_ms,
        peak_memory_bytes=one.peak_memory_bytes,
        unpacked_peak_memory_bytes=other.peak_memory_bytes,
    )
