"""A model file into a parsed ONNX model with its weights, or one clear error."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from quantstudio.core.errors import ModelLoadError
from quantstudio.core.files import file_digest
from quantstudio.engine.graph import mapped
from quantstudio.engine.graph.protos import all_graphs, tensor_bytes

_AGAIN = "Copy it again, or get it again from its source"
_DAMAGED = "The model file is damaged; copy it again"
# No file has more bytes than a number of so many digits.
_MOST_DIGITS = 18
_FORMATS = "Give an ONNX file, a .pt2 or TorchScript program, or module:factory"


class ModelKind(StrEnum):
    """What a model file is, by its content."""

    ONNX = "ONNX model"
    EXPORTED_PROGRAM = "torch.export program"
    TORCHSCRIPT = "TorchScript program"
    WEIGHTS = "weights without a network"


def kind_of(path: Path) -> ModelKind:
    """What the file is; looks at its first bytes and, in archives, at the names inside.

    Raises:
        ModelLoadError: missing, empty, a folder, unreadable, or clearly something else.
    """
    head = _head(path)
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_archive(path)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return ModelKind.WEIGHTS
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return ModelKind.WEIGHTS
    if _is_text(head):
        raise ModelLoadError("this is a text file, not a model", where=str(path), hint=_FORMATS)
    return ModelKind.ONNX


def _head(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ModelLoadError("this is a folder, not a model file", where=str(path), hint=_FORMATS)
        if not path.is_file():
            what = "not a regular file" if path.exists() else "no such file"
            raise ModelLoadError(what, where=str(path), hint="Check the path")
        with path.open("rb") as handle:
            head = handle.read(4096)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ModelLoadError(
            f"cannot read the file ({reason})", where=str(path), hint="Check its permissions"
        ) from error
    if not head:
        raise ModelLoadError("the file is empty", where=str(path), hint=_AGAIN)
    return head


def _kind_of_archive(path: Path) -> ModelKind:
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
    except (BadZipFile, OSError, ValueError) as error:
        raise ModelLoadError("the archive is truncated or damaged", where=str(path), hint=_AGAIN) from error
    parts = [name.split("/") for name in names]
    if any("code" in part[:-1] for part in parts) and any(part[-1] == "data.pkl" for part in parts):
        return ModelKind.TORCHSCRIPT
    if any(part[-1] in ("archive_format", "serialized_exported_program.json") for part in parts) or any(
        "models" in part[:-1] and part[-1].endswith(".json") for part in parts
    ):
        return ModelKind.EXPORTED_PROGRAM
    if any(part[-1] == "data.pkl" for part in parts):
        return ModelKind.WEIGHTS
    raise ModelLoadError("this archive holds no model", where=str(path), hint=_FORMATS)


def _is_text(head: bytes) -> bool:
    """Printable throughout: protocol buffers always carry small control bytes as tags and lengths."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\r\n\t\f" for character in text)


def read_onnx(path: Path) -> ModelProto:
    """Parse an ONNX file; external data stays where it is (see `load_external`).

    Raises:
        ModelLoadError: not ONNX, or truncated.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelLoadError(
            f"cannot read the file ({(error.strerror or str(error)).lower()})",
            where=str(path),
            hint="Check its permissions",
        ) from error
    return parse(content, str(path))


def load_external(model: ModelProto, path: Path) -> None:
    """Bring external data into the model, in place; where it is too much for one, large weights stay mapped.

    Raises:
        ModelLoadError: a data file is missing, too short or outside the model's folder.
    """
    found = list(_external(model))
    is_large = sum(_float_bytes(tensor) for _scope, tensor in found) > mapped.LARGEST_INLINE_BYTES
    for scope, tensor in found:
        stays = is_large and not scope and tensor_bytes(tensor) >= mapped.SMALLEST_MAPPED_BYTES
        _load_external(tensor, path, stays=stays)


def _float_bytes(tensor: TensorProto) -> int:
    """Bytes of a tensor once what is narrower than float32 has become that."""
    is_half = tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return (2 if is_half else 1) * tensor_bytes(tensor)


def parse(content: bytes, where: str) -> ModelProto:
    """Parse the bytes of an ONNX model without its external data.

    Raises:
        ModelLoadError: they are not a whole ONNX model.
    """
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise ModelLoadError(
            "this is not a whole ONNX file; it is truncated, damaged or of another kind",
            where=where,
            hint=f"{_AGAIN}. {_FORMATS}",
        ) from error
    if not model.HasField("graph") or not model.opset_import or model.ir_version < 1:
        raise ModelLoadError("the file holds no ONNX graph", where=where, hint=_FORMATS)
    return model


def external_tensors(model: ModelProto) -> list[TensorProto]:
    """Tensors whose data lies in other files."""
    return [tensor for _scope, tensor in _external(model)]


def _external(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Each of them with the scope it is in, empty for the main graph."""
    for scope, graph in all_graphs(model.graph):
        yield from ((scope, tensor) for tensor in graph.initializer if uses_external_data(tensor))
        for node in graph.node:
            for attribute in node.attribute:
                for tensor in (attribute.t, *attribute.tensors):
                    if tensor.data_location == TensorProto.EXTERNAL:
                        yield scope, tensor


