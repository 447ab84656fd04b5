"""Open a model file of any kind and get the one normalised, proven graph everything else works on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from onnx import ModelProto, ValueInfoProto

from quantstudio.core import figures
from quantstudio.core.errors import (
    JobCancelled,
    ModelLoadError,
    OutputError,
    QuantStudioError,
    VerificationError,
)
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, Severity, never_cancelled
from quantstudio.core.files import file_digest
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.layers import LayerInfo, ModelSummary, TensorInfo
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.mapped import constants_in_file, holds_mapped, is_mapped, weight_bytes
from quantstudio.engine.graph.protos import FLOAT_TYPES, as_array, type_name
from quantstudio.engine.graph.shapes import shape_of
from quantstudio.engine.graph.view import index
from quantstudio.engine.model.cache import (
    forget_graph,
    graphs_folder,
    load_stored,
    read_summary,
    recall_source,
    remember_source,
    store_graph,
    stored_bytes,
    write_summary,
)
from quantstudio.engine.model.layers import list_layers
from quantstudio.engine.model.normalise import Changes, correct_outputs, normalise, repair
from quantstudio.engine.model.reading import (
    ModelKind,
    combined_digest,
    external_digests,
    kind_of,
    load_external,
    read_onnx,
)
from quantstudio.engine.model.torch_export import export_to_onnx
from quantstudio.engine.model.torch_source import (
    TorchSource,
    is_factory,
    load_exported_program,
    load_factory,
    load_torchscript,
    load_weights,
    require_trust,
)
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

    @property
    def onnx_bytes(self) -> int:
        """Bytes of the ONNX file with its data files."""
        files = (self.path, *(self.path.parent / name for name in self.external))
        return sum(file.stat().st_size for file in files)

    def file_bytes(self, stored: Path) -> int:
        """Bytes of what the user gave; of the stored graph where that was a program."""
        return self.onnx_bytes if Path(self.shown) == self.path != stored else stored_bytes(stored)


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
        reporter: Told each step, and what makes results of this model worthless.
        cancel: Stops between steps.

    Returns:
        The graph; its file and summary lie in the cache.

    Raises:
        ModelLoadError: the file is not a valid model.
        TrustRequiredError: opening it would run code and `trust` is not given.
        UnsupportedOpError: an operator cannot be handled.
        VerificationError: the normalised graph does not compute what the file does.
        OutputError: the cache folder cannot be written.
        JobCancelled: `cancel` was set.
    """
    graph = _opened(path, trust, factory, state, reporter, cancel or never_cancelled())
    for text in graph.summary.warnings:
        reporter.message(text, Severity.WARNING)
    return graph


def _opened(
    path: str | Path, trust: bool, factory: str, state: str, reporter: Reporter, token: CancelToken
) -> Graph:
    shown = str(path)
    reporter.progress(0, len(_STEPS), "steps", f"{_STEPS[0]} {Path(shown).name}")
    if is_factory(shown):
        return _open_factory(shown, state, trust, reporter, token)
    file = Path(path)
    kind = kind_of(file)
    if kind is ModelKind.WEIGHTS:
        if not factory:
            raise ModelLoadError(
                "this file holds weights but no network",
                where=shown,
                hint=Hint(
                    "Export to ONNX, or give the function that makes the network", HintAction.GIVE_FACTORY
                ),
            )
        return _open_factory(factory, shown, trust, reporter, token)
    if factory or state:
        raise ModelLoadError(
            f"this {kind.value} holds its own network and weights",
            where=shown,
            hint=Hint("Give a file of weights, or leave out the function", HintAction.LEAVE_OUT_FACTORY),
        )
    if kind is not ModelKind.ONNX:
        require_trust(shown, kind.value, trust=trust)
    own = file_digest(file)
    known = recall_source(own, file)
    if known is not None:
        return known
    if kind is ModelKind.ONNX:
        return _open_onnx(_Source(shown, file, own), reporter, token)
    load = load_exported_program if kind is ModelKind.EXPORTED_PROGRAM else load_torchscript
    return _open_torch(load(file), _Source(shown, file, own), reporter, token)


def load_graph(graph_path: str | Path) -> Graph:
    """Read a normalised graph back from the cache.

    Args:
        graph_path: `ModelSummary.graph_path` of an opened model.

    Raises:
        ModelLoadError: the file is missing or altered.
    """
    path = Path(graph_path)
    model = load_stored(path)
    summary = read_summary(path)
    if summary is None:
        source = _Source(str(path), path, path.stem)
        summary = _summarise(model, path, source, Proof(math.nan, ("Summary was made again.",)), ())
        write_summary(summary)
    return Graph(model, summary)


def _open_factory(factory: str, state: str, trust: bool, reporter: Reporter, token: CancelToken) -> Graph:
    require_trust(factory, "Python factory", trust=trust)
    if state and kind_of(Path(state)) is not ModelKind.WEIGHTS:
        raise ModelLoadError(
            "this is not a file of weights",
            where=state,
            hint="Give a state_dict (.pt) or a .safetensors file",
        )
    made = load_factory(factory)
    if state:
        load_weights(made.network, Path(state))
    shown = f"{factory} with {state}" if state else factory
    # The code behind a factory may change without any file named here changing: never reused.
    source = _Source(
        shown, Path(state or factory), file_digest(Path(state)) if state else "", remembered=False
    )
    return _open_torch(made, source, reporter, token)


def _open_torch(made: TorchSource, source: _Source, reporter: Reporter, token: CancelToken) -> Graph:
    token.raise_if_set()
    reporter.progress(0, len(_STEPS), "steps", "Exporting to ONNX")
    with TemporaryDirectory(prefix="quantstudio-") as scratch:
        target = Path(scratch) / "exported.onnx"
        notes = export_to_onnx(made, target, source.shown)
        digest = source.digest or file_digest(target)
        exported = replace(source, path=target, digest=digest, notes=notes)
        return _open_onnx(exported, reporter, token)


