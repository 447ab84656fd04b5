"""Jobs in worker processes: one for work, one for quick jobs while somebody asks for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from quantstudio.jobs.backends.backend import EventCallback
from quantstudio.jobs.spec import JobSpec, Lane

if TYPE_CHECKING:
    from quantstudio.jobs.backends.supervisor import Supervisor, WorkerHealth

CANCEL_GRACE_S = 1.5
# Whoever chooses data tries it a few times; a worker that has read some holds 150 MB and more.
QUICK_IDLE_S = 60.0
# What a check of data loads first takes a second and more on a busy machine: it is there before the job is.
QUICK_MODULES = ("quantstudio.engine.tasks.data",)


class ProcessBackend:
    """Runs jobs in worker processes; every method but `close` returns at once.

    Quick jobs have a worker of their own, started for the first of them or when one is expected, not made to
    give way to the work and ended when it has been idle for a minute.

    Args:
        on_event: Gets job id and event, on a thread per worker. JobEnded comes exactly once per job, whatever
            happens.
        tasks_under: More module prefixes whose functions are tasks.
        cancel_grace_s: Time a running task gets to stop by itself, in seconds.
        quick_idle_s: Time the worker for quick jobs is kept without any, in seconds.
        quick_modules: What it imports before the first of them.
        clock: Seconds that grow steadily; grace periods, silence and idleness are measured with it.
    """

    def __init__(
        self,
        on_event: EventCallback,
        *,
        tasks_under: Sequence[str] = (),
        cancel_grace_s: float = CANCEL_GRACE_S,
        quick_idle_s: float = QUICK_IDLE_S,
        quick_modules: Sequence[str] = QUICK_MODULES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_event = on_event
        self._tasks_under = tasks_under
        self._cancel_grace_s = cancel_grace_s
        self._quick_idle_s = quick_idle_s
        self._quick_modules = quick_modules
        self._clock = clock
        self._work: Supervisor | None = None
        self._quick: Supervisor | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def prepare(self, lane: Lane) -> None:
        """Start the worker of the lane, if it does not run; one for quick jobs then stays for its minute."""
        self._worker_of(lane).prepare()

    def submit(self, spec: JobSpec) -> None:
        """Run the job when those before it in its worker have ended; after close() it ends as cancelled."""
        self._worker_of(spec.lane).submit(spec)

    def cancel(self, job_id: str) -> None:
        """Stop the job within two seconds: by its token, then by ending the worker."""
        for worker in self._workers:
            worker.cancel(job_id)

    def pause(self, job_id: str) -> None:
        """Let the job, waiting or running, wait at its next batch or layer."""
        for worker in self._workers:
            worker.pause(job_id)

    def resume(self, job_id: str) -> None:
        """Let a paused job go on."""
        for worker in self._workers:
            worker.resume(job_id)

    def finish(self, job_id: str) -> None:
        """Let a running job end early with what it has."""
        for worker in self._workers:
            worker.finish(job_id)

    def allow_timing(self, job_id: str) -> None:
        """Let a job that told `Timing` and waits go on."""
        for worker in self._workers:
            worker.allow_timing(job_id)

    def close(self) -> None:
        """End every job, the workers and all threads; returns when that is done, within two seconds."""
        with self._lock:
            self._is_closed = True
        for worker in self._workers:
            worker.begin_close()
        for worker in self._workers:
            worker.close()

    @property
    def health(self) -> WorkerHealth:
        """What is known of the worker that does the work."""
        return self._worker_of(Lane.WORK).health

    @property
    def quick_health(self) -> WorkerHealth | None:
        """What is known of the worker for quick jobs; None before the first of them."""
        return None if self._quick is None else self._quick.health

    def _worker_of(self, lane: Lane) -> Supervisor:
        """The worker of a lane, made for its first job; once closed there are no new ones for quick jobs."""
        with self._lock:
            if lane is Lane.QUICK and self._quick is None and not self._is_closed:
                self._quick = self._make("quick jobs", self._quick_idle_s, self._quick_modules)
            if lane is Lane.QUICK and self._quick is not None:
                return self._quick
            if self._work is None:
                self._work = self._make("jobs")
                if self._is_closed:
                    self._work.begin_close()
            return self._work

    def _make(self, name: str, idle_s: float | None = None, modules: Sequence[str] = ()) -> Supervisor:
        # A window is on the screen before it has work to give away.
        from quantstudio.jobs.backends.supervisor import Supervisor

        return Supervisor(
            self._on_event,
            tasks_under=self._tasks_under,
            cancel_grace_s=self._cancel_grace_s,
            idle_s=idle_s,
            is_urgent=idle_s is not None,
            modules=modules,
            clock=self._clock,
            name=name,
        )

    @property
    def _workers(self) -> tuple[Supervisor, ...]:
        return tuple(worker for worker in (self._work, self._quick) if worker is not None)