def _load_external(tensor: TensorProto, model_path: Path, *, stays: bool) -> None:
    where = f"{model_path}: tensor {tensor.name!r}"
    location, start, stated = _place_of(tensor, where)
    target = _beside(location, model_path, where)
    if not _is_file(target):
        raise ModelLoadError(
            f"its data file {location!r} is missing",
            where=where,
            hint="Copy it beside the model; the two belong together",
        )
    length = tensor_bytes(tensor)
    if stated not in (0, length):
        raise ModelLoadError(
            f"the file says that {stated} bytes of {location!r} are its data, its shape needs {length}",
            where=where,
            hint=_DAMAGED,
        )
    if target.stat().st_size < start + length:
        raise ModelLoadError(f"its data file {location!r} is too short", where=where, hint="Copy it again")
    if stays:
        mapped.point_to(tensor, target, start, length)
        return
    for position in reversed(range(len(tensor.external_data))):
        if tensor.external_data[position].key not in ("location", "offset", "length"):
            del tensor.external_data[position]  # its reader warns of keys it does not know
    try:
        load_external_data_for_tensor(tensor, str(model_path.parent.resolve()))
    except (onnx.checker.ValidationError, OSError, ValueError) as error:
        raise ModelLoadError(
            f"its data file {location!r} cannot be read ({str(error).splitlines()[0]})",
            where=where,
            hint="Put a regular file beside the model",
        ) from error
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def _place_of(tensor: TensorProto, where: str) -> tuple[str, int, int]:
    """Name of the data file, first byte in it, and number of bytes (0 where the file says none).

    Raises:
        ModelLoadError: an entry is not what it must be.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    numbers = []
    for key in ("offset", "length"):
        text = entries.get(key, "") or "0"
        if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
            raise ModelLoadError(
                f"the {key} of its data in another file is {text[:80]!r}, which is no number of bytes",
                where=where,
                hint=_DAMAGED,
            )
        numbers.append(int(text))
    location = entries.get("location", "")
    if not location or "\0" in location:
        raise ModelLoadError(
            f"its data file has the name {location[:80]!r}, which no file can have",
            where=where,
            hint=_DAMAGED,
        )
    return location, numbers[0], numbers[1]


def _beside(location: str, model_path: Path, where: str) -> Path:
    """The data file, which must lie in the model's folder or below it."""
    folder = model_path.parent.resolve()
    try:
        target = (folder / location).resolve()
    except (OSError, RuntimeError) as error:  # a name too long, links in a circle
        raise ModelLoadError(
            f"its data file {location[:80]!r} cannot be found ({error})", where=where, hint=_DAMAGED
        ) from error
    if Path(location).is_absolute() or not target.is_relative_to(folder):
        raise ModelLoadError(
            f"its data file {location!r} lies outside the model's folder",
            where=where,
            hint="Refused for safety; put the data file beside the model",
        )
    return target


def external_digests(path: Path, model: ModelProto) -> dict[str, str]:
    """SHA-256 of every data file a model refers to, by its name; empty where one is missing.

    Args:
        path: The model file.
        model: The parsed model before its external data was loaded.

    Raises:
        ModelLoadError: a name is none, or leads out of the model's folder.
    """
    digests: dict[str, str] = {}
    for tensor in external_tensors(model):
        where = f"{path}: tensor {tensor.name!r}"
        location, _start, _length = _place_of(tensor, where)
        if location not in digests:
            file = _beside(location, path, where)
            digests[location] = file_digest(file) if _is_file(file) else ""
    return dict(sorted(digests.items()))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the file system
        return False


def combined_digest(own: str, external: Mapping[str, str]) -> str:
    """SHA-256 that names a source: the file's own, or with data files that of all together."""
    if not external:
        return own
    text = "\n".join([own, *(f"{name}:{digest}" for name, digest in sorted(external.items()))])
    return hashlib.sha256(text.encode()).hexdigest()
