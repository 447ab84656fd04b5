"""What an output means, and how to read class scores from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.errors import MeasureError
from quantstudio.core.hints import Hint, HintAction

Labels = NDArray[np.int64] | NDArray[np.float32] | None
# Rows of a quantized softmax miss 1 by a few steps of 1/256.
PROBABILITY_TOLERANCE = 0.02


class Meaning(StrEnum):
    """What one row of the output is."""

    CLASSES = "classes"  # [N, K]: a score per class
    TOKENS = "tokens"  # [N, T, K]: scores for every position, compared without labels
    INDEX = "index"  # [N], whole numbers: the class itself
    VALUES = "values"  # anything else: numbers to come close to


@dataclass(frozen=True, slots=True)
class OutputForm:
    """How an output of the base is read; variants are read the same way.

    Attributes:
        meaning: What a row is.
        probabilities: Whether scores are probabilities already (softmax or sigmoid inside the model).
        binary: Whether one number decides between two classes.
        classes: Number of classes; 0 for VALUES and INDEX.
    """

    meaning: Meaning
    probabilities: bool = False
    binary: bool = False
    classes: int = 0

    @property
    def is_classification(self) -> bool:
        """Whether top-1 means something."""
        return self.meaning is not Meaning.VALUES

    @property
    def is_class_per_sample(self) -> bool:
        """Whether there is one class for each sample."""
        return self.meaning in (Meaning.CLASSES, Meaning.INDEX)


def output_form(output: NDArray[np.generic], labels: Labels) -> OutputForm:
    """How to read outputs like this one of the base.

    Args:
        output: Output of the base for some samples, shape [n, ...].
        labels: All labels of the data set: int64 classes, float32 targets, or None.

    Raises:
        MeasureError: classes are given, but the output is not one score per class.
    """
    has_classes = labels is not None and labels.dtype.kind == "i"
    if labels is not None and not has_classes:
        return OutputForm(Meaning.VALUES)
    if output.dtype.kind in "iub" and output.size == len(output):
        return OutputForm(Meaning.INDEX)
    if output.dtype.kind != "f":
        raise MeasureError(
            f"the output that is judged holds {output.dtype} of shape {list(output.shape)}, not scores",
            hint=Hint("Name another output to judge", HintAction.CHOOSE_TASK),
        )
    if output.size == len(output):
        return _single_number(output, labels)
    if output.size == len(output) * output.shape[1]:
        probabilities = _are_probabilities(output.reshape(len(output), -1))
        return OutputForm(Meaning.CLASSES, probabilities, classes=output.shape[1])
    if has_classes:
        raise MeasureError(
            "the data has one class per sample, but the output that is judged has shape "
            f"{list(output.shape)}",
            hint=Hint(
                "Name the output with the class scores, or leave out the labels", HintAction.CHOOSE_TASK
            ),
        )
    if output.ndim == 3:
        probabilities = _are_probabilities(output.reshape(-1, output.shape[2]))
        return OutputForm(Meaning.TOKENS, probabilities, classes=output.shape[2])
    return OutputForm(Meaning.VALUES)


def class_scores(output: NDArray[np.generic], form: OutputForm) -> NDArray[np.float32]:
    """Scores by class, shape [rows, classes]; a row is a sample, or a position of a sample for TOKENS."""
    values = np.asarray(output, dtype=np.float32)
    if form.meaning is Meaning.TOKENS:
        return values.reshape(-1, values.shape[-1])
    if not form.binary:
        return values.reshape(len(values), -1)
    yes = values.reshape(-1)
    return np.stack([1 - yes if form.probabilities else np.zeros_like(yes), yes], axis=1)


def predictions(output: NDArray[np.generic], form: OutputForm) -> NDArray[np.int64]:
    """Class chosen in each row; -1 where a score is not a number, so that it is never right."""
    if form.meaning is Meaning.INDEX:
        return np.asarray(output, dtype=np.int64).reshape(-1)
    scores = class_scores(output, form)
    chosen: NDArray[np.int64] = scores.argmax(axis=1).astype(np.int64)
    chosen[np.isnan(scores).any(axis=1)] = -1
    return chosen


def _single_number(output: NDArray[np.generic], labels: Labels) -> OutputForm:
    if labels is None or not np.isin(labels, (0, 1)).all():
        return OutputForm(Meaning.VALUES)
    values = np.asarray(output, dtype=np.float64)
    inside = bool(((values >= 0) & (values <= 1)).all())
    return OutputForm(Meaning.CLASSES, probabilities=inside, binary=True, classes=2)


def _are_probabilities(rows: NDArray[np.generic]) -> bool:
    values = np.asarray(rows, dtype=np.float64)
    return bool(
        (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=PROBABILITY_TOLERANCE, rtol=0)
    )