def _open_onnx(source: _Source, reporter: Reporter, token: CancelToken) -> Graph:
    """Everything from an ONNX file to the stored, proven graph; errors name what the user gave."""
    try:
        return _normalised(source, reporter, token)
    except (JobCancelled, OutputError):
        raise
    except QuantStudioError as error:
        raise _named(error, source) from error


def _normalised(source: _Source, reporter: Reporter, token: CancelToken) -> Graph:
    """The graph with all rewrites, or without those that replace operators where they do not hold."""
    try:
        return _proven(source, reporter, token, rewrite=True)
    except VerificationError as error:
        failure = error
    cause = f"{failure.where}: {failure.what}"
    source.notes += (f"Kept the operators of the file, as a simpler form did not hold ({cause}).",)
    return _proven(source, reporter, token, rewrite=False)


def _proven(source: _Source, reporter: Reporter, token: CancelToken, *, rewrite: bool) -> Graph:
    graph_path, changes = _write_normalised(source, reporter, token, rewrite)
    token.raise_if_set()
    # What is used from here on is what is stored; the edited copy, which keeps replaced weights, is gone.
    model = load_stored(graph_path)
    reporter.progress(2, len(_STEPS), "steps", _STEPS[2])
    try:
        token.raise_if_set()
        repaired = partial(_repaired, source.path)
        proof = verify(
            source.path, graph_path, model, repaired=repaired, widened=changes.widened, cancel=token
        )
    except QuantStudioError:
        forget_graph(graph_path)
        raise
    notes = changes.notes
    if proof.shapes:
        notes += correct_outputs(model, proof.shapes)
        forget_graph(graph_path)
        graph_path = store_graph(model, weight_bytes(model.graph))
    reporter.progress(3, len(_STEPS), "steps", _STEPS[3])
    summary = _summarise(model, graph_path, source, proof, notes)
    write_summary(summary)
    if source.remembered:
        remember_source(source.digest, source.external, summary)
    reporter.progress(len(_STEPS), len(_STEPS), "steps", "Opened")
    return Graph(model, summary)


def _write_normalised(
    source: _Source, reporter: Reporter, token: CancelToken, rewrite: bool
) -> tuple[Path, Changes]:
    model = read_onnx(source.path)
    source.external = external_digests(source.path, model)
    load_external(model, source.path)
    token.raise_if_set()
    # Large constants may still be in nodes here.
    is_large = holds_mapped(model) or _has_mapped_nodes(model)
    # Minutes, perhaps, in which nothing else moves: whoever waits is told what for.
    size = f" {figures.size(source.onnx_bytes)}, one weight at a time" if is_large else ""
    reporter.progress(1, len(_STEPS), "steps", f"{_STEPS[1]}{size}")
    with constants_in_file(graphs_folder(), if_any=is_large):
        changes = normalise(model, rewrite=rewrite, cancel=token)
        token.raise_if_set()
        return store_graph(model, weight_bytes(model.graph)), changes


def _has_mapped_nodes(model: ModelProto) -> bool:
    return any(is_mapped(attribute.t) for node in model.graph.node for attribute in node.attribute)


def _repaired(path: Path) -> ModelProto:
    model = read_onnx(path)
    load_external(model, path)
    repair(model)
    return model


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
        file_bytes=source.file_bytes(graph_path),
        notes=(*source.notes, *notes, *_quantized_note(table.layers), *proof.notes),
        verified_error=proof.error,
        warnings=_values_that_are_none(model, table.layers),
    )


def _values_that_are_none(model: ModelProto, layers: Sequence[LayerInfo]) -> tuple[str, ...]:
    """Warnings of NaN in any constant, and of infinities in weights: in a mask they are meant."""
    owners: dict[str, list[str]] = {}
    for layer in layers:
        owners.setdefault(layer.weight_name, []).append(layer.name)
    warnings = []
    for name, tensor in index(model.graph).constants.items():
        if tensor.data_type not in FLOAT_TYPES:
            continue
        values = as_array(tensor)
        bad = ~np.isfinite(values) if name in owners else np.isnan(values)
        if not bad.any():
            continue
        of_layer = f" of layer {owners[name][0]!r}" if name in owners else ""
        warnings.append(
            f"Tensor {name!r}{of_layer} holds NaN or infinity in {np.count_nonzero(bad)} of {values.size} "
            "values: it cannot be quantized, and what the model computes may be NaN."
        )
    return tuple(warnings)


def _quantized_note(layers: Sequence[LayerInfo]) -> tuple[str, ...]:
    stored = [layer.stored_as for layer in layers if layer.stored_as]
    if not stored:
        return ()
    names = ", ".join(sorted(set(stored)))
    return (
        f"{len(stored)} of {len(layers)} layers are already quantized ({names}); "
        "open the float model to choose their precision.",
    )


def _tensor_info(value: ValueInfoProto) -> TensorInfo:
    if not value.type.HasField("tensor_type"):
        return TensorInfo(value.name, value.type.WhichOneof("value") or "unknown", ())
    return TensorInfo(value.name, type_name(value.type.tensor_type.elem_type), shape_of(value) or ())


def _named(error: QuantStudioError, source: _Source) -> QuantStudioError:
    """The same error with the user's file in front of the node it names."""
    inner = error.where.removeprefix(str(source.path)).removeprefix(": ")
    where = f"{source.shown}: {inner}" if inner else source.shown
    return type(error)(error.what, where=where, hint=error.hint)
