"""Weights that stay in a file: a constant of which the model holds the place, read where it is used.

Protocol buffers end at 2 GiB, and a copy of all weights costs their memory each time. Large models hold the
path, offset and length of the bytes of each large constant (ONNX's external data, with the whole path as its
location); `protos.as_array` maps them for as long as the array lives. Constants made on the way go into a
file of their own while `constants_in_file` is open.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto

from quantstudio.core.files import scratch_beside

# Protocol buffers end at 2 GiB; the rest is room for the graph itself.
LARGEST_INLINE_BYTES = 1_900_000_000
# Smaller ones are in the model whatever its size: shape inference reads their values.
SMALLEST_MAPPED_BYTES = 1 << 16


def is_mapped(tensor: TensorProto) -> bool:
    """Whether the model holds the place of the tensor's bytes, not the bytes."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def holds_mapped(model: ModelProto) -> bool:
    """Whether weights of a model stay in a file: whatever is made of it must not gather them in memory."""
    return any(map(is_mapped, model.graph.initializer))


def point_to(tensor: TensorProto, path: Path | str, offset: int, length: int) -> None:
    """Make a tensor one whose bytes lie in a file, at a place."""
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    for key, value in (("location", path), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    tensor.data_location = TensorProto.EXTERNAL


def place_of(tensor: TensorProto) -> tuple[Path, int, int]:
    """File, offset and length of a mapped tensor's bytes."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return Path(entries["location"]), int(entries["offset"]), int(entries["length"])


def content_of(tensor: TensorProto) -> NDArray[np.uint8]:
    """The tensor's raw bytes, read-only; those in a file are mapped, not read."""
    if not is_mapped(tensor):
        return np.frombuffer(tensor.raw_data, np.uint8)
    path, offset, length = place_of(tensor)
    return np.asarray(np.memmap(path, np.uint8, "r", offset, (length,)))


def content_bytes(tensor: TensorProto) -> int:
    """How many raw bytes the tensor has, in the model or in a file."""
    return place_of(tensor)[2] if is_mapped(tensor) else len(tensor.raw_data)


def weight_bytes(graph: GraphProto) -> int:
    """Raw bytes of all initializers of a graph without its bodies."""
    return sum(map(content_bytes, graph.initializer))


class _ConstantsFile:
    """A file that takes over constants as they are made."""

    def __init__(self, path: Path, handle: BinaryIO) -> None:
        self._path, self._handle, self._end = path, handle, 0

    def take(self, tensor: TensorProto) -> None:
        length = len(tensor.raw_data)
        if length >= SMALLEST_MAPPED_BYTES:
            self._handle.write(tensor.raw_data)
            point_to(tensor, self._path, self._end, length)
            self._end += length


_open_file: ContextVar[_ConstantsFile | None] = ContextVar("constants file", default=None)


@contextmanager
def constants_in_file(folder: Path, *, if_any: bool = True) -> Iterator[None]:
    """Keep large constants that are made inside the block in a file, which ends with it.

    Args:
        folder: Where there is room for them.
        if_any: False for a block like any other: models that are not large stay in memory.
    """
    if not if_any:
        yield
        return
    with scratch_beside(folder / "constants.bin") as path, path.open("wb", buffering=0) as handle:
        token = _open_file.set(_ConstantsFile(path, handle))
        try:
            yield
        finally:
            _open_file.reset(token)


def kept(tensor: TensorProto) -> TensorProto:
    """A constant that was just made; its bytes are in a file where `constants_in_file` is open."""
    file = _open_file.get()
    if file is not None:
        file.take(tensor)
    return tensor
