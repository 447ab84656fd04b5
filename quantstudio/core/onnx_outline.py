"""Whether a file has the outline of an ONNX model: its top-level fields, without reading into them."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

# Field numbers and wire types of protocol buffers, https://protobuf.dev/programming-guides/encoding/;
# the graph is field 7 of onnx.proto's ModelProto.
_GRAPH = 7
_LENGTH_FIRST = 2
_FIXED = {1: 8, 5: 4}  # bytes
_VARINT_BYTES = 10


def is_whole_onnx(path: Path) -> bool:
    """Whether the top-level fields fill the file to its last byte and one of them is a graph.

    A file that is cut off, empty or of another kind is told in a few reads, whatever its size.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    has_graph = False
    with path.open("rb") as handle:
        while handle.tell() < size:
            tag = _varint(handle)
            if tag is None or tag >> 3 == 0:
                return False
            length = _length(handle, tag & 7)
            if length is None or handle.tell() + length > size:
                return False
            handle.seek(length, 1)
            has_graph = has_graph or (tag >> 3 == _GRAPH and tag & 7 == _LENGTH_FIRST)
    return has_graph


def _length(handle: BinaryIO, wire_type: int) -> int | None:
    """Bytes a field still takes once its tag is read; None where that cannot be."""
    if wire_type == 0:
        return 0 if _varint(handle) is not None else None
    return _varint(handle) if wire_type == _LENGTH_FIRST else _FIXED.get(wire_type)


def _varint(handle: BinaryIO) -> int | None:
    value = 0
    for place in range(_VARINT_BYTES):
        byte = handle.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << (7 * place)
        if byte[0] < 0x80:
            return value
    return None
