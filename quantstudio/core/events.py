"""What long work says while it runs, and how it is told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from quantstudio.core.errors import JobCancelled
from quantstudio.core.hints import NO_HINT, Hint

if TYPE_CHECKING:
    from quantstudio.core.diagnosis import Diagnosis
    from quantstudio.core.recovered import LayerRecovered, StepBegun, StepTried
    from quantstudio.core.results import LayerSensitivity
    from quantstudio.core.search_results import SearchFront
    from quantstudio.core.trained import TrainingPoint


class JobState(StrEnum):
    """Where a job stands; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will come."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class Severity(StrEnum):
    """How much a message matters."""

    INFO = "info"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is.

    Attributes:
        done: Units finished.
        total: Units in all; 0 when unknown.
        unit: Plural noun: "batches", "layers".
        label: What is being done, for a person.
        seconds_left: Estimate, or None while there is none.
    """

    done: int
    total: int
    unit: str
    label: str
    seconds_left: float | None = None


# What long work tells before it ends: a layer's sensitivity, first or refined; a search's front as known now;
# what the data doctor sees at first sight; which step begins, what it won back in a layer, where its training
# stands, and how a step did that was only tried.
Part: TypeAlias = (
    "LayerSensitivity | SearchFront | Diagnosis | StepBegun | LayerRecovered | StepTried | TrainingPoint"
)


@dataclass(frozen=True, slots=True)
class PartFound:
    """A part of the result that is valid by itself, whatever happens to the rest of the job."""

    part: Part


@dataclass(frozen=True, slots=True)
class Message:
    """Something the user should be able to read afterwards."""

    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class Timing:
    """The task waits until nothing else of ours runs, to time runs; or it has timed them."""

    begins: bool


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as it crosses a process boundary: class name, the three parts, exit code, report, facts."""

    kind: str
    what: str
    where: str = ""
    hint: Hint = NO_HINT
    exit_code: int = 2
    report_path: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobEnded:
    """The last event of every job, exactly one, also when its process died."""

    state: JobState
    result: Mapping[str, Any] | None = None
    error: ErrorInfo | None = None


Event = Progress | PartFound | Message | Timing | JobEnded


class Reporter(Protocol):
    """Where a task tells what it is doing."""

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        """`done` of `total` units are finished; the receiver estimates the time left."""

    def found(self, part: Part) -> None:
        """This part of the result is final, or better than before."""

    def message(self, text: str, severity: Severity = Severity.INFO) -> None:
        """Something for the log."""


class NullReporter:
    """Says nothing; the default of every task."""

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        """Ignore."""

    def found(self, part: Part) -> None:
        """Ignore."""

    def message(self, text: str, severity: Severity = Severity.INFO) -> None:
        """Ignore."""


_PAUSE_STEP_S = 0.05


class CancelToken:
    """How long work is told to stop, to wait, and when it may time runs; set from another thread.

    Tasks look at it at every batch and every layer. The same look is where a paused task waits, so a run in
    progress is finished first.

    Args:
        clock: Seconds that grow steadily; pauses are measured with it.
        on_timing: Told True when the work is about to time runs, which then waits until `allow_timing`, and
            False when it has timed them. None lets it time at once: nothing of ours runs beside it.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        on_timing: Callable[[bool], None] | None = None,
    ) -> None:
        self._clock = clock
        self._on_timing = on_timing
        self._event = threading.Event()
        self._actions: list[Callable[[], None]] = []
        # Reentrant: a signal handler may set the token from the very thread that is in the middle of this.
        self._lock = threading.RLock()
        self._is_paused_by_user = self._is_waiting_to_time = self._is_timing = False
        self._paused_at: float | None = None
        self._paused_s = 0.0
        self._is_asked_to_finish = False

    def pause(self) -> None:
        """Ask the work to wait at its next look, until `resume` or `set`; a token that is set stays so."""
        with self._lock:
            if not self._event.is_set():
                self._is_paused_by_user = True
                self._note_pause()

    def finish(self) -> None:
        """Ask work that can end early with what it has to do so; other work goes on. Ends a pause."""
        self._is_asked_to_finish = True
        self.resume()

    @property
    def is_asked_to_finish(self) -> bool:
        """Whether to end early, with what there is."""
        return self._is_asked_to_finish

    def resume(self) -> None:
        """Let the work go on; it still waits for its turn to time runs."""
        with self._lock:
            self._is_paused_by_user = False
            self._note_pause()

    def allow_timing(self) -> None:
        """Let work that waits in `timing` go on: nothing else of ours runs now."""
        with self._lock:
            self._is_waiting_to_time = False
            self._note_pause()

    @property
    def is_paused(self) -> bool:
        """Whether the work waits, or is going to."""
        return self._paused_at is not None

    @property
    def paused_s(self) -> float:
        """Seconds of all pauses so far, the present one included: time that says nothing about speed."""
        since = self._paused_at
        return self._paused_s + (0.0 if since is None else self._clock() - since)

    def set(self) -> None:
        """Ask the work to stop; ends a pause."""
        self._event.set()
        self.resume()
        self.allow_timing()
        for action in tuple(self._actions):
            action()

    def is_set(self) -> bool:
        """Whether a stop was asked for."""
        return self._event.is_set()

    def raise_if_set(self) -> None:
        """Stop here if asked to; wait here while paused.

        Raises:
            JobCancelled: the token is set.
        """
        # Looking again and again instead of waiting on a lock: a signal handler may set the token from the
        # very thread that waits.
        while self._paused_at is not None and not self._event.is_set():
            time.sleep(_PAUSE_STEP_S)
        if self._event.is_set():
            raise JobCancelled

    @contextmanager
    def timing(self) -> Iterator[None]:
        """While the block runs, no other job of ours does; waits for that first. Inner blocks are no-ops.

        Raises:
            JobCancelled: the token is set, also while it waits.
        """
        if self._on_timing is None or self._is_timing:
            yield
            return
        with self._lock:
            self._is_timing = True
            self._is_waiting_to_time = not self._event.is_set()
            self._note_pause()
        self._on_timing(True)
        try:
            self.raise_if_set()
            yield
        finally:
            self._is_timing = False
            self.allow_timing()
            self._on_timing(False)

    @contextmanager
    def on_set(self, action: Callable[[], None]) -> Iterator[None]:
        """While the block runs, call `action` when the token is set; at once if it is already.

        For native calls that do not look at the token: the action, called in the thread that sets it, makes
        them return early. It may be called twice.
        """
        # No lock: a signal handler may set the token in the middle of this. Appending comes before looking,
        # so whichever thread is second sees what the first did.
        self._actions.append(action)
        try:
            if self._event.is_set():
                action()
            yield
        finally:
            self._actions.remove(action)

    def _note_pause(self) -> None:
        """Start or stop the clock of pauses; called with the lock held."""
        is_paused = self._is_paused_by_user or self._is_waiting_to_time
        if is_paused and self._paused_at is None:
            self._paused_at = self._clock()
        elif not is_paused and self._paused_at is not None:
            since, self._paused_at = self._paused_at, None
            self._paused_s += self._clock() - since


NULL_REPORTER: Reporter = NullReporter()


def never_cancelled() -> CancelToken:
    """A token nobody will set."""
    return CancelToken()
