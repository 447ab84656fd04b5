"""How fast a built file is beside the network it was made from: whoever ships it is told."""

from __future__ import annotations

from pathlib import Path

from quantstudio.core.events import CancelToken, NullReporter
from quantstudio.core.results import Interval
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.evaluation.latency import LatencyBudget, interleaved_latency
from quantstudio.engine.graph.graph import Graph

CONFIRMING = LatencyBudget(seconds=2.0, min_rounds=25, max_rounds=300)


def speed_against(
    graph: Graph, built: Path, dataset: Dataset, cancel: CancelToken, budget: LatencyBudget | None = None
) -> Interval:
    """Times faster than the network a file is, one sample a run, in rounds that alternate between the two.

    Raises:
        MeasureError: one of them does not run on the data.
        JobCancelled: the token was set.
    """
    feed = next(iter(dataset.batches(1, stop=1))).feed
    timed = interleaved_latency(
        [Path(graph.summary.graph_path), built],
        feed,
        budget=budget or CONFIRMING,
        reporter=NullReporter(),
        cancel=cancel,
    )
    return timed.speedups[1]
