"""What each layer costs in each scheme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantstudio.core.costs import CostTable
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.engine.analysis.costs import cost_table
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.tasks.inputs import dataset_of, statistics_of


def costs(
    *,
    graph_path: str,
    data: Mapping[str, Any] | None = None,
    statistics: str = "",
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> CostTable:
    """Bytes and measured times of every layer in every scheme, for predictions."""
    graph = load_graph(graph_path)
    return cost_table(
        graph,
        statistics_of(graph, statistics),
        dataset_of(graph, data) if data else None,
        reporter=reporter,
        cancel=cancel or never_cancelled(),
    )
