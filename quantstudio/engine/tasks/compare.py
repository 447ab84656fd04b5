"""Variants measured against their base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantstudio.core.errors import ModelLoadError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.results import CompareResult
from quantstudio.engine.evaluation.compare import compare as compare_models
from quantstudio.engine.graph.runtime import Optimization, open_session
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.model.open import open_model as open_graph
from quantstudio.engine.model.reading import ModelKind, kind_of
from quantstudio.engine.tasks.inputs import dataset_of


def compare(
    *,
    base: str,
    variants: Sequence[str],
    data: Mapping[str, Any],
    graph_path: str = "",
    base_bytes: int = 0,
    trust: bool = False,
    names: Sequence[str] | None = None,
    threads: int | None = None,
    provider: str = "cpu",
    batch: int = 1,
    latency: bool = True,
    footprint: bool = True,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> CompareResult:
    """Accuracy, agreement, latency and footprint of variants against a base, on the same samples.

    `graph_path` names the normalised graph that tells the input names; without it `base` itself is opened. A
    base that is not ONNX, or that the runtime refuses without repair, is measured in its normalised form; its
    size is that of the file in any case: `base_bytes`, where only the normalised graph is named, which many
    files may share.
    """
    token = cancel or never_cancelled()
    for variant in variants:
        if kind_of(Path(variant)) is not ModelKind.ONNX:
            raise ModelLoadError(
                "only ONNX files can be compared",
                where=variant,
                hint=Hint("Give a file that was built here", HintAction.QUANTIZE),
            )
    graph = load_graph(graph_path) if graph_path else open_graph(base, trust=trust, cancel=token)
    measured = _runnable(Path(base), Path(graph.summary.graph_path))
    result = compare_models(
        measured,
        [Path(v) for v in variants],
        dataset_of(graph, data),
        names=tuple(names or (_names(base, variants) if measured != Path(base) else ())) or None,
        threads=threads,
        provider=provider,
        batch=batch,
        latency=latency,
        footprint=footprint,
        reporter=reporter,
        cancel=token,
    )
    of_file = result.variants[0].with_size(base_bytes or graph.summary.file_bytes)
    return replace(result, variants=(of_file, *result.variants[1:]))


def _runnable(base: Path, normalised: Path) -> Path:
    """The base as it is, or its normalised form where it is no ONNX or the runtime refuses it as it is."""
    if base.suffix.lower() != ".onnx":
        return normalised
    try:
        open_session(base, threads=1, optimization=Optimization.NONE)
    except ModelLoadError:
        return normalised
    return base


def _names(base: str, variants: Sequence[str]) -> tuple[str, ...]:
    return tuple(Path(path).name for path in (base, *variants))
