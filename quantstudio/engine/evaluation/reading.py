"""How a network's outputs are read: what the base's few first samples decided, for it and every variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from quantstudio.core.judgement import Judgement
from quantstudio.engine.evaluation.outputs import OutputForm
from quantstudio.engine.evaluation.sample_axis import SampleAxis


class Kind(StrEnum):
    """What is compared."""

    CLASSES = "classes"  # one class a sample, or one a position: see the form
    DECISIONS = "decisions"  # every value a probability of its own
    MASKS = "masks"  # a class for each pixel
    BOXES = "boxes"
    TARGETS = "targets"  # numbers, against labels
    NUMBERS = "numbers"  # numbers, against the base's
    VECTORS = "vectors"
    VALUES = "values"  # the outputs as they are


class BoxForm(StrEnum):
    """How four numbers are a box."""

    CENTRE = "centre"  # x and y of the centre, width, height
    CORNERS = "corners"
    CELLS = "cells"  # centre in cells from its own cell, logarithms of the size in cells


@dataclass(frozen=True, slots=True)
class Head:
    """How boxes are read from a detector's outputs.

    Attributes:
        boxes: Output with the boxes.
        scores: Output with the scores; the same as `boxes` where one holds both.
        labels: Output with the classes; empty where scores tell them.
        channels_first: Whether the one output is [channels, candidates].
        form: What four numbers mean.
        objectness: Whether a confidence of the box itself comes before the classes.
        classes: Classes of the one output.
        is_final: Whether rows are [x, y, x, y, score, class], overlaps removed already.
        logits: Whether scores still need a Sigmoid.
        background: Class that means nothing; -1 where there is none.
        size: Height and width of the input, for cells.
    """

    boxes: str
    scores: str = ""
    labels: str = ""
    channels_first: bool = False
    form: BoxForm = BoxForm.CENTRE
    objectness: bool = False
    classes: int = 0
    is_final: bool = False
    logits: bool = False
    background: int = -1
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Reading:
    """How outputs are read.

    Attributes:
        judgement: The task with its reason and the outputs judged.
        kind: What is compared.
        axes: Where the samples are in every output that is compared, judged or not, in the network's order.
        floats: Those of them that hold float numbers.
        form: Of class scores.
        class_axis: Axis of the classes with samples first, where that is not the form's; 0 for a mask of
            one class.
        head: Of a detector.
        is_probability: Whether decisions and masks of one class passed their Sigmoid.
        has_blank: Whether tokens are read as a recogniser's: repeats and a blank left out.
        uses_labels: Whether labels judge, and not the base's outputs.
        foretells: Whether each position of a text is scores of the token that follows it.
        caveat: What the figure of the task leaves out, in the words of a caption.
    """

    judgement: Judgement
    kind: Kind
    axes: Mapping[str, SampleAxis] = field(default_factory=dict)
    floats: tuple[str, ...] = ()
    form: OutputForm | None = None
    class_axis: int = -1
    head: Head | None = None
    is_probability: bool = False
    has_blank: bool = False
    uses_labels: bool = False
    foretells: bool = False
    caveat: str = ""

    @property
    def output(self) -> str:
        """The first output that is judged."""
        return self.judgement.outputs[0]

    @property
    def has_whole_outputs(self) -> bool:
        """Whether an output that is compared carries no sample axis, so that feeds must be single samples."""
        return any(self.axes[name].axis < 0 for name in self.judgement.outputs)
