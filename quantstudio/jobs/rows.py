"""What a queue of jobs shows: a row per job, a line per message."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from quantstudio.core.events import JobState
from quantstudio.core.hints import NO_HINT, Hint


class NoticeLevel(StrEnum):
    """How much a notification or a line of the log matters."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class JobRow:
    """Where one job stands.

    Attributes:
        job_id: Identity.
        title: What it does, for a person.
        state: Where it stands.
        done: Units finished.
        total: Units in all; 0 while unknown.
        unit: Plural noun.
        label: What is being done now.
        seconds_left: Estimate, or None.
        seconds: Time it has run, pauses left out.
        outcome: One sentence about the result or the error; empty while it runs.
        hint: What to do about an error.
        report_path: Saved crash report; empty if there is none.
        error_kind: Class of the error (`core.errors`) of a job that failed; else empty.
        is_aside: The user did not ask for it: a look at devices or steps.
    """

    job_id: str
    title: str
    state: JobState
    done: int = 0
    total: int = 0
    unit: str = ""
    label: str = ""
    seconds_left: float | None = None
    seconds: float = 0.0
    outcome: str = ""
    hint: Hint = NO_HINT
    report_path: str = ""
    error_kind: str = ""
    is_aside: bool = False

    @property
    def fraction(self) -> float | None:
        """Part finished, 0 to 1; None while unknown."""
        return min(1.0, self.done / self.total) if self.total else None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the log: when (seconds since the epoch), how much it matters, what."""

    time: float
    severity: NoticeLevel
    text: str
