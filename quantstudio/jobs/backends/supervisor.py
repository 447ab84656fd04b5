"""One worker and its jobs: started when needed, replaced when it dies, ended when nobody needs it."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from quantstudio.core.errors import WorkerDiedError
from quantstudio.core.events import ErrorInfo, Event, JobEnded, JobState, Message, Severity
from quantstudio.core.hints import Hint
from quantstudio.jobs.backends.backend import EventCallback, deliver
from quantstudio.jobs.backends.worker_process import WorkerProcess, exit_text
from quantstudio.jobs.execution import save_report
from quantstudio.jobs.protocol import (
    AllowTiming,
    Beat,
    Cancel,
    Command,
    Finish,
    JobEvent,
    Pause,
    Ping,
    ProtocolError,
    Resume,
    Run,
    Shutdown,
    Started,
    WorkerMessage,
    decode_message,
)
from quantstudio.jobs.spec import JobSpec

CLOSE_GRACE_S = 1.0
TERMINATE_GRACE_S = 0.2
# A beat comes every second; native code that keeps Python's lock delays it, by seconds in a sound worker.
SILENCE_S = 15.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """What is known of the worker now.

    Attributes:
        pid: Process id; None while there is no worker.
        job: Running job, or empty.
        silent_s: Seconds since the worker last said anything, beats included; above 15 it hangs.
        quiet_s: Seconds since the job last reported; long with `silent_s` short means busy or waiting.
        cpu_s: Processor seconds used, as of the last beat: if it stands still, the job waits.
    """

    pid: int | None
    job: str
    silent_s: float
    quiet_s: float
    cpu_s: float


class _Escalation(Enum):
    """The next thing to do to a job that does not stop."""

    TERMINATE = auto()
    KILL = auto()
    WAIT = auto()


@dataclass(slots=True)
class _Job:
    spec: JobSpec
    is_started: bool = False
    was_retried: bool = False
    is_cancelled: bool = False
    is_paused: bool = False
    escalation: _Escalation = _Escalation.TERMINATE
    deadline: float | None = None
    is_silence_told: bool = False


@dataclass(slots=True)
class _Link:
    """A worker and what was heard from it."""

    process: WorkerProcess
    heard_at: float
    beat: Beat = field(default_factory=lambda: Beat("", 0.0, 0.0))


class Supervisor:
    """Runs jobs one at a time in a worker process.

    Every method returns at once. All state belongs to one thread, fed by a queue of commands, worker lines
    and deadlines; events are called from it, in order.

    Args:
        on_event: Gets job id and event. JobEnded comes exactly once per job, whatever happens.
        tasks_under: More module prefixes whose functions are tasks.
        cancel_grace_s: Time a running task gets to stop by itself.
        idle_s: An idle worker is ended after this many seconds; None keeps it until `close`.
        is_urgent: Whether the worker competes with the window instead of giving way to it.
        modules: What the worker imports as soon as it runs.
        clock: Seconds that grow steadily; grace periods, silence and idleness are measured with it.
        name: Of the supervising thread.
    """

    def __init__(
        self,
        on_event: EventCallback,
        *,
        tasks_under: Sequence[str] = (),
        cancel_grace_s: float,
        idle_s: float | None = None,
        is_urgent: bool = False,
        modules: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        name: str = "jobs",
    ) -> None:
        self._on_event = on_event
        self._tasks_under = tuple(tasks_under)
        self._cancel_grace_s = cancel_grace_s
        self._idle_s = idle_s
        self._idle_since = math.inf
        self._is_urgent = is_urgent
        self._modules = tuple(modules)
        self._clock = clock
        self._inbox: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = queue.SimpleQueue()
        self._waiting: deque[_Job] = deque()
        self._running: _Job | None = None
        self._link: _Link | None = None
        self._generation = 0
        self._is_closing = False
        self._is_done = False
        self._submit_lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._supervise, name=name, daemon=True)
        self._thread.start()

    # Called by anyone.

    def prepare(self) -> None:
        """Start a worker, if there is none; an idle one is kept for as long again."""
        self._inbox.put((self._do_prepare, ()))

    def submit(self, spec: JobSpec) -> None:
        """Run the job when those before it have ended; after close() it ends as cancelled."""
        with self._submit_lock:
            if not self._is_closed:
                self._inbox.put((self._do_submit, (spec,)))
                return
        self._tell(spec.id, JobEnded(JobState.CANCELLED))

    def cancel(self, job_id: str) -> None:
        """Stop the job within two seconds: by its token, then by ending the worker."""
        self._inbox.put((self._do_cancel, (job_id,)))

    def pause(self, job_id: str) -> None:
        """Let the job, waiting or running, wait at its next batch or layer."""
        self._inbox.put((self._do_pause, (job_id, True)))

    def resume(self, job_id: str) -> None:
        """Let a paused job go on."""
        self._inbox.put((self._do_pause, (job_id, False)))

    def finish(self, job_id: str) -> None:
        """Let a running job end early with what it has."""
        self._inbox.put((self._do_send, (job_id, Finish(job_id))))

    def allow_timing(self, job_id: str) -> None:
        """Let a job that waits for it time runs."""
        self._inbox.put((self._do_send, (job_id, AllowTiming(job_id))))

    def begin_close(self) -> None:
        """End every job and the worker; returns at once."""
        with self._submit_lock:
            if not self._is_closed:
                self._is_closed = True
                self._inbox.put((self._do_close, ()))

    def close(self) -> None:
        """End every job, the worker and all threads; returns when that is done, within two seconds."""
        self.begin_close()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def health(self) -> WorkerHealth:
        """What is known of the worker now."""
        link, running = self._link, self._running
        job = running.spec.id if running else ""
        if link is None:
            return WorkerHealth(None, job, 0.0, 0.0, 0.0)
        silent = self._clock() - link.heard_at
        return WorkerHealth(link.process.pid, job, silent, link.beat.quiet_s, link.beat.cpu_s)

    # Everything below runs on the supervising thread.

    def _supervise(self) -> None:
        while not self._is_done:
            try:
                action, arguments = self._inbox.get(timeout=self._seconds_to_wait())
            except queue.Empty:
                pass
            else:
                action(*arguments)
            self._check_deadlines()

    def _seconds_to_wait(self) -> float | None:
        job = self._running
        if job is None:
            if self._idle_s is None or self._link is None:
                return None
            return max(0.0, self._idle_since + self._idle_s - self._clock())
        if job.deadline is not None:
            return max(0.0, job.deadline - self._clock())
        return 1.0

    def _do_prepare(self) -> None:
        self._idle_since = self._clock()
        if self._link is None and not self._is_closing:
            self._start_ahead()

    def _do_submit(self, spec: JobSpec) -> None:
        self._waiting.append(_Job(spec))
        self._start_next()

    def _do_cancel(self, job_id: str, grace_s: float | None = None) -> None:
        for job in self._waiting:
            if job.spec.id == job_id:
                self._waiting.remove(job)
                self._tell(job_id, JobEnded(JobState.CANCELLED))
                return
        running = self._running
        if running is None or running.spec.id != job_id or running.is_cancelled or self._link is None:
            return
        running.is_cancelled = True
        running.deadline = self._clock() + (self._cancel_grace_s if grace_s is None else grace_s)
        self._link.process.send(Cancel(job_id))

    def _do_pause(self, job_id: str, is_paused: bool) -> None:
        for job in self._waiting:
            if job.spec.id == job_id:
                job.is_paused = is_paused
        running = self._running
        if running is None or running.spec.id != job_id or running.is_cancelled or self._link is None:
            return
        if running.is_paused is not is_paused:
            running.is_paused = is_paused
            self._link.process.send(Pause(job_id) if is_paused else Resume(job_id))

    def _do_send(self, job_id: str, command: Command) -> None:
        """Pass a command on to the job it is for, while that runs."""
        running = self._running
        if running is not None and running.spec.id == job_id and self._link is not None:
            self._link.process.send(command)

    def _do_close(self) -> None:
        self._is_closing = True
        for job in list(self._waiting):
            self._do_cancel(job.spec.id)
        if self._running is not None:
            self._do_cancel(self._running.spec.id, CLOSE_GRACE_S)
        else:
            self._shut_down()

    def _shut_down(self) -> None:
        if self._link is not None:
            self._end_worker(self._link)
        self._is_done = True

    def _end_worker(self, link: _Link) -> None:
        """End an idle worker: it holds nothing worth waiting for."""
        self._link = None
        link.process.send(Shutdown())
        link.process.kill()
        link.process.finish()

    def _start_next(self) -> None:
        if self._is_closing or self._running is not None or not self._waiting:
            return
        job = self._running = self._waiting.popleft()
        try:
            link = self._link or self._start_worker()
        except OSError as error:
            self._end(JobEnded(JobState.FAILED, error=_not_started(error)))
            return
        link.heard_at = self._clock()
        link.process.send(Run(job.spec, job.is_paused))

    def _start_ahead(self) -> None:
        try:
            self._start_worker()
        except OSError:
            logger.exception("Cannot start a worker ahead of time")

    def _start_worker(self) -> _Link:
        self._generation = generation = self._generation + 1
        process = WorkerProcess(
            lambda line: self._inbox.put((self._do_line, (generation, line))),
            lambda: self._inbox.put((self._do_worker_end, (generation,))),
            tasks_under=self._tasks_under,
            is_urgent=self._is_urgent,
            modules=self._modules,
        )
        self._idle_since = self._clock()
        self._link = _Link(process, self._idle_since)
        return self._link

    def _do_line(self, generation: int, line: bytes) -> None:
        link = self._link
        if link is None or generation != self._generation:
            return
        link.heard_at = self._clock()
        try:
            message = decode_message(line)
        except ProtocolError:
            logger.exception("Worker %d broke the protocol", link.process.pid)
            link.process.kill()
            return
        self._on_message(link, message)

    def _on_message(self, link: _Link, message: WorkerMessage) -> None:
        job = self._running
        if isinstance(message, Beat):
            link.beat = message
        elif job is None:
            return
        elif isinstance(message, Started) and message.job == job.spec.id:
            job.is_started = True
        elif isinstance(message, JobEvent) and message.job == job.spec.id:
            job.is_silence_told = False
            if isinstance(message.event, JobEnded):
                self._end(message.event)
            else:
                self._tell(job.spec.id, message.event)

    def _do_worker_end(self, generation: int) -> None:
        link = self._link
        if link is None or generation != self._generation:
            return
        self._link = None
        code = link.process.finish()
        job = self._running
        if job is None:
            logger.info("The idle worker ended (%s); the next job starts another", exit_text(code))
        elif job.is_cancelled:
            self._end(JobEnded(JobState.CANCELLED))
        elif not job.is_started and not job.was_retried:
            # It died between two jobs, before this one could do anything.
            job.was_retried = True
            self._running = None
            self._waiting.appendleft(job)
            self._start_next()
        else:
            error = _worker_died(code, link.process.stderr_tail, job.spec)
            self._end(JobEnded(JobState.FAILED, error=error))

    def _end(self, ended: JobEnded) -> None:
        job, self._running = self._running, None
        self._idle_since = self._clock()
        if job is not None:
            self._tell(job.spec.id, ended)
        if self._is_closing:
            self._shut_down()
        elif self._waiting:
            self._start_next()
        elif self._link is None and self._idle_s is None:
            # Have the replacement ready before the user asks for the next thing.
            self._start_ahead()

    def _check_deadlines(self) -> None:
        job, link = self._running, self._link
        if link is None:
            return
        now = self._clock()
        if job is None:
            if self._idle_s is not None and now >= self._idle_since + self._idle_s:
                self._end_worker(link)
            return
        if job.deadline is not None and now >= job.deadline:
            self._escalate(job, link, now)
        elif now - link.heard_at > SILENCE_S and not job.is_silence_told:
            job.is_silence_told = True
            link.process.send(Ping(0))
            text = f"The worker has not answered for {SILENCE_S:.0f} s. Cancel the job to start a fresh one."
            self._tell(job.spec.id, Message(Severity.WARNING, text))

    def _escalate(self, job: _Job, link: _Link, now: float) -> None:
        if job.escalation is _Escalation.TERMINATE:
            link.process.terminate()
            job.escalation, job.deadline = _Escalation.KILL, now + TERMINATE_GRACE_S
        elif job.escalation is _Escalation.KILL:
            link.process.kill()
            job.escalation, job.deadline = _Escalation.WAIT, now + 1.0
        else:
            # Killed, but its output is still open: something it started outside its group holds the pipe.
            self._do_worker_end(self._generation)

    def _tell(self, job_id: str, event: Event) -> None:
        deliver(self._on_event, job_id, event)


def _worker_died(code: int, stderr_tail: str, spec: JobSpec) -> ErrorInfo:
    how = exit_text(code)
    report = save_report(WorkerDiedError.__name__, f"The worker ended: {how}\n\n{stderr_tail}\n", spec)
    return ErrorInfo(
        WorkerDiedError.__name__,
        f"the worker process died ({how})",
        hint=Hint(
            "Finished parts are kept and the next job runs in a fresh worker; try again with less data or "
            "fewer threads"
        ),
        exit_code=WorkerDiedError.exit_code,
        report_path=report,
    )


def _not_started(error: OSError) -> ErrorInfo:
    return ErrorInfo(
        WorkerDiedError.__name__,
        f"the worker process cannot be started ({error.strerror or error})",
        hint=Hint("Close other programs and try again"),
        exit_code=WorkerDiedError.exit_code,
    )
