"""Jobs in the thread that submits them: where a debugger sees them, or no process can be started."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from quantstudio.core.events import CancelToken
from quantstudio.jobs.backends.backend import EventCallback, deliver
from quantstudio.jobs.execution import run_task
from quantstudio.jobs.reporters import EventReporter, working_clock
from quantstudio.jobs.spec import TASK_PREFIXES, JobSpec, Lane


class InlineBackend:
    """Runs jobs where they are submitted: `submit` returns when they have ended.

    One that is submitted while another runs, by its events or by another thread, waits for its turn and runs
    in the thread that is already at work. A paused job holds that thread until another resumes or cancels it.

    Args:
        on_event: Gets every event, on the thread that works.
        tasks_under: More module prefixes whose functions are tasks.
    """

    def __init__(self, on_event: EventCallback, *, tasks_under: Sequence[str] = ()) -> None:
        self._on_event = on_event
        self._prefixes = (*TASK_PREFIXES, *tasks_under)
        self._lock = threading.Lock()
        self._waiting: deque[JobSpec] = deque()
        self._tokens: dict[str, CancelToken] = {}
        self._is_working = self._is_closed = False

    def prepare(self, lane: Lane) -> None:
        """Nothing to do: this process is there."""

    def submit(self, spec: JobSpec) -> None:
        """Run the job, now or after those before it; its fate is in its last event."""
        with self._lock:
            self._tokens[spec.id] = token = CancelToken()
            if self._is_closed:
                token.set()
            self._waiting.append(spec)
            is_working, self._is_working = self._is_working, True
        if not is_working:
            self._work()

    def cancel(self, job_id: str) -> None:
        """Set the token of a job that waits or runs."""
        if token := self._tokens.get(job_id):
            token.set()

    def pause(self, job_id: str) -> None:
        """Let a job wait at its next batch or layer until another thread resumes or cancels it."""
        if token := self._tokens.get(job_id):
            token.pause()

    def resume(self, job_id: str) -> None:
        """Let it go on."""
        if token := self._tokens.get(job_id):
            token.resume()

    def finish(self, job_id: str) -> None:
        """Let a job end early with what it has; another thread says so."""
        if token := self._tokens.get(job_id):
            token.finish()

    def allow_timing(self, job_id: str) -> None:
        """Nothing to do: no job runs beside one that holds its thread, so none waits for it."""

    def close(self) -> None:
        """Stop what waits or runs; later jobs end as cancelled."""
        with self._lock:
            self._is_closed = True
            tokens = tuple(self._tokens.values())
        for token in tokens:
            token.set()

    def _work(self) -> None:
        try:
            while (spec := self._next()) is not None:
                self._run(spec)
        except BaseException:
            # Ctrl+C between two jobs: those that wait are run by whoever submits the next.
            self._is_working = False
            raise

    def _next(self) -> JobSpec | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._is_working = False
            return None

    def _run(self, spec: JobSpec) -> None:
        token = self._tokens[spec.id]
        reporter = EventReporter(
            lambda event: deliver(self._on_event, spec.id, event), clock=working_clock(token)
        )
        ended = run_task(spec, reporter, token, prefixes=self._prefixes)
        reporter.flush(final=True)
        del self._tokens[spec.id]
        deliver(self._on_event, spec.id, ended)
