"""What the outputs of a network mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.judgement import Judgement
from quantstudio.engine.evaluation.judging import graph_reading
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.tasks.inputs import dataset_of


def judge_outputs(
    *,
    graph_path: str,
    data: Mapping[str, Any],
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> Judgement:
    """How the outputs of a network are read on a data set, from runs of a few samples.

    Raises:
        DataError: the data cannot be read, or does not fit the model.
        MeasureError: the model does not run on it, or what is said of its outputs does not fit.
        JobCancelled: `cancel` was set.
    """
    del reporter
    graph = load_graph(graph_path)
    return graph_reading(graph, dataset_of(graph, data), cancel or never_cancelled()).judgement
