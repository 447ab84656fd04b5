"""What long work says while it runs, and how it is told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from quantstudio.core.errors import JobCancelled


class JobState(StrEnum):
    """Where a job stands; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
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


@dataclass(frozen=True, slots=True)
class LayerFinished:
    """A result for one layer that is valid by itself, whatever happens to the rest of the job."""

    layer: str
    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """Something the user should be able to read afterwards."""

    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as it crosses a process boundary: class name, the three parts, exit code, report, facts."""

    kind: str
    what: str
    where: str = ""
    hint: str = ""
    exit_code: int = 2
    report_path: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobEnded:
    """The last event of every job, exactly one, also when its process died."""

    state: JobState
    result: Mapping[str, Any] | None = None
    error: ErrorInfo | None = None


Event = Progress | LayerFinished | Message | JobEnded


class Reporter(Protocol):
    """Where a task tells what it is doing."""

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        """`done` of `total` units are finished; the receiver estimates the time left."""

    def layer_finished(self, layer: str, kind: str, values: Mapping[str, Any]) -> None:
        """One layer's result (JSON values) of the given kind is final or better than before."""

    def message(self, text: str, severity: Severity = Severity.INFO) -> None:
        """Something for the log."""


class NullReporter:
    """Says nothing; the default of every task."""

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        """Ignore."""

    def layer_finished(self, layer: str, kind: str, values: Mapping[str, Any]) -> None:
        """Ignore."""

    def message(self, text: str, severity: Severity = Severity.INFO) -> None:
        """Ignore."""


class CancelToken:
    """A flag set from another thread; tasks look at it at every batch and every layer."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._actions: list[Callable[[], None]] = []

    def set(self) -> None:
        """Ask the work to stop."""
        self._event.set()
        for action in tuple(self._actions):
            action()

    def is_set(self) -> bool:
        """Whether a stop was asked for."""
        return self._event.is_set()

    def raise_if_set(self) -> None:
        """Stop here if asked to.

        Raises:
            JobCancelled: the token is set.
        """
        if self._event.is_set():
            raise JobCancelled

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


NULL_REPORTER: Reporter = NullReporter()


def never_cancelled() -> CancelToken:
    """A token nobody will set."""
    return CancelToken()
