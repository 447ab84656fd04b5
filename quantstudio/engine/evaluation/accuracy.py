"""Accuracy of one model against labels, batch by batch: a few bytes per sample stay, outputs do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.errors import MeasureError
from quantstudio.core.results import ClassAccuracy
from quantstudio.engine.evaluation.outputs import Meaning, OutputForm, class_scores, predictions
from quantstudio.engine.evaluation.uncertainty import wilson_interval

TOP_K = 5
# A column with more distinct values is cut into quarters if it holds numbers, and left out if it holds text.
MAX_SEGMENT_VALUES = 64


class ClassTally:
    """Top-1 and top-5 of one model.

    Attributes:
        predicted: Class chosen for each sample, int64 [N].
        in_top5: Whether the label is among the five best, bool [N]; all False where there are five classes
            or fewer.
    """

    def __init__(self, labels: NDArray[np.int64] | None, samples: int, form: OutputForm) -> None:
        self._labels = labels
        self._form = form
        self.predicted = np.full(samples, -1, dtype=np.int64)
        self.in_top5 = np.zeros(samples, dtype=np.bool_)

    @property
    def has_top5(self) -> bool:
        """Whether top-5 says more than top-1."""
        return self._form.meaning is Meaning.CLASSES and self._form.classes > TOP_K

    def add(self, start: int, output: NDArray[np.generic]) -> None:
        """Count the samples from `start` on; `output` has one row each."""
        chosen = predictions(output, self._form)
        stop = start + len(chosen)
        self.predicted[start:stop] = chosen
        if self._labels is not None and self.has_top5:
            scores = class_scores(output, self._form)
            labels = self._labels[start:stop]
            own = np.take_along_axis(scores, labels[:, None], axis=1)
            self.in_top5[start:stop] = ((scores > own).sum(axis=1) < TOP_K) & (chosen >= 0)

    def right(self) -> NDArray[np.bool_]:
        """Whether each sample is classified as its label says, bool [N].

        Raises:
            MeasureError: there are no labels.
        """
        if self._labels is None:
            raise MeasureError("the data has no labels", hint="Read the agreement with FP32 instead")
        return np.equal(self.predicted, self._labels)

    def metrics(self) -> dict[str, float]:
        """top1, and top5 where there are more than five classes; shares of 1. Empty without labels."""
        if self._labels is None:
            return {}
        found = {"top1": float(self.right().mean())}
        if self.has_top5:
            found["top5"] = float(self.in_top5.mean())
        return found


class ValueTally:
    """Regression error of one model."""

    def __init__(self, targets: NDArray[np.float64]) -> None:
        self._targets = targets.reshape(len(targets), -1)
        self.squared = np.zeros(len(targets))
        self.absolute = np.zeros(len(targets))

    def add(self, start: int, output: NDArray[np.generic]) -> None:
        """Count the samples from `start` on.

        Raises:
            MeasureError: the output has a different number of values per sample than the targets.
        """
        values = np.asarray(output, dtype=np.float64).reshape(len(output), -1)
        targets = self._targets[start : start + len(values)]
        if values.shape != targets.shape:
            raise MeasureError(
                f"the output that is judged has {values.shape[1]} values per sample, the labels have "
                f"{targets.shape[1]}",
                hint="Give one target for each value the model predicts",
            )
        difference = values - targets
        self.squared[start : start + len(values)] = (difference**2).mean(axis=1)
        self.absolute[start : start + len(values)] = np.abs(difference).mean(axis=1)

    @property
    def spread(self) -> float:
        """Mean squared distance of the targets from their mean."""
        return float(((self._targets - self._targets.mean(axis=0)) ** 2).mean())

    def metrics(self) -> dict[str, float]:
        """rmse, mae and r2 (1 is perfect, 0 is no better than the mean of the targets)."""
        spread = self.spread
        squared = float(self.squared.mean())
        return {
            "rmse": squared**0.5,
            "mae": float(self.absolute.mean()),
            "r2": 1 - squared / spread if spread > 0 else float("nan"),
        }


def accuracy_by_class(
    labels: NDArray[np.int64],
    base_right: NDArray[np.bool_],
    variant_right: NDArray[np.bool_],
    class_names: Sequence[str] = (),
) -> tuple[ClassAccuracy, ...]:
    """Accuracy of every class that occurs, in the order of the classes."""
    classes = int(labels.max()) + 1 if len(labels) else 0
    names = [class_names[i] if i < len(class_names) else str(i) for i in range(classes)]
    return _by_group(labels, names, base_right, variant_right)


def accuracy_by_segment(
    columns: Mapping[str, NDArray[np.generic]],
    base_right: NDArray[np.bool_],
    variant_right: NDArray[np.bool_],
) -> tuple[ClassAccuracy, ...]:
    """Accuracy of every value of every column, labelled "column=value".

    Columns of numbers with many values are cut at their quartiles; text with many values (names, paths) says
    nothing about groups and is left out.
    """
    found: list[ClassAccuracy] = []
    for column, values in columns.items():
        grouped = _groups(np.asarray(values))
        if grouped is not None:
            names, index = grouped
            found += _by_group(index, [f"{column}={name}" for name in names], base_right, variant_right)
    return tuple(found)


def _groups(values: NDArray[np.generic]) -> tuple[list[str], NDArray[np.int64]] | None:
    distinct, index = np.unique(values, return_inverse=True)
    if len(distinct) <= MAX_SEGMENT_VALUES:
        return [str(v) for v in distinct], index.astype(np.int64)
    if values.dtype.kind not in "iuf":
        return None
    numbers = values.astype(np.float64)
    cuts = np.percentile(numbers, (25, 50, 75))
    low, high = numbers.min(), numbers.max()
    edges = [low, *cuts, high]
    names = [f"{a:.4g} to {b:.4g}" for a, b in pairwise(edges)]
    return names, np.searchsorted(cuts, numbers, side="left").astype(np.int64)


def _by_group(
    index: NDArray[np.int64],
    names: Sequence[str],
    base_right: NDArray[np.bool_],
    variant_right: NDArray[np.bool_],
) -> tuple[ClassAccuracy, ...]:
    support = np.bincount(index, minlength=len(names))
    base = np.bincount(index, weights=base_right, minlength=len(names))
    variant = np.bincount(index, weights=variant_right, minlength=len(names))
    rows = []
    for i, name in enumerate(names):
        count = int(support[i])
        if count == 0:
            continue
        low, high = wilson_interval(int(variant[i]), count)
        shares = float(base[i] / count), float(variant[i] / count)
        rows.append(ClassAccuracy(name, count, *shares, low, high, index=i))
    return tuple(rows)
