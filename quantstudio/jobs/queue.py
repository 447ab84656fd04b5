"""Work somebody asked for: what runs now, what waits, and what became of it."""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from quantstudio.core.codec import CodecError
from quantstudio.core.errors import QuantStudioError
from quantstudio.core.events import (
    ErrorInfo,
    Event,
    JobEnded,
    JobState,
    Message,
    Part,
    PartFound,
    Progress,
    Severity,
    Timing,
)
from quantstudio.core.hints import Hint
from quantstudio.core.signals import Signal
from quantstudio.jobs.backends.backend import BackendFactory
from quantstudio.jobs.rows import JobRow, LogLine, NoticeLevel
from quantstudio.jobs.spec import JobSpec, Lane

logger = logging.getLogger(__name__)

ROWS_KEPT = 100

# Thread-safe; runs the function on the owner's thread, soon and in order.
CallSoon = Callable[[Callable[[], None]], None]


@dataclass(eq=False)
class Work:
    """A job to come.

    Attributes:
        key: What it does; queued work of the same key is not queued twice.
        title: What the list of jobs shows.
        make: Called when its turn comes, with what is known then; None means that nothing has to be done.
        on_success: Takes the result and returns one sentence about it.
        on_part: Takes each part of the result as it comes.
        group: Work of one group is dropped when one of them fails or is cancelled.
        job_id: Identity.
        is_detached: Nobody waits for what it finds any more.
        on_failure: Takes the error, if the job fails; returns whether the user was told of it.
        reads: Makes of the result's JSON values what `on_success` gets; called on the back end's thread. None
            hands over the values.
        found: The result as it was read, or why it could not be.
        lane: What it may run beside.
        is_aside: Nobody asked for it by name, as for steps looked up before a run; so is every quick job.
        is_of_program: It is about no model, and goes on where the others are abandoned.
    """

    key: str
    title: str
    make: Callable[[], JobSpec | None]
    on_success: Callable[[Any], str]
    on_part: Callable[[Part], None] | None = None
    group: str = ""
    job_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    is_detached: bool = False
    on_failure: Callable[[ErrorInfo], bool] | None = None
    reads: Callable[[Any], Any] | None = None
    found: Any = None
    lane: Lane = Lane.WORK
    is_aside: bool = False
    is_of_program: bool = False


@dataclass(slots=True)
class _Running:
    """A job under way.

    Attributes:
        work: What it does.
        started_at: Seconds of a steady clock; pauses move it.
        paused_at: When the user paused it.
        is_timing: It was allowed to time runs and has not said that it has.
        asks_to_time: It waits until it is allowed.
        resumes_in_turn: It was timing and stands still, for a quick job or since the user paused it; it goes
            on when nothing else runs.
        label: What it was doing when it gave way to a quick job.
    """

    work: Work
    started_at: float
    paused_at: float | None = None
    is_timing: bool = False
    asks_to_time: bool = False
    resumes_in_turn: bool = False
    label: str = ""

    @property
    def seconds(self) -> float:
        return (time.monotonic() if self.paused_at is None else self.paused_at) - self.started_at

    @property
    def lane(self) -> Lane:
        """Where it is now; what is paused holds nobody back."""
        if self.is_timing and self.paused_at is None and not self.resumes_in_turn:
            return Lane.TIMING
        return Lane.QUICK if self.work.lane is Lane.QUICK else Lane.WORK

    @property
    def waits_to_time(self) -> bool:
        return self.paused_at is None and (self.asks_to_time or self.resumes_in_turn)

    def end_pause(self) -> None:
        if self.paused_at is not None:
            self.started_at += time.monotonic() - self.paused_at
            self.paused_at = None


