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
