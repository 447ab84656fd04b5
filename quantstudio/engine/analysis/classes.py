"""Which class each sample is of, so that a layer's divergence can be told class by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantstudio.engine.analysis.divergence import Array, Objective, OutputKind, predicted_classes
from quantstudio.engine.evaluation.probe import DatasetLike

# A table with a column a class is for people; a vocabulary has no use for one.
LARGEST_CLASS_COUNT = 1000


@dataclass(frozen=True, slots=True, eq=False)
class SampleClasses:
    """The classes of some samples.

    Attributes:
        names: Name of each class; its number where nobody named it.
        of_sample: Class of each sample, [N].
    """

    names: tuple[str, ...]
    of_sample: NDArray[np.int64]

    def means(self, values: NDArray[np.float64]) -> tuple[float, ...]:
        """Mean of one value a sample over each class; NaN for a class without samples.

        Args:
            values: In the order of `of_sample`, [N].
        """
        sums = np.bincount(self.of_sample, weights=values, minlength=len(self.names))
        counts = np.bincount(self.of_sample, minlength=len(self.names))
        found = np.full(len(self.names), np.nan)
        np.divide(sums, counts, out=found, where=counts > 0)
        return tuple(found.tolist())


def class_labels(dataset: DatasetLike) -> NDArray[np.int64] | None:
    """One class per sample, [N]; None without labels or with labels of another form."""
    labels = dataset.labels
    if labels is None or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return None
    return np.asarray(labels, dtype=np.int64)


def sample_classes(dataset: DatasetLike, objective: Objective, scores: Array | None) -> SampleClasses | None:
    """The true class of each of the first samples, or the predicted one where there are no labels.

    Args:
        dataset: Where labels and names come from.
        objective: What the outputs mean.
        scores: FP32 class scores of its first N samples, [N, C]; None for outputs of another form.

    Returns:
        None for outputs that are not one class score per sample.
    """
    if scores is None or objective.kind is not OutputKind.CLASSES or scores.ndim != 2:
        return None
    labels = class_labels(dataset)
    chosen = predicted_classes(scores, objective) if labels is None else labels[: len(scores)]
    count = max(int(scores.shape[1]), int(chosen.max()) + 1)
    if count > LARGEST_CLASS_COUNT or scores.shape[1] < 2 or chosen.min() < 0:
        return None
    names = tuple(dataset.class_names)
    return SampleClasses(names if len(names) == count else tuple(str(i) for i in range(count)), chosen)
