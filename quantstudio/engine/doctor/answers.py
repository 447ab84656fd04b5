"""How a network's outputs and the labels of a data set are read together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.errors import MeasureError
from quantstudio.core.events import CancelToken
from quantstudio.core.judgement import Judgement
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.data.labels import Labels
from quantstudio.engine.evaluation.judging import reading_of
from quantstudio.engine.evaluation.outputs import OutputForm
from quantstudio.engine.evaluation.reading import Kind, Reading
from quantstudio.engine.graph.graph import Graph

if TYPE_CHECKING:
    import onnxruntime as ort


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the answers of a network are, and what they are held against.

    Attributes:
        reading: How the outputs are read.
        labels: Of all samples, where they can be held against the answers.
        are_targets: Whether labels are whole numbers that are meant as numbers, not as classes.
    """

    reading: Reading
    labels: Labels | None
    are_targets: bool = False

    @property
    def judgement(self) -> Judgement:
        """What the network is for, with the reason."""
        return self.reading.judgement

    @property
    def form(self) -> OutputForm | None:
        """How class scores are read; None where each sample does not get one class."""
        form = self.reading.form
        return (
            form
            if self.reading.kind is Kind.CLASSES and form is not None and form.is_class_per_sample
            else None
        )

    @property
    def classes(self) -> int:
        """Classes the network tells apart; 0 for none."""
        return self.form.classes if self.form is not None else 0

    @property
    def is_regression(self) -> bool:
        """Whether answers are held against targets."""
        return self.labels is not None and self.form is None

    def labels_of(self, indices: NDArray[np.int64]) -> Labels | None:
        """Labels of some samples."""
        return None if self.labels is None else self.labels[indices]


def read_answers(
    graph: Graph, session: ort.InferenceSession, dataset: Dataset, cancel: CancelToken
) -> Answers:
    """How the answers of a network are read on a data set.

    Raises:
        MeasureError: it does not run on the data, or what the user said of the outputs does not fit.
        JobCancelled: `cancel` was set.
    """
    labels = dataset.labels
    try:
        reading = reading_of(graph.proto, session, dataset, cancel)
    except MeasureError:
        if labels is None:
            raise
        dataset.labels = None  # of something this network does not answer
        reading, labels = reading_of(graph.proto, session, dataset, cancel), None
    if labels is not None and labels.dtype.kind == "i" and _is_one_number(reading):
        return Answers(reading, labels, are_targets=True)
    is_answered = reading.uses_labels and reading.kind in (Kind.CLASSES, Kind.TARGETS)
    return Answers(reading, labels if is_answered else None)


def _is_one_number(reading: Reading) -> bool:
    return reading.kind is Kind.NUMBERS and len(reading.judgement.outputs) == 1
