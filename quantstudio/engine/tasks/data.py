"""What a data set holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.results import DataSummary
from quantstudio.engine.data.labels import Labels
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.tasks.inputs import dataset_of


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


def _classes(labels: Labels | None) -> int:
    if labels is None or labels.dtype.kind != "i":
        return 0
    return len(np.unique(labels))
