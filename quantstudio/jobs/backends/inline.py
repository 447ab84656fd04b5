"""Jobs in the calling thread: for the command line and for tests."""

from __future__ import annotations

from collections.abc import Sequence

from quantstudio.core.events import CancelToken, Event, JobEnded, JobState
from quantstudio.jobs.backends.backend import EventCallback
from quantstudio.jobs.execution import Outcome, run_task
from quantstudio.jobs.reporters import EventReporter, working_clock
from quantstudio.jobs.spec import TASK_PREFIXES, JobSpec


class InlineBackend:
    """Runs each job at once, where it is submitted.

    Args:
        on_event: Gets every event, on the calling thread.
        prefixes: Modules whose functions are tasks.
    """

    def __init__(
        self, on_event: EventCallback | None = None, *, prefixes: Sequence[str] = TASK_PREFIXES
    ) -> None:
        self._on_event = on_event
        self._prefixes = tuple(prefixes)
        self._tokens: dict[str, CancelToken] = {}
        self._is_closed = False

    def run(
        self, spec: JobSpec, *, cancel: CancelToken | None = None, raise_errors: bool = False
    ) -> JobEnded:
        """Run a job to its end.

        Args:
            spec: The job.
            cancel: A token of the caller's own; `cancel(spec.id)` sets it too.
            raise_errors: Raise the task's own exception (also JobCancelled and KeyboardInterrupt) after the
                last event instead of returning it as an ErrorInfo.

        Returns:
            The last event.
        """
        outcome = self._run(spec, cancel or CancelToken())
        if raise_errors and outcome.error is not None:
            raise outcome.error
        return outcome.ended

    def submit(self, spec: JobSpec) -> None:
        """Run a job to its end; its fate is in its last event."""
        self._run(spec, CancelToken())

    def cancel(self, job_id: str) -> None:
        """Set the token of a running job; called from an event callback or another thread."""
        if token := self._tokens.get(job_id):
            token.set()

    def pause(self, job_id: str) -> None:
        """Let a running job wait until another thread resumes or cancels it."""
        if token := self._tokens.get(job_id):
            token.pause()

    def resume(self, job_id: str) -> None:
        """Let it go on."""
        if token := self._tokens.get(job_id):
            token.resume()

    def allow_timing(self, job_id: str) -> None:
        """Nothing to do: no job runs beside one that holds the calling thread, so none waits for it."""

    def close(self) -> None:
        """Stop what runs; later jobs end as cancelled."""
        self._is_closed = True
        for token in list(self._tokens.values()):
            token.set()

    def _run(self, spec: JobSpec, token: CancelToken) -> Outcome:
        if self._is_closed:
            token.set()
        self._tokens[spec.id] = token
        reporter = EventReporter(lambda event: self._emit(spec.id, event), clock=working_clock(token))
        try:
            outcome = run_task(spec, reporter, token, prefixes=self._prefixes)
        finally:
            del self._tokens[spec.id]
        if outcome.ended.state is JobState.SUCCEEDED:
            reporter.flush(final=True)
        self._emit(spec.id, outcome.ended)
        return outcome

    def _emit(self, job_id: str, event: Event) -> None:
        if self._on_event is not None:
            self._on_event(job_id, event)
