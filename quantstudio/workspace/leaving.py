"""The question before work is stopped because something else is opened, or the program is to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quantstudio.core.signals import Signal
from quantstudio.jobs.queue import JobQueue
from quantstudio.jobs.spec import Lane

# The key of the work that opens a model.
OPEN = "open"
# Over in a moment and made again when they are needed: nobody minds.
_CHEAP = frozenset({OPEN, "weights", "steps first"})


@dataclass(frozen=True, slots=True)
class LeaveRequest:
    """Work would be stopped; only the user can say whether it may.

    Attributes:
        opens: What is to be opened instead, for a person; empty where the program is to end.
        jobs: Titles of the work that runs and waits.
    """

    opens: str
    jobs: tuple[str, ...]


class Leaving:
    """Opens something else at once where nothing runs; else asks, where there is somebody to ask.

    Attributes:
        asked: Work would be stopped: answer with `stop`, `wait` or `stay`.
        is_asking: Whether somebody answers; a script that opens something else means it.

    Args:
        jobs: The queue.
    """

    def __init__(self, jobs: JobQueue) -> None:
        self.asked: Signal[[LeaveRequest]] = Signal()
        self.is_asking = False
        self._jobs = jobs
        self._go: Callable[[], object] | None = None
        self._waits = False
        jobs.idle.connect(self._on_idle)

    @property
    def waits_for_work(self) -> bool:
        """Whether something is opened once the work is done."""
        return self._waits

    def then(self, opens: str, go: Callable[[], object]) -> None:
        """Call `go`, which opens something else, as soon as the user lets what is open go."""
        self._waits = False
        titles = self._titles()
        if titles and self.is_asking:
            self._go = go
            self.asked.emit(LeaveRequest(opens, titles))
        else:
            self._go = None
            go()

    @property
    def asks(self) -> bool:
        """Whether `then` would ask first."""
        return self.is_asking and bool(self._titles())

    def _titles(self) -> tuple[str, ...]:
        titles = (
            work.title
            for work in self._jobs.under_way
            if work.lane is not Lane.QUICK and work.key not in _CHEAP and not work.is_detached
        )
        return tuple(dict.fromkeys(titles))

    def stop(self) -> None:
        """Open it now; the work is cancelled, and what it finished is kept."""
        go, self._go, self._waits = self._go, None, False
        if go is not None:
            go()

    def wait(self) -> None:
        """Open it when nothing runs or waits any more."""
        if not self._jobs.is_busy:
            self.stop()
        else:
            self._waits = self._go is not None

    def stay(self) -> None:
        """Do not open it."""
        self._go, self._waits = None, False

    def _on_idle(self) -> None:
        if self._waits:
            self.stop()
