"""Some samples of a data set in a row, for whoever judges by a part of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.judgement import Judging
from quantstudio.engine.data.dataset import Batch, Dataset


class SampleRange:
    """Samples in a row, as a data set of their own.

    Args:
        dataset: All samples.
        count: How many; fewer where there are no more.
        start: The first one.
    """

    def __init__(self, dataset: Dataset, count: int, *, start: int = 0) -> None:
        self._dataset = dataset
        self._start = min(start, len(dataset))
        self._count = min(count, len(dataset) - self._start)

    def __len__(self) -> int:
        """Number of samples."""
        return self._count

    @property
    def labels(self) -> NDArray[np.int64] | NDArray[np.float32] | None:
        """Labels of these samples."""
        labels = self._dataset.labels
        return None if labels is None else labels[self._start : self._start + self._count]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self._dataset.class_names

    @property
    def segments(self) -> Mapping[str, NDArray[Any]]:
        """None: nothing is judged by segment here."""
        return {}

    @property
    def fixed_batch(self) -> int | None:
        """Samples every feed has, where that is not ours to choose."""
        return self._dataset.fixed_batch

    @property
    def sample_axes(self) -> Mapping[str, int]:
        """Axis of the samples by input."""
        return self._dataset.sample_axes

    @property
    def given_axes(self) -> Mapping[str, int]:
        """Axes the user named, by input or output."""
        return self._dataset.given_axes

    @property
    def judging(self) -> Judging:
        """What the user said of the outputs."""
        return self._dataset.judging

    @property
    def trusted(self) -> bool:
        """Whether code of the user may run."""
        return self._dataset.trusted

    @property
    def next_tokens(self) -> NDArray[np.int64] | None:
        """Of text, the token that follows each of these."""
        tokens = self._dataset.next_tokens
        return None if tokens is None else tokens[self._start : self._start + self._count]

    def batches(self, size: int, *, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Samples in order."""
        last = self._count if stop is None else min(stop, self._count)
        for batch in self._dataset.batches(size, start=self._start + start, stop=self._start + last):
            yield replace(batch, start=batch.start - self._start)
