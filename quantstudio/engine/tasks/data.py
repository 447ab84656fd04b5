"""What a data set holds, and what is to be done to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.diagnosis import Diagnosis
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.results import DataSummary
from quantstudio.engine.data.labels import Labels
from quantstudio.engine.doctor.examine import Question, examine
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.tasks.inputs import class_count, dataset_of, value_of


def data_summary(
    *,
    graph_path: str,
    data: Mapping[str, Any],
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> DataSummary:
    """Open a data set against a model and say what is in it."""
    del reporter
    dataset = dataset_of(load_graph(graph_path), data)
    (cancel or never_cancelled()).raise_if_set()
    first = next(iter(dataset.batches(1)))
    return DataSummary(
        samples=len(dataset),
        labelled=dataset.labels is not None,
        classes=_classes(dataset.labels),
        class_names=tuple(dataset.class_names),
        segments=tuple(dataset.segments),
        digest=dataset.digest,
        shapes={name: tuple(int(n) for n in array.shape[1:]) for name, array in first.feed.items()},
    )


def examine_data(
    *,
    graph_path: str,
    data: Mapping[str, Any],
    test: Mapping[str, Any] | None = None,
    is_asked: bool = False,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> Diagnosis:
    """The transform a network wants of a data set, its FP32 accuracy with it, and what is wrong.

    Args:
        graph_path: The opened model.
        data: A `DataSpec` of calibration data in JSON.
        test: One of test data.
        is_asked: Whether the transforms of both are asked about; else they are not looked at.
        reporter: Told of a first `Diagnosis` and of what is going on.
        cancel: Ends it at the next run of the network.

    Raises:
        DataError: the data cannot be read, or fits in no layout.
        MeasureError: the network does not run on it.
        JobCancelled: `cancel` was set.
    """
    graph = load_graph(graph_path)
    question = Question(
        graph,
        value_of(DataSpec, data, "data"),
        None if test is None else value_of(DataSpec, test, "test"),
        is_asked,
        class_count(graph.summary),
    )
    return examine(question, reporter=reporter, cancel=cancel or never_cancelled())


def _classes(labels: Labels | None) -> int:
    if labels is None or labels.dtype.kind != "i":
        return 0
    return len(np.unique(labels))
