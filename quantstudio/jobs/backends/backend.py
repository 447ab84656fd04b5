"""What every place that runs jobs can do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from quantstudio.core.events import Event
from quantstudio.jobs.spec import JobSpec, Lane

logger = logging.getLogger(__name__)

# Job id and event; called on whatever thread the back end works on, in order, JobEnded last and once.
EventCallback = Callable[[str, Event], None]


class Backend(Protocol):
    """Runs jobs in the order they were submitted, one at a time; it may run quick ones beside the others.

    Its events go to the `EventCallback` it was made with; every job ends with exactly one JobEnded, also when
    what ran it died, and a callback that fails is logged and holds up nothing. Every method may be called on
    any thread, also from the callback. `tests/jobs/test_backends.py` is the contract that each one keeps.
    """

    def prepare(self, lane: Lane) -> None:
        """A job of this lane may come soon: get ready what it would wait for, or do nothing."""

    def submit(self, spec: JobSpec) -> None:
        """Run the job when those before it have ended; after `close` it ends as cancelled."""

    def cancel(self, job_id: str) -> None:
        """Stop the job, waiting or running; a job that has ended or never was is ignored."""

    def pause(self, job_id: str) -> None:
        """Let the job wait at its next batch or layer; a job that has ended or never was is ignored."""

    def resume(self, job_id: str) -> None:
        """Let a paused job go on; cancelling ends a pause, too."""

    def finish(self, job_id: str) -> None:
        """Let the job end early with what it has, if it can; another goes on as it was."""

    def allow_timing(self, job_id: str) -> None:
        """Let a job that told `Timing` and waits go on: nothing else of ours runs now."""

    def close(self) -> None:
        """End every job and release everything; safe to call twice."""


BackendFactory = Callable[[EventCallback], Backend]


def deliver(on_event: EventCallback, job_id: str, event: Event) -> None:
    """Hand an event over; the owner's fault must not take the jobs after this one with it."""
    try:
        on_event(job_id, event)
    except Exception:
        logger.exception("The receiver of events failed on %s", type(event).__name__)
