"""Open a model file of any kind and get the one normalised, proven graph everything else works on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnx import ModelProto, ValueInfoProto

from quantstudio.core.errors import ModelLoadError, QuantStudioError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.files import file_digest
from quantstudio.core.layers import ModelSummary, TensorInfo
from quantstudio.engine.model.cache import (
    read_graph,
    read_summary,
    recall_source,
    remember_source,
    store_graph,
    write_summary,
)
from quantstudio.engine.model.graph import Graph
from quantstudio.engine.model.layers import list_layers
from quantstudio.engine.model.normalise import normalise
from quantstudio.engine.model.protos import type_name
from quantstudio.engine.model.reading import (
    ModelKind,
    combined_digest,
    external_digests,
    kind_of,
    load_external,
    read_onnx,
)
from quantstudio.engine.model.shapes import shape_of
from quantstudio.engine.model.verify import Proof, verify

_STEPS = ("Reading", "Normalising", "Verifying", "Listing layers")


@dataclass(slots=True)
class _Source:
    """What is being opened.

    Attributes:
        shown: Name for the user.
        path: ONNX file that is the original.
        digest: SHA-256 of what the user gave.
        external: SHA-256 of data files by name.
        notes: What happened before normalisation.
        remembered: Whether opening it again may reuse the result.
    """

    shown: str
    path: Path
    digest: str
    external: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    remembered: bool = True


def open_model(
    path: str | Path,
    *,
    trust: bool = False,
    factory: str = "",
    state: str = "",
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> Graph:
    """Open, normalise, prove and list a model; the second time the same file comes from the cache.

    Looks at `cancel` between passes; the longest gap is one shape inference or one verification run.

    Args:
        path: ONNX file; or with `trust` a .pt2 or TorchScript program or "module:factory".
        trust: The user agreed to run the code a program or factory contains.
        factory: "module:factory" that makes the network for a file of weights.
        state: File of weights to load into the network of a factory.
        reporter: Told each step.
        cancel: Stops between steps.

    Returns:
        The graph; its file and summary lie in the cache.

    Raises:
        ModelLoadError: the file is no valid model.
        TrustRequiredError: opening it would run code and `trust` is not given.
        UnsupportedOpError: an operator cannot be handled.
        VerificationError: the normalised graph does not compute what the file does.
        OutputError: the cache folder cannot be written.
        JobCancelled: `cancel` was set.
    """
    token = cancel or never_cancelled()
    file = Path(path)
    reporter.progress(0, len(_STEPS), "steps", f"{_STEPS[0]} {file.name}")
    kind = kind_of(file)
    if kind is not ModelKind.ONNX:
        raise ModelLoadError(f"{kind.value} cannot be opened", where=str(file))
    own = file_digest(file)
    known = recall_source(own, file)
    if known is not None:
        return known
    try:
        return _open_onnx(_Source(str(file), file, own), reporter, token)
    except QuantStudioError as error:
        raise _with_file(error, file) from error


def load_graph(graph_path: str | Path) -> Graph:
    """Read a normalised graph back from the cache.

    Args:
        graph_path: `ModelSummary.graph_path` of an opened model.

    Raises:
        ModelLoadError: the file is missing or altered.
    """
    path = Path(graph_path)
    model = read_graph(path)
    if model is None:
        raise ModelLoadError(
            "the normalised graph is missing or damaged", where=str(path), hint="Open the model file again"
        )
    summary = read_summary(path)
    if summary is None:
        source = _Source(str(path), path, path.stem)
        summary = _summarise(model, path, source, Proof(math.nan, ("Summary was made again.",)), ())
        write_summary(summary)
    return Graph(model, summary)


def _open_onnx(source: _Source, reporter: Reporter, token: CancelToken) -> Graph:
    model = read_onnx(source.path)
    source.external = external_digests(source.path, model)
    load_external(model, source.path)
    token.raise_if_set()
    reporter.progress(1, len(_STEPS), "steps", _STEPS[1])
    notes = normalise(model, cancel=token)
    weight_bytes = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    graph_path = store_graph(model, weight_bytes)
    reporter.progress(2, len(_STEPS), "steps", _STEPS[2])
    proof = verify(source.path, graph_path, model, cancel=token)
    token.raise_if_set()
    reporter.progress(3, len(_STEPS), "steps", _STEPS[3])
    summary = _summarise(model, graph_path, source, proof, notes)
    write_summary(summary)
    if source.remembered:
        remember_source(source.digest, source.external, summary)
    reporter.progress(len(_STEPS), len(_STEPS), "steps", "Opened")
    return Graph(model, summary)


def _summarise(
    model: ModelProto, graph_path: Path, source: _Source, proof: Proof, notes: tuple[str, ...]
) -> ModelSummary:
    table = list_layers(model)
    opset = next(int(entry.version) for entry in model.opset_import if entry.domain == "")
    return ModelSummary(
        source_path=source.shown,
        graph_path=str(graph_path),
        digest=graph_path.stem,
        source_digest=combined_digest(source.digest, source.external),
        opset=opset,
        inputs=tuple(_tensor_info(value) for value in model.graph.input),
        outputs=tuple(_tensor_info(value) for value in model.graph.output),
        layers=table.layers,
        edges=table.edges,
        parameters=table.parameters,
        weight_bytes=table.weight_bytes,
        file_bytes=graph_path.stat().st_size,
        notes=(*source.notes, *notes, *proof.notes),
        verified_error=proof.error,
    )


def _tensor_info(value: ValueInfoProto) -> TensorInfo:
    if not value.type.HasField("tensor_type"):
        return TensorInfo(value.name, value.type.WhichOneof("value") or "unknown", ())
    return TensorInfo(value.name, type_name(value.type.tensor_type.elem_type), shape_of(value) or ())


def _with_file(error: QuantStudioError, file: Path) -> QuantStudioError:
    """The same error with the file in front of the node it names."""
    if str(file) in error.where:
        return error
    where = f"{file}: {error.where}" if error.where else str(file)
    return type(error)(error.what, where=where, hint=error.hint)
