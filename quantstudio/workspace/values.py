"""Plain values that edits and runs hand to whoever shows them."""

from __future__ import annotations

from dataclasses import dataclass

from quantstudio.core.hints import NO_HINT, Hint
from quantstudio.jobs.rows import NoticeLevel

NOT_TESTED = "measured on the samples that also set the ranges, which biases it upwards; choose test data"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Where and how the engine computes.

    Attributes:
        threads: Threads of the runtime when measuring; 0 leaves the choice to the engine.
        provider: Execution provider of ONNX Runtime for measuring.
        device: torch device of the sensitivity estimate.
        batch: Batch size of the latency runs.
    """

    threads: int = 0
    provider: str = "cpu"
    device: str = "cpu"
    batch: int = 1

    @property
    def measurement_row(self) -> str:
        """Tells measurements of one variant on one data set from each other."""
        return f"{self.provider}, {self.threads} threads, batch {self.batch}"


@dataclass(frozen=True, slots=True)
class Notification:
    """Something to tell the user without stopping them.

    Attributes:
        severity: How much it matters.
        text: What happened, one sentence.
        hint: What to do about it; may be empty.
        where: File, layer or tensor concerned; may be empty.
        error_kind: Class of the error (`core.errors`) it tells of; else empty.
    """

    severity: NoticeLevel
    text: str
    hint: Hint = NO_HINT
    where: str = ""
    error_kind: str = ""


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
