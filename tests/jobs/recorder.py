"""What a back end tells, kept by job, with ways to wait for it and to act on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from quantstudio.core.events import Event, JobEnded, PartFound
from quantstudio.jobs.spec import JobSpec, new_job
from tests.waiting import PATIENCE_S


def task(name: str, **params: Any) -> JobSpec:
    """A job that runs one of the `fake_tasks`."""
    return new_job(f"tests.jobs.fake_tasks:{name}", params, name)


class Recorder:
    """The receiver of a back end's events.

    Attributes:
        events: All of them, with the job they are of.
        react: Called on the back end's thread with each, after it was kept; a test puts its own here.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, Event]] = []
        self.react: Callable[[str, Event], None] = lambda _job, _event: None
        self._changed = threading.Condition()

    def __call__(self, job: str, event: Event) -> None:
        with self._changed:
            self.events.append((job, event))
            self._changed.notify_all()
        self.react(job, event)

    def at_first_part(self, job: str, action: Callable[[], object]) -> None:
        """Do something, on the back end's thread, when the job tells the first part of its result."""
        is_due = True

        def react(who: str, event: Event) -> None:
            nonlocal is_due
            if is_due and who == job and isinstance(event, PartFound):
                is_due = False
                action()

        self.react = react

    def of(self, job: str) -> list[Event]:
        return [event for name, event in self.events if name == job]

    def ends(self, job: str) -> list[JobEnded]:
        return [event for event in self.of(job) if isinstance(event, JobEnded)]

    def wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE_S), self.events[-5:]

    def wait_for_silence(self, job: str, seconds: float = 0.15) -> None:
        """Return when a job has reported nothing for a while."""
        with self._changed:
            seen = -1
            while seen != len(self.of(job)):
                seen = len(self.of(job))
                self._changed.wait(seconds)

    def wait_for_end(self, job: str) -> JobEnded:
        self.wait(lambda: bool(self.ends(job)))
        return self.ends(job)[0]

    def wait_for_part(self, job: str) -> None:
        self.wait(lambda: any(isinstance(event, PartFound) for event in self.of(job)))
