"""Plain values the session hands to the views."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from quantstudio.core.events import JobState
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import BuildResult, VariantResult
from quantstudio.project.state import Plan

__all__ = [
    "NOT_TESTED",
    "JobRow",
    "LogLine",
    "NoticeLevel",
    "Notification",
    "Plan",
    "TrustRequest",
    "Variant",
]

NOT_TESTED = (
    "measured on the samples that also set the ranges, which flatters it; choose test data with Model, Data"
)


class NoticeLevel(StrEnum):
    """How much a notification matters."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Notification:
    """Something to tell the user without stopping them.

    Attributes:
        severity: How much it matters.
        text: What happened, one sentence.
        hint: What to do about it; may be empty.
        where: File, layer or tensor concerned; may be empty.
    """

    severity: NoticeLevel
    text: str
    hint: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """A model that was built, with what was measured of it.

    Attributes:
        name: Name for the screen.
        plan: Plan it was built from; empty for the base.
        variant_hash: Hash of (graph, statistics, recipe).
        recipe_digest: Digest of the recipe.
        recipe: The recipe itself; loading it brings the variant's choices back.
        build: What the build found; None for the base.
        result: What was measured; None before.
        is_base: Whether this is the FP32 model everything is compared with.
        is_current: Whether it was built from the recipe as it is now.
        path: The ONNX file.
    """

    name: str
    plan: str
    variant_hash: str
    recipe_digest: str
    recipe: Recipe
    build: BuildResult | None
    result: VariantResult | None
    is_base: bool
    is_current: bool
    path: str = ""


@dataclass(frozen=True, slots=True)
class JobRow:
    """One line of the jobs panel.

    Attributes:
        job_id: Identity.
        title: What it does, for a person.
        state: Where it stands.
        done: Units finished.
        total: Units in all; 0 while unknown.
        unit: Plural noun.
        label: What is being done now.
        seconds_left: Estimate, or None.
        seconds: Time it has run.
        outcome: One sentence about the result or the error; empty while it runs.
        hint: What to do about an error.
        report_path: Saved crash report; empty if there is none.
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
    hint: str = ""
    report_path: str = ""

    @property
    def fraction(self) -> float | None:
        """Part finished, 0 to 1; None while unknown."""
        return min(1.0, self.done / self.total) if self.total else None


@dataclass(frozen=True, slots=True)
class TrustRequest:
    """A file that is a program: it may be opened only after the user agreed.

    Attributes:
        path: The file or `module:callable`.
        purpose: "model" or "data".
        reason: Why opening it runs code.
        factory: `module:callable` that makes the network a state_dict belongs to; asked for when the file
            is a state_dict.
    """

    path: str
    purpose: str
    reason: str
    factory: str = ""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the log: when (seconds since the epoch), how much it matters, what."""

    time: float
    severity: NoticeLevel
    text: str
