"""Normalised graphs on disk, named by their content, and the index from source files to them.

    graphs/DIGEST.onnx       the normalised model; DIGEST is the SHA-256 of this file
    graphs/DIGEST.json       its summary
    graphs/DIGEST.bin        weights of models too large for one protocol buffer, named by their own SHA-256
    sources/DIGEST.vN.json   what a source file became, so that opening it again is a matter of reading

Nothing is believed: a file whose content does not fit its name is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from quantstudio.core.codec import CodecError, from_json, to_json
from quantstudio.core.errors import ModelLoadError
from quantstudio.core.files import file_digest, write_bytes, write_text
from quantstudio.core.folders import cache_folder, cache_root
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.keeping import kept_if_possible
from quantstudio.core.layers import ModelSummary
from quantstudio.core.target import DEFAULT_TARGET
from quantstudio.core.weight_files import drop_unnamed, named_weights
from quantstudio.engine.graph import mapped
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.mapped import content_bytes, place_of, point_to
from quantstudio.engine.graph.protos import all_graphs
from quantstudio.engine.graph.writing import write_weights

# Raised with every change of the normaliser or the layer list, so that old entries are not reused.
NORMALISER_VERSION = 9

# Tensors smaller than this stay inside the file: shapes and axes are read from it by other tools.
_EXTERNAL_FROM_BYTES = 1024
_DIGEST_DIGITS = 64
# Files of weights whose content was found to fit their name, as they were then.
_known_intact: dict[Path, tuple[int, ...]] = {}


def graphs_folder() -> Path:
    """Folder of the normalised graphs; made if missing."""
    return cache_folder("graphs")


def store_graph(model: ModelProto, weight_bytes: int) -> Path:
    """Write a normalised model under the name of its content.

    Args:
        model: Normalised model, its weights inside or in a file; left as it is.
        weight_bytes: Bytes of its initializers.

    Returns:
        Path of the model file; its stem is the digest.

    Raises:
        OutputError: the cache folder cannot be written.
    """
    folder = graphs_folder()
    if weight_bytes > mapped.LARGEST_INLINE_BYTES:
        model = _with_external_weights(model, folder)
    elif mapped.holds_mapped(model):
        model = _with_weights_inside(model)
    return _store(model.SerializeToString(deterministic=True), folder)


def _store(content: bytes, folder: Path) -> Path:
    target = folder / f"{hashlib.sha256(content).hexdigest()}.onnx"
    if not _is_intact(target):
        write_bytes(target, content)
    return target


def _with_external_weights(model: ModelProto, folder: Path) -> ModelProto:
    """A copy whose large initializers lie in one file beside it."""
    slim = ModelProto()
    slim.CopyFrom(model)
    large = [
        tensor
        for _scope, graph in all_graphs(slim.graph)
        for tensor in graph.initializer
        if content_bytes(tensor) >= _EXTERNAL_FROM_BYTES
    ]
    path, places = write_weights(large, folder, "{}.bin", digits=_DIGEST_DIGITS)
    _known_intact[path] = _stamp(path)
    for tensor in large:
        point_to(tensor, path.name, *places[tensor.name])
    return slim


def _with_weights_inside(model: ModelProto) -> ModelProto:
    """A copy that holds all its weights, few enough for that."""
    whole = ModelProto()
    whole.CopyFrom(model)
    for tensor in filter(mapped.is_mapped, whole.graph.initializer):
        held = mapped.content_of(tensor).tobytes()
        del tensor.external_data[:]
        tensor.ClearField("data_location")
        tensor.raw_data = held
    return whole


def _is_intact(path: Path) -> bool:
    return path.is_file() and file_digest(path) == path.stem


def _has_same_weights(path: Path) -> bool:
    """As `_is_intact`; gigabytes that nobody touched since they were read are not read again."""
    if not path.is_file():
        return False
    stamp = _stamp(path)
    if _known_intact.get(path) != stamp:
        if not _is_intact(path):
            return False
        _known_intact[path] = stamp
    return True


def _stamp(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def forget_graph(graph_path: Path) -> None:
    """Remove a stored graph that has no summary yet: it was not proven."""
    if not graph_path.with_suffix(".json").exists():
        weights = named_weights(graph_path)
        graph_path.unlink(missing_ok=True)
        drop_unnamed(graph_path.parent, weights)


def read_graph(path: Path) -> ModelProto | None:
    """The normalised model of a cache file; None when it or its weights are missing or altered."""
    if not _is_intact(path):
        return None
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError):
        return None
    for name in _external_files(model):
        if not _has_same_weights(path.parent / name):
            return None
    for scope, graph in all_graphs(model.graph):
        for tensor in graph.initializer:
            if not uses_external_data(tensor):
                continue
            weights, offset, length = place_of(tensor)
            if not scope and length >= mapped.SMALLEST_MAPPED_BYTES:
                point_to(tensor, path.parent / weights, offset, length)
                continue
            load_external_data_for_tensor(tensor, str(path.parent))
            del tensor.external_data[:]
            # An explicit default would make the same model other bytes.
            tensor.ClearField("data_location")
    return model


def load_stored(path: Path) -> ModelProto:
    """The normalised model of a cache file.

    Raises:
        ModelLoadError: it or its weights are missing or altered.
    """
    model = read_graph(path)
    if model is None:
        raise ModelLoadError(
            "the normalised graph is missing or damaged",
            where=str(path),
            hint=Hint("Open the model file again", HintAction.OPEN_MODEL_AGAIN),
        )
    return model


def stored_bytes(path: Path) -> int:
    """Bytes of a stored graph with its weights, wherever they lie."""
    names = _external_files(onnx.load(path, load_external_data=False))
    return sum(one.stat().st_size for one in (path, *(path.parent / name for name in names)))


def _external_files(model: ModelProto) -> set[str]:
    return {
        entry.value
        for _scope, graph in all_graphs(model.graph)
        for tensor in graph.initializer
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }


def write_summary(summary: ModelSummary) -> None:
    """Write the summary beside its graph.

    Raises:
        OutputError: the cache folder cannot be written.
    """
    write_text(Path(summary.graph_path).with_suffix(".json"), _text(to_json(summary)))


def read_summary(graph_path: Path) -> ModelSummary | None:
    """The summary beside a graph; None when it is missing or does not fit."""
    summary = _summary(_read_json(graph_path.with_suffix(".json")))
    if summary is None or summary.digest != graph_path.stem:
        return None
    return replace(summary, graph_path=str(graph_path))


def remember_source(own_digest: str, external: Mapping[str, str], summary: ModelSummary) -> None:
    """Note what a source file became.

    Args:
        own_digest: SHA-256 of the source file.
        external: SHA-256 of its data files by name.
        summary: Summary of the normalised graph.

    """
    entry = {"external": dict(external), "summary": to_json(summary)}
    with kept_if_possible("opened models"):
        cache_folder("sources")
        write_text(_source_entry(own_digest), _text(entry))


def recall_source(
    own_digest: str, path: Path, digest_of: Callable[[Path], str] = file_digest
) -> Graph | None:
    """The graph a source file became before, if everything is still as it was.

    Args:
        own_digest: SHA-256 of the source file.
        path: The source file, whose data files are checked.
        digest_of: Digest of a data file.
    """
    entry = _read_json(_source_entry(own_digest))
    if not isinstance(entry, dict) or not isinstance(entry.get("external"), dict):
        return None
    for name, digest in entry["external"].items():
        data = path.parent / name
        if not data.is_file() or digest_of(data) != digest:
            return None
    summary = _summary(entry.get("summary"))
    if summary is None:
        return None
    graph_path = cache_root() / "graphs" / f"{summary.digest}.onnx"
    model = read_graph(graph_path)
    if model is None:
        return None
    summary = replace(summary, source_path=str(path), graph_path=str(graph_path))
    if read_summary(graph_path) != summary:
        with kept_if_possible("names of opened models"):
            write_summary(summary)
    return Graph(model, summary)


def _source_entry(own_digest: str) -> Path:
    return cache_root() / "sources" / f"{own_digest}.v{NORMALISER_VERSION}.json"


def _read_json(path: Path) -> Any:  # noqa: ANN401  any JSON value
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _summary(value: Any) -> ModelSummary | None:  # noqa: ANN401
    """A summary read back, with the schemes of today's catalogue: formats come with packages, and go."""
    try:
        summary = from_json(ModelSummary, value)
    except CodecError:
        return None
    layers = (replace(layer, schemes=DEFAULT_TARGET.schemes(layer)) for layer in summary.layers)
    return replace(summary, layers=tuple(layers))


def _text(value: Any) -> str:  # noqa: ANN401
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
