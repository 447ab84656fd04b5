"""Jobs in worker processes: one for work, one for quick jobs while somebody asks for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from quantstudio.jobs.backends.backend import EventCallback
from quantstudio.jobs.backends.supervisor import CANCEL_GRACE_S, Supervisor, WorkerHealth
from quantstudio.jobs.spec import JobSpec, Lane

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
        def supervisor(name: str, idle_s: float | None = None, modules: Sequence[str] = ()) -> Supervisor:
            return Supervisor(
                on_event,
                tasks_under=tasks_under,
                cancel_grace_s=cancel_grace_s,
                idle_s=idle_s,
                is_urgent=idle_s is not None,
                modules=modules,
                clock=clock,
                name=name,
            )

        self._work = supervisor("jobs")
        self._quick: Supervisor | None = None
        self._make_quick: Callable[[], Supervisor] = partial(
            supervisor, "quick jobs", quick_idle_s, quick_modules
        )
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
        return self._work.health

    @property
    def quick_health(self) -> WorkerHealth | None:
        """What is known of the worker for quick jobs; None before the first of them."""
        return None if self._quick is None else self._quick.health

    def _worker_of(self, lane: Lane) -> Supervisor:
        with self._lock:
            if lane is Lane.QUICK and self._quick is None and not self._is_closed:
                self._quick = self._make_quick()
        return self._work if lane is not Lane.QUICK or self._quick is None else self._quick

    @property
    def _workers(self) -> tuple[Supervisor, ...]:
        return (self._work,) if self._quick is None else (self._work, self._quick)