class JobQueue:
    """The queue in front of the back ends; every method belongs to the owner's thread.

    Attributes:
        changed: Any row changed.
        logged: A line for the log.
        failed: The row of a job that failed, unless its `on_failure` has told the user.
        idle: Nothing runs or waits any more.

    Args:
        backend_factory: Makes what runs the jobs.
        call_soon: Takes functions from any thread and runs them on the owner's, in order.
    """

    def __init__(self, backend_factory: BackendFactory, call_soon: CallSoon) -> None:
        self.changed: Signal[[]] = Signal()
        self.logged: Signal[[LogLine]] = Signal()
        self.failed: Signal[[JobRow]] = Signal()
        self.idle: Signal[[]] = Signal()
        self._call_soon = call_soon
        self._backend = backend_factory(self._post)
        self._waiting: deque[Work] = deque()
        self._running: dict[str, _Running] = {}
        self._rows: dict[str, JobRow] = {}
        self._is_starting = False
        self._is_closed = False

    @property
    def rows(self) -> tuple[JobRow, ...]:
        """Newest last."""
        return tuple(self._rows.values())

    @property
    def running(self) -> JobRow | None:
        """The row of the work under way; quick jobs are not shown here."""
        return next(
            (self._rows.get(i) for i, job in self._running.items() if job.work.lane is not Lane.QUICK), None
        )

    @property
    def last(self) -> JobRow | None:
        """The row of the work queued last; what the program asks for its own sake is not shown here."""
        return next((row for row in reversed(self._rows.values()) if not row.is_aside), None)

    @property
    def is_busy(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self._running or self._waiting)

    @property
    def under_way(self) -> tuple[Work, ...]:
        """What runs, then what waits for its turn."""
        return (*(job.work for job in self._running.values()), *self._waiting)

    def prepare(self, lane: Lane) -> None:
        """A job of this lane may come soon: what it would wait for is made ready."""
        self._backend.prepare(lane)

    def row(self, job_id: str) -> JobRow | None:
        """Where a job stands; None if it is not in the list."""
        return self._rows.get(job_id)

    def add(self, work: Work) -> str:
        """Queue work; returns its id, or the id of the same work already waiting."""
        for waiting in self._waiting:
            if waiting.key == work.key:
                self._log(NoticeLevel.INFO, f"{work.title} waits already")
                return waiting.job_id
        self._waiting.append(work)
        is_aside = work.is_aside or work.lane is Lane.QUICK
        row = JobRow(work.job_id, work.title, JobState.QUEUED, is_aside=is_aside)
        self._rows[work.job_id] = row
        self._drop_oldest_rows()
        self.changed.emit()
        self._start_due()
        return work.job_id

    def stop(self) -> None:
        """Stop what runs now and what only makes sense after it; everything else that waits goes on.

        Without work under way, the quick jobs are what runs.
        """
        row = self.running
        for running_id in [row.job_id] if row is not None else tuple(self._running):
            self.cancel(running_id)

    def cancel(self, job_id: str | None = None) -> None:
        """Stop one job, or everything that runs or waits."""
        # What waits goes first: the end of one job may begin the next at once.
        dropped = [work for work in self._waiting if job_id in (None, work.job_id)]
        for work in dropped:
            self._waiting.remove(work)
            self._update(work.job_id, state=JobState.CANCELLED, outcome="Cancelled before it started")
        for running_id, job in tuple(self._running.items()):
            if job_id in (None, running_id):
                self._update(running_id, state=JobState.CANCELLING, label="stopping")
                self._drop_group(job.work.group)
                self._backend.cancel(running_id)
        if dropped:
            self._start_due()  # they may have held others back

    def finish(self, job_id: str) -> None:
        """Let a running or paused job end early with what it has; one that cannot goes on."""
        if job_id in self._running:
            self.resume(job_id)
            self._backend.finish(job_id)

    def pause(self, job_id: str) -> None:
        """Let a running job wait at its next batch or layer; one that is stopping ignores it."""
        job = self._running.get(job_id)
        if job is not None and self._rows[job_id].state is JobState.RUNNING:
            self._update(job_id, state=JobState.PAUSED)
            if not job.resumes_in_turn:
                job.label = self._rows[job_id].label
            job.paused_at = time.monotonic()
            job.resumes_in_turn = False
            self._backend.pause(job_id)
            self._start_due()

    def resume(self, job_id: str) -> None:
        """Let a paused job go on."""
        job = self._running.get(job_id)
        if job is not None and self._rows[job_id].state is JobState.PAUSED:
            job.end_pause()
            self._update(job_id, state=JobState.RUNNING)
            job.resumes_in_turn = job.is_timing
            if not job.is_timing:
                self._backend.resume(job_id)
            self._start_due()

    def abandon(self) -> None:
        """Stop what is about a model and ignore what still comes of it: another one is opened."""
        for work in self.under_way:
            if not work.is_of_program:
                work.is_detached = True
                self.cancel(work.job_id)

    def close(self) -> None:
        """End every job and the back ends; safe to call twice."""
        for work in self.under_way:
            work.is_detached = True
        self.cancel()
        self._is_closed = True
        self._backend.close()

    # Starting.

    def _start_due(self) -> None:
        if self._is_starting or self._is_closed:
            return
        # What `make` adds takes its turn behind what waits already.
        self._is_starting = True
        try:
            while (work := self._next_due()) is not None:
                self._waiting.remove(work)
                self._start(work)
        finally:
            self._is_starting = False
        self._let_time()
        if not self.is_busy:
            self.idle.emit()

    def _next_due(self) -> Work | None:
        """The first of those that wait and may start beside what runs; somebody waits for a quick job."""
        lanes = {job.lane for job in self._running.values()}
        quick = next((work for work in self._waiting if work.lane is Lane.QUICK), None)
        if quick is not None and Lane.QUICK not in lanes:
            return quick
        work = next((work for work in self._waiting if work.lane is not Lane.QUICK), None)
        if work is None or lanes - {Lane.QUICK}:
            return None
        return work if work.lane is Lane.WORK or not lanes else None

    def _give_way(self, quick: Work) -> None:
        """Let what times runs stand still for a quick job: it drops the round it is in and goes on after."""
        for job_id, job in self._running.items():
            if job.lane is Lane.TIMING:
                job.resumes_in_turn, job.label = True, self._rows[job_id].label
                self._backend.pause(job_id)
                self._update(job_id, label=f"waiting for {quick.title}")

    def _let_time(self) -> None:
        """Let the first job that waits to time runs do so, if nothing runs but others that wait for that."""
        if not self._running or not all(job.waits_to_time for job in self._running.values()):
            return
        job_id, job = next(iter(self._running.items()))
        if job.resumes_in_turn:
            job.resumes_in_turn = False
            self._backend.resume(job_id)
            self._update(job_id, label=job.label)
        else:
            job.asks_to_time, job.is_timing = False, True
            self._backend.allow_timing(job_id)

    def _on_timing(self, job_id: str, job: _Running, *, begins: bool) -> None:
        job.asks_to_time, job.is_timing = begins, False
        if job.resumes_in_turn:  # it had timed the last of its runs when it was paused
            job.resumes_in_turn = False
            self._backend.resume(job_id)
        self._start_due()
        if job.asks_to_time:
            others = [one.work.title for one in self._running.values() if one is not job]
            self._update(job_id, label=f"waiting for {', '.join(others)}")

    def _start(self, work: Work) -> None:
        try:
            spec = work.make()
        except QuantStudioError as error:
            self._fail(work, error.what, error.hint, where=error.where, kind=type(error).__name__)
            return
        if spec is None:
            self._rows.pop(work.job_id, None)
            self.changed.emit()
            return
        if work.lane is Lane.QUICK:
            self._give_way(work)
        is_timing = work.lane is Lane.TIMING
        self._running[work.job_id] = _Running(work, time.monotonic(), is_timing=is_timing)
        self._log(NoticeLevel.INFO, f"{work.title}: started")
        self._update(work.job_id, state=JobState.RUNNING)
        self._backend.submit(
            replace(spec, id=work.job_id, title=work.title, lane=work.lane, asks_to_time=not is_timing)
        )

    # Events.

    def _post(self, job_id: str, event: Event) -> None:
        """Called on a back end's thread: a large result is read there, not in a turn of the window."""
        job = self._running.get(job_id)
        if job is not None and isinstance(event, JobEnded) and event.state is JobState.SUCCEEDED:
            values, work = event.result or {}, job.work
            try:
                work.found = values if work.reads is None else work.reads(values)
            except CodecError as error:
                work.found = error
        self._call_soon(partial(self._on_event, job_id, event))

    def _on_event(self, job_id: str, event: Event) -> None:
        job = self._running.get(job_id)
        if job is None or self._is_closed:
            return
        work = job.work
        match event:
            case Progress():
                if self._rows[job_id].state is not JobState.CANCELLING:
                    self._update(
                        job_id,
                        done=event.done,
                        total=event.total,
                        unit=event.unit,
                        label=event.label,
                        seconds_left=event.seconds_left,
                    )
            case PartFound():
                if work.on_part is not None and not work.is_detached:
                    work.on_part(event.part)
            case Message():
                level = NoticeLevel.WARNING if event.severity is Severity.WARNING else NoticeLevel.INFO
                self._log(level, f"{work.title}: {event.text}")
            case Timing():
                self._on_timing(job_id, job, begins=event.begins)
            case JobEnded():
                self._on_ended(job, event)

    def _on_ended(self, job: _Running, ended: JobEnded) -> None:
        work = job.work
        job.end_pause()
        self._update(work.job_id, seconds_left=None)
        del self._running[work.job_id]
        if ended.state is JobState.SUCCEEDED:
            self._succeed(work)
        elif ended.state is JobState.CANCELLED:
            self._drop_group(work.group)
            self._update(work.job_id, state=JobState.CANCELLED, outcome="Cancelled; finished parts are kept")
            self._log(NoticeLevel.INFO, f"{work.title}: cancelled")
        elif ended.error is not None:
            error = ended.error
            is_told = work.on_failure is not None and not work.is_detached and work.on_failure(error)
            self._fail(
                work,
                error.what,
                error.hint,
                where=error.where,
                report_path=error.report_path,
                kind=error.kind,
                is_told=is_told,
            )
        else:
            self._fail(work, "the job failed without a message", Hint("See the log"))
        self._start_due()

    def _succeed(self, work: Work) -> None:
        outcome = ""
        if not work.is_detached:
            try:
                if isinstance(work.found, CodecError):
                    raise work.found
                outcome = work.on_success(work.found)
            except (QuantStudioError, CodecError) as error:
                self._fail(work, str(error), Hint("The worker is of another version; restart QuantStudio"))
                return
        self._update(work.job_id, state=JobState.SUCCEEDED, outcome=outcome)
        self._log(NoticeLevel.SUCCESS, f"{work.title}: {outcome or 'finished'}")

    def _fail(
        self,
        work: Work,
        what: str,
        hint: Hint,
        *,
        where: str = "",
        report_path: str = "",
        kind: str = "",
        is_told: bool = False,
    ) -> None:
        self._drop_group(work.group)
        text = f"{where}: {what}" if where else what
        self._update(
            work.job_id,
            state=JobState.FAILED,
            outcome=text,
            hint=hint,
            report_path=report_path,
            error_kind=kind,
        )
        self._log(NoticeLevel.ERROR, f"{work.title}: {text}. {hint}".rstrip(". ") + ".")
        if not work.is_detached and not is_told:
            self.failed.emit(self._rows[work.job_id])

    # Rows.

    def _drop_group(self, group: str) -> None:
        if not group:
            return
        for work in [w for w in self._waiting if w.group == group]:
            self._waiting.remove(work)
            self._rows.pop(work.job_id, None)
        self.changed.emit()

    def _drop_oldest_rows(self) -> None:
        final = [job_id for job_id, row in self._rows.items() if row.state.is_final]
        for job_id in final[: max(0, len(self._rows) - ROWS_KEPT)]:
            del self._rows[job_id]

    def _update(self, job_id: str, **changes: Any) -> None:  # noqa: ANN401  fields of JobRow
        row = self._rows.get(job_id)
        if row is None:
            return
        job = self._running.get(job_id)
        self._rows[job_id] = replace(row, seconds=row.seconds if job is None else job.seconds, **changes)
        self.changed.emit()

    def _log(self, severity: NoticeLevel, text: str) -> None:
        logger.info("%s", text)
        self.logged.emit(LogLine(time.time(), severity, text))
