"""Model files written piece by piece: no copy of all weights in memory, and no end at 2 GiB."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from onnx import GraphProto, ModelProto, TensorProto

from quantstudio.core.files import becomes, written_beside
from quantstudio.core.weight_files import drop_unnamed
from quantstudio.engine.graph import mapped
from quantstudio.engine.graph.mapped import content_bytes, content_of, holds_mapped, point_to, weight_bytes

# Fields of ModelProto and GraphProto that hold the graph, an initializer and its bytes, as tags on the wire.
_GRAPH, _INITIALIZER, _RAW_DATA = b"\x3a", b"\x2a", b"\x4a"
# Fields that come before those in a message with its fields in order.
_BEFORE_GRAPH = frozenset(
    {"ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"}
)
_BEFORE_INITIALIZERS = frozenset({"node", "name"})
# Bytes read and written at once.
_BLOCK = 1 << 24
# Behind this in a file of weights; tensors that are no larger stay in the model file.
_EXTERNAL_FROM_BYTES = 1024
# Of the name of a file of weights: enough that two never share one.
_NAME_DIGITS = 16


@dataclass(frozen=True, slots=True)
class WrittenModel:
    """What was written.

    Attributes:
        digest: SHA-256 of the model file.
        size_bytes: Bytes of the model file and of its file of weights.
        weights: File of weights beside it; None where all are inside.
    """

    digest: str
    size_bytes: int
    weights: Path | None = None


def model_size(model: ModelProto) -> int:
    """Bytes of the file a model makes when all weights are inside, without writing it."""
    if not _is_large(model):
        return int(model.ByteSize())
    return sum(len(piece) if isinstance(piece, bytes) else content_bytes(piece) for piece in _pieces(model))


def write_model(model: ModelProto, path: Path) -> WrittenModel:
    """Write a model; weights too many for one file go into a second one, named by its content.

    Equal models give equal bytes, which are those of `SerializeToString(deterministic=True)`.

    Args:
        model: What to write; its weights may lie in other files.
        path: The model file.
    """
    if not _is_large(model):
        content = model.SerializeToString(deterministic=True)
        path.write_bytes(content)
        return WrittenModel(hashlib.sha256(content).hexdigest(), len(content))
    weights = None
    if model_size(model) > mapped.LARGEST_INLINE_BYTES:
        model, weights = _with_weights_beside(model, path.parent)
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("wb") as handle:
            for block in _blocks(model, is_whole=weights is None):
                digest.update(block)
                size += handle.write(block)
    except OSError:
        if weights is not None:
            path.unlink(missing_ok=True)
            drop_unnamed(path.parent, [weights.name])
        raise
    if weights is not None:
        size += weights.stat().st_size
    return WrittenModel(digest.hexdigest(), size, weights)


def _is_large(model: ModelProto) -> bool:
    return holds_mapped(model) or weight_bytes(model.graph) > mapped.LARGEST_INLINE_BYTES


def _with_weights_beside(model: ModelProto, folder: Path) -> tuple[ModelProto, Path]:
    """A model that names its file of weights, and that file."""
    large = [t for t in model.graph.initializer if content_bytes(t) >= _EXTERNAL_FROM_BYTES]
    path, places = write_weights(large, folder)
    slim = ModelProto()
    slim.CopyFrom(model)
    for tensor in slim.graph.initializer:
        if tensor.name in places:
            point_to(tensor, path.name, *places[tensor.name])
    return slim, path


def write_weights(
    tensors: list[TensorProto], folder: Path, name: str = "weights-{}.bin", digits: int = _NAME_DIGITS
) -> tuple[Path, dict[str, tuple[int, int]]]:
    """Write the bytes of tensors one behind the other into a file that is named by its content.

    Args:
        tensors: With names of their own.
        folder: Where to; a file of the same content there is replaced by itself.
        name: Of the file, with a place for the SHA-256 of its content.
        digits: Digits of that in the name.

    Returns:
        The file; offset and length by tensor.

    Raises:
        OutputError: the folder cannot be written.
    """
    digest, places, offset = hashlib.sha256(), {}, 0
    with written_beside(folder / name.format("new")) as temporary:
        with temporary.open("wb") as handle:
            for tensor in tensors:
                for block in _content_blocks(tensor):
                    digest.update(block)
                    handle.write(block)
                length = content_bytes(tensor)
                places[tensor.name] = (offset, length)
                offset += length
        path = folder / name.format(digest.hexdigest()[:digits])
        becomes(temporary, path)
    return path, places


def _blocks(model: ModelProto, *, is_whole: bool) -> Iterator[bytes | memoryview]:
    if not is_whole:
        yield model.SerializeToString(deterministic=True)
        return
    for piece in _pieces(model):
        if isinstance(piece, bytes):
            yield piece
        else:
            yield from _content_blocks(piece)


def _content_blocks(tensor: TensorProto) -> Iterator[memoryview]:
    content = content_of(tensor)
    for start in range(0, len(content), _BLOCK):
        yield content[start : start + _BLOCK].data


def _pieces(model: ModelProto) -> Iterator[bytes | TensorProto]:
    """A model as it is serialized, with tensors where their bytes belong."""
    yield _serialized(model, lambda name: name in _BEFORE_GRAPH)
    graph = model.graph
    head = _serialized(graph, lambda name: name in _BEFORE_INITIALIZERS)
    tail = _serialized(graph, lambda name: name not in _BEFORE_INITIALIZERS and name != "initializer")
    heads = [_tensor_head(tensor) for tensor in graph.initializer]
    length = len(head) + len(tail)
    for tensor, own in zip(graph.initializer, heads, strict=True):
        inside = len(own) + (content_bytes(tensor) if mapped.is_mapped(tensor) else 0)
        length += len(_INITIALIZER) + len(_varint(inside)) + inside
    yield _GRAPH + _varint(length) + head
    for tensor, own in zip(graph.initializer, heads, strict=True):
        if mapped.is_mapped(tensor):
            yield _INITIALIZER + _varint(len(own) + content_bytes(tensor)) + own
            yield tensor
        else:
            yield _INITIALIZER + _varint(len(own)) + own
    yield tail
    yield _serialized(model, lambda name: name not in _BEFORE_GRAPH and name != "graph")


def _tensor_head(tensor: TensorProto) -> bytes:
    """A tensor up to its bytes where those lie in a file, the whole of it else."""
    if not mapped.is_mapped(tensor):
        return bytes(tensor.SerializeToString(deterministic=True))
    bare = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return bytes(bare.SerializeToString(deterministic=True)) + _RAW_DATA + _varint(content_bytes(tensor))


def _serialized(message: ModelProto | GraphProto, wanted: Callable[[str], bool]) -> bytes:
    part = type(message)()
    for field, value in message.ListFields():
        if not wanted(field.name):
            continue
        if field.is_repeated:
            getattr(part, field.name).extend(value)
        else:
            setattr(part, field.name, value)
    return bytes(part.SerializeToString(deterministic=True))


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)
