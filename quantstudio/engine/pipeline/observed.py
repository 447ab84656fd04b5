"""Activation statistics of the graphs on the way, collected once for a graph and data."""

from __future__ import annotations

import logging
from pathlib import Path

from quantstudio.core.errors import CalibrationError, DataError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.folders import cache_folder, cache_root
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.keeping import kept_if_possible
from quantstudio.core.statistics import Statistics
from quantstudio.core.statistics_file import load_statistics, save_statistics
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.graph.graph import Graph

logger = logging.getLogger(__name__)


def statistics_path(graph: Graph, dataset: Dataset, samples: int) -> Path:
    """Where the statistics of a graph over the first samples of a data set are kept; 0 samples for all."""
    seen = min(samples, len(dataset)) if samples > 0 else len(dataset)
    return cache_root() / "statistics" / f"{graph.digest[:16]}-{dataset.digest[:16]}-{seen}.npz"


def collected(
    graph: Graph,
    dataset: Dataset | None,
    samples: int,
    *,
    given: Statistics | None = None,
    reporter: Reporter,
    cancel: CancelToken,
) -> Statistics:
    """Statistics of a graph: those given if they are its own, else those kept, else collected now and kept.

    Args:
        graph: The graph.
        dataset: Samples to collect from.
        samples: How many of them; 0 for all.
        given: Statistics that may be of this graph or of one before it.
        reporter: Gets progress in samples.
        cancel: Ends a run in progress, too.

    Raises:
        DataError: they have to be collected and there are no samples.
        CalibrationError: a tensor holds NaN or infinity.
        JobCancelled: `cancel` was set.
    """
    if given is not None and given.graph_digest == graph.digest:
        return given
    if dataset is None:
        raise DataError(
            "static quantization needs calibration data"
            + (": the steps of the recipe changed the activations" if given is not None else ""),
            hint=Hint("Choose calibration data", HintAction.CHOOSE_DATA),
        )
    path = statistics_path(graph, dataset, samples)
    kept = _kept(path, graph, dataset)
    if kept is not None:
        return kept
    found = calibrate(graph, dataset, samples=samples, reporter=reporter, cancel=cancel)
    with kept_if_possible("statistics"):
        cache_folder("statistics")
        save_statistics(path, found)
    return found


def _kept(path: Path, graph: Graph, dataset: Dataset) -> Statistics | None:
    if not path.is_file():
        return None
    try:
        kept = load_statistics(path)
    except CalibrationError:
        logger.info("statistics in %s cannot be read and are collected again", path)
        return None
    return kept if (kept.graph_digest, kept.data_digest) == (graph.digest, dataset.digest) else None
