"""What every place that runs jobs can do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from quantstudio.core.events import Event
from quantstudio.jobs.spec import JobSpec

# Job id and event; called on a thread of the back end's own, in order, JobEnded last and once.
EventCallback = Callable[[str, Event], None]


class Backend(Protocol):
    """Runs jobs in the order they were submitted, one at a time; those of the quick lane beside the others.

    Its events go to the `EventCallback` it was made with; every job ends with exactly one JobEnded, also when
    what ran it died.
    """

    def submit(self, spec: JobSpec) -> None:
        """Run the job when those before it have ended; after `close` it ends as cancelled."""

    def cancel(self, job_id: str) -> None:
        """Stop the job, waiting or running; a job that has ended or never was is ignored."""

    def pause(self, job_id: str) -> None:
        """Let the job wait at its next batch or layer; a job that has ended or never was is ignored."""

    def resume(self, job_id: str) -> None:
        """Let a paused job go on; cancelling ends a pause, too."""

    def allow_timing(self, job_id: str) -> None:
        """Let a job that told `Timing` and waits go on: nothing else of ours runs now."""

    def close(self) -> None:
        """End every job and release everything; safe to call twice."""


BackendFactory = Callable[[EventCallback], Backend]
