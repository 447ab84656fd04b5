"""Statistics of weights and of activations, written to npz files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.folders import cache_folder
from quantstudio.core.statistics_file import save_statistics, save_weight_statistics, statistics_digest
from quantstudio.core.task_results import CalibrationFile, WeightFile
from quantstudio.engine.analysis.weights import weight_statistics as weight_statistics_of
from quantstudio.engine.calibration.observer import calibrate as observe
from quantstudio.engine.graph.runtime import resolve_provider
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.tasks.inputs import DEFAULT_SAMPLES, dataset_of


def weight_statistics(
    *,
    graph_path: str,
    output: str = "",
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> WeightFile:
    """Weight histograms of every layer, written to an npz file."""
    graph = load_graph(graph_path)
    rows = weight_statistics_of(graph, reporter=reporter, cancel=cancel or never_cancelled())
    path = Path(output) if output else _cached("statistics", f"{graph.digest[:32]}-weights.npz")
    save_weight_statistics(path, rows)
    return WeightFile(str(path), len(rows))


def calibrate(
    *,
    graph_path: str,
    data: Mapping[str, Any],
    samples: int = DEFAULT_SAMPLES,
    output: str = "",
    provider: str = "cpu",
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> CalibrationFile:
    """Activation histograms of every tensor in one streaming pass, written to an npz file."""
    started = time.perf_counter()
    graph = load_graph(graph_path)
    dataset = dataset_of(graph, data)
    statistics = observe(
        graph,
        dataset,
        samples=samples,
        provider=provider,
        reporter=reporter,
        cancel=cancel or never_cancelled(),
    )
    name = f"{graph.digest[:16]}-{dataset.digest[:16]}-{statistics.samples}.npz"
    path = Path(output) if output else _cached("statistics", name)
    save_statistics(path, statistics)
    return CalibrationFile(
        path=str(path),
        digest=statistics_digest(statistics),
        samples=statistics.samples,
        tensors=len(statistics.tensors),
        seconds=time.perf_counter() - started,
        provider=resolve_provider(provider),
    )


def _cached(folder: str, name: str) -> Path:
    return cache_folder(folder) / name
