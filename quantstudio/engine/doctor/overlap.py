"""Samples that two data sets share, by content."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantstudio.core.events import CancelToken
from quantstudio.engine.data.dataset import Dataset

# More is read only where it is quick: a person waits for the answer.
MAX_SAMPLES = 100_000
MAX_BYTES = 400_000_000
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many samples of one data set are in another.

    Attributes:
        shared: Samples looked at that are in both.
        looked_at: Samples of the first that were looked at.
        is_whole: Whether all of both were.
    """

    shared: int
    looked_at: int
    is_whole: bool


def overlap(test: Dataset, calibration: Dataset, cancel: CancelToken) -> Overlap:
    """How many test samples are among the calibration samples.

    Raises:
        DataError: a sample cannot be read.
        JobCancelled: `cancel` was set.
    """
    known, all_known = _contents(calibration, cancel)
    found, all_found = _contents(test, cancel)
    among = set(known)
    return Overlap(sum(one in among for one in found), len(found), all_known and all_found)


def _contents(dataset: Dataset, cancel: CancelToken) -> tuple[list[int], bool]:
    """A number that stands for each sample, and whether these are all."""
    first = next(iter(dataset.batches(1, stop=1)))
    each = sum(array.nbytes // first.held for array in first.feed.values())
    limit = min(MAX_SAMPLES, MAX_BYTES // max(each, 1), len(dataset))
    found: list[int] = []
    for batch in dataset.batches(_BATCH, stop=limit):
        cancel.raise_if_set()
        # An input without a sample axis, such as the edges of a graph, is part of each sample of its feed.
        rows = [
            np.moveaxis(array, dataset.sample_axes[name], 0)
            if name in dataset.sample_axes
            else [array] * batch.count
            for name, array in batch.feed.items()
        ]
        found.extend(hash(tuple(row[i].tobytes() for row in rows)) for i in range(batch.count))
    return found, limit >= len(dataset)
