"""What a network is for, and how its outputs are read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Task(StrEnum):
    """What the outputs of a network are; the values are what `--task` takes."""

    CLASSIFY = "classify"
    SEGMENT = "segment"
    DETECT = "detect"
    REGRESS = "regress"
    EMBED = "embed"
    TOKENS = "tokens"
    SIGNAL = "signal"
    UNKNOWN = "unknown"

    @property
    def label(self) -> str:
        """For a person."""
        return _LABELS[self]


_LABELS = {
    Task.CLASSIFY: "Classification",
    Task.SEGMENT: "Segmentation",
    Task.DETECT: "Detection",
    Task.REGRESS: "Regression",
    Task.EMBED: "Embedding",
    Task.TOKENS: "Tokens",
    Task.SIGNAL: "Signal",
    Task.UNKNOWN: "Unknown: values are compared",
}


@dataclass(frozen=True, slots=True)
class Judging:
    """What the user said of the outputs; what is left empty is inferred.

    Attributes:
        task: What the network is for.
        output: Name of the output that is judged.
        metric: `module:callable` of a metric of one's own.
    """

    task: Task | None = None
    output: str = ""
    metric: str = ""


INFERRED = Judging()


@dataclass(frozen=True, slots=True)
class Judgement:
    """How outputs were read, and why.

    Attributes:
        task: What the network is for.
        reason: Why it is taken for that, one sentence for a person.
        outputs: Names of the outputs that are judged.
        axes: Sample axis of each of them, in the same order; -1 where it carries none and is compared whole.
        is_chosen: Whether the user said so.
    """

    task: Task
    reason: str
    outputs: tuple[str, ...] = ()
    axes: tuple[int, ...] = ()
    is_chosen: bool = False


@dataclass(frozen=True, slots=True)
class TaskFigure:
    """The one figure a task is judged by.

    Every one is a share, higher is better, and a loss is the base's share less the variant's, in points (or
    percent of the output). So value = base - loss / 100, whatever the task.

    Attributes:
        metric: Its key among the metrics.
        label: For a person.
        unit: "points", or "%" where it is an error relative to the output.
        floor: Largest loss a result may have by default.
        why: Why the floor lies there.
    """

    metric: str
    label: str
    unit: str
    floor: float
    why: str


# With labels a loss is a loss. Without, the base is the reference, and a variant that only decides unsure
# samples another way is not worse: answers that change are about five times the accuracy that is lost.
TOP1 = TaskFigure("top1", "Top-1 accuracy", "points", 1.0, "One point of what the labels say.")
TARGETS = TaskFigure("r2", "R² against the targets", "points", 1.0, "One point of what the labels say.")
LABELLED_DECISIONS = TaskFigure("f1", "F1 of yes-or-no labels", "points", 1.0, "One point of what they say.")
OWN_METRIC = TaskFigure("own", "Own metric", "points", 1.0, "One point, for a metric that is a share.")
AGREEMENT = TaskFigure(
    "agreement",
    "Same answers as the base",
    "points",
    5.0,
    "Answers that change are mostly unsure ones, and about a fifth of them is accuracy lost.",
)
DECISIONS = TaskFigure(
    "f1", "F1 of yes-or-no answers", "points", 5.0, "As for classes: values near one half change first."
)
MASKS = TaskFigure(
    "miou", "Mean IoU with the base", "points", 5.0, "Edges move by a pixel before regions are lost."
)
BOXES = TaskFigure(
    "f1",
    "F1 of matched boxes",
    "points",
    7.0,
    "Boxes near the confidence threshold come and go: at .93 mean average precision loses under a point.",
)
POSITIONS = TaskFigure(
    "agreement", "Same token at each position", "points", 5.0, "As for classes, position by position."
)
LIKELIHOOD = TaskFigure(
    "likelihood",
    "Likelihood of the text kept",
    "%",
    3.0,
    "The base's perplexity over its own: what careful 4-bit weights lose, and a reader does not notice.",
)
VALUES = TaskFigure(
    "r2",
    "Values explained (R² against the base)",
    "points",
    1.0,
    "One percent of the spread between samples: an error of a tenth of it, 20 dB.",
)
VECTORS = TaskFigure(
    "cosine", "Cosine with the base", "points", 1.0, "At .99 the order of neighbours is mostly kept."
)
SIGNAL = TaskFigure(
    "kept", "Output kept (1 - relative error)", "%", 10.0, "An error of a tenth of the output is 20 dB."
)
