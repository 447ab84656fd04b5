"""What the data doctor finds: how a data set becomes what a network wants, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from quantstudio.core.data_spec import Transform
from quantstudio.core.hints import NO_HINT, Hint
from quantstudio.core.judgement import Judgement
from quantstudio.core.record import Record


class Ground(StrEnum):
    """What a transform was chosen by."""

    LABELS = "labels"  # the network answers what the labels say
    STATISTICS = "statistics"  # what reaches its batch normalizations is what they were trained on
    CONFIDENCE = "confidence"  # its answers are sure of themselves, and differ from sample to sample
    CONVENTION = "convention"  # nothing can be tried; the usual one for such numbers
    NOTHING_TO_CHOOSE = "nothing to choose"  # the network takes whole numbers as they are


class Trouble(StrEnum):
    """What can be wrong with data."""

    WRONG_TRANSFORM = "wrong transform"
    NEAR_CHANCE = "near chance"
    CONSTANT_ANSWERS = "constant answers"
    OVERLAP = "overlap"
    MISSING_CLASSES = "missing classes"
    UNLIKE_RANGE = "unlike range"
    LABELS_OUT_OF_RANGE = "labels out of range"
    WHOLE_TARGETS = "whole targets"
    NO_LABELS = "no labels"


@dataclass(frozen=True, slots=True)
class Caution:
    """One thing that is wrong, or may be, with data.

    Attributes:
        trouble: Which.
        text: One or two sentences for a person.
        hint: What to do about it.
        transform: The transform that mends it; None where it takes something else.
        is_certain: Whether results are worthless with it; else it may be meant.
    """

    trouble: Trouble
    text: str
    hint: Hint = NO_HINT
    transform: Transform | None = None
    is_certain: bool = True


@dataclass(frozen=True, slots=True)
class Trial:
    """A transform that was tried.

    Attributes:
        transform: It.
        title: What it is in a few words: "0 to 1", "mean and deviation of ImageNet".
        score: What it was chosen by, the higher the better; NaN where it was not tried.
        samples: Samples it was tried on.
    """

    transform: Transform
    title: str
    score: float = float("nan")
    samples: int = 0


@dataclass(frozen=True, slots=True)
class DataFigure:
    """A figure of the FP32 network on the data, measured.

    Attributes:
        label: For a person: "Top-1 accuracy", "R²".
        value: It; a share of 1 where `is_share`.
        low: Lower end of its 95 % interval.
        high: Upper end.
        is_share: Whether it is shown in percent.
        samples: Samples it was measured on.
        total: Samples there are.
        source: File or folder they come from.
        is_calibration: Whether those are calibration samples, for want of labelled test samples.
    """

    label: str
    value: float
    low: float
    high: float
    is_share: bool
    samples: int
    total: int
    source: str
    is_calibration: bool


@dataclass(frozen=True, slots=True)
class InputFacts:
    """What one input of the network gets.

    Attributes:
        name: The input.
        stored: Element type and shape of one stored sample: "uint8 [28, 28]".
        given: Element type and shape of one sample the network gets: "float32 [1, 28, 28]".
        stored_low: Smallest stored value of the samples looked at.
        stored_high: Largest.
        low: Smallest value the network gets.
        high: Largest.
        mean: Mean of what the network gets.
        std: Standard deviation of that.
    """

    name: str
    stored: str
    given: str
    stored_low: float
    stored_high: float
    low: float
    high: float
    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How many samples a class has in the whole data set."""

    index: int
    name: str
    count: int


@dataclass(frozen=True, slots=True)
class ShownSample:
    """One sample as the network gets it.

    Attributes:
        index: In the data set.
        png: A picture of it, base64; empty for rows and tokens.
        text: Its numbers; empty for pictures.
        label: What it is; empty without labels.
        answer: What the network takes it for; empty where it tells no classes apart.
        is_right: Whether that is its label; None without labels.
    """

    index: int
    png: str = ""
    text: str = ""
    label: str = ""
    answer: str = ""
    is_right: bool | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis(Record):
    """All the doctor says of a data set and a network.

    Attributes:
        path: The data.
        samples: Samples in it.
        ground: What the proposal was chosen by.
        reason: Why it is proposed, for a person.
        proposed: The transform that is proposed.
        asked: The transform that was asked about; None where there was none.
        trials: Every transform tried, the best first.
        figure: Of the transform in use: that asked about, else the proposed one. None where there is none.
        proposed_figure: The same samples with the proposed transform, where another was asked about.
        inputs: What the network's inputs get with the transform in use.
        classes: Classes among the labels; empty where there are none.
        labelled: Whether there are labels.
        shown: Some samples, with the transform in use.
        cautions: What is wrong, the worst first.
        digest: Of the content of the data.
        is_final: Whether nothing better follows.
        segments: Names of other columns.
        judgement: How the outputs were read; None in a first answer.
    """

    path: str
    samples: int
    ground: Ground
    reason: str
    proposed: Trial
    asked: Trial | None = None
    trials: tuple[Trial, ...] = ()
    figure: DataFigure | None = None
    proposed_figure: DataFigure | None = None
    inputs: tuple[InputFacts, ...] = ()
    classes: tuple[ClassCount, ...] = ()
    labelled: bool = False
    shown: tuple[ShownSample, ...] = ()
    cautions: tuple[Caution, ...] = ()
    digest: str = ""
    is_final: bool = True
    segments: tuple[str, ...] = ()
    judgement: Judgement | None = None

    @property
    def used(self) -> Trial:
        """The transform the figures are of."""
        return self.asked or self.proposed

    @property
    def runner_up(self) -> Trial | None:
        """The best of the others; None where nothing else was tried."""
        return next((t for t in self.trials if t.transform != self.proposed.transform), None)
