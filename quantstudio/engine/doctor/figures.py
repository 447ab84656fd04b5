"""What the network does on a data set with one transform: the figure, and what it is given."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.data_spec import Transform
from quantstudio.core.diagnosis import ClassCount, DataFigure, InputFacts
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.data.transform import shape_text
from quantstudio.engine.doctor.network import Samples, rows_of, scaled_feed, stacked
from quantstudio.engine.doctor.proposal import Bench
from quantstudio.engine.doctor.scores import Score
from quantstudio.engine.evaluation.uncertainty import bootstrap_interval, wilson_interval


def figure_of(bench: Bench, score: Score, source: str, *, is_calibration: bool) -> DataFigure | None:
    """The figure of a score; None where there are no labels to hold it against."""
    labels = bench.answers.labels_of(score.indices)
    if labels is None:
        return None
    count, total = len(score.marks), len(bench.fitting.dataset)
    if bench.answers.form is not None:
        right = int(score.marks.sum())
        low, high = wilson_interval(right, count)
        # Rounding leaves the end of an interval a hair short of a share of 0 or 1.
        low, high = min(low, right / count), max(high, right / count)
        return DataFigure(
            "Top-1 accuracy", right / count, low, high, True, count, total, source, is_calibration
        )
    targets = np.asarray(labels, dtype=np.float64)
    spread = float(((targets - targets.mean(axis=0)) ** 2).mean())
    if spread <= 0:
        return None
    found = bootstrap_interval(-score.marks[:, None], lambda means: 1 - means[:, 0] / spread)
    return DataFigure("R²", found.value, found.low, found.high, False, count, total, source, is_calibration)


def given_by(samples: Samples, transform: Transform) -> dict[str, NDArray[np.generic]]:
    """What the inputs that have samples get of some; see `stacked`."""
    feeds = [scaled_feed(batch, samples.scaled, transform) for batch in samples.batches]
    return {
        name: stacked(
            [rows_of(batch, feed[name], axis) for batch, feed in zip(samples.batches, feeds, strict=True)]
        )
        for name, axis in samples.axes.items()
    }


def facts_of(
    dataset: Dataset, samples: Samples, given: Mapping[str, NDArray[np.generic]]
) -> tuple[InputFacts, ...]:
    """What each input gets, and what it comes from."""
    found = []
    for name, (dtype, shape) in dataset.stored.items():
        before, after = samples.values(name), given[name]
        numbers = np.asarray(after, dtype=np.float64)
        found.append(
            InputFacts(
                name,
                f"{dtype} {shape_text(shape)}",
                f"{after.dtype} {shape_text(_shape_of_one(samples, name))}",
                float(before.min()),
                float(before.max()),
                float(numbers.min()),
                float(numbers.max()),
                float(numbers.mean()),
                float(numbers.std()),
            )
        )
    return tuple(found)


def _shape_of_one(samples: Samples, name: str) -> tuple[int, ...]:
    first = samples.batches[0]
    return tuple(rows_of(first, first.feed[name], samples.axes[name]).shape[1:])


def classes_of(bench: Bench) -> tuple[ClassCount, ...]:
    """Classes of the network, or of the labels, with how many samples each has; empty for targets."""
    labels = bench.fitting.labels
    if (
        labels is None
        or bench.fitting.labels_fault
        or labels.dtype.kind != "i"
        or bench.answers.are_targets
        or not len(labels)
    ):
        return ()
    names = bench.fitting.dataset.class_names
    counts = np.bincount(np.maximum(labels, 0), minlength=max(bench.answers.classes, len(names)))
    return tuple(
        ClassCount(i, names[i] if i < len(names) else str(i), int(count)) for i, count in enumerate(counts)
    )
