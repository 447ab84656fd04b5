"""Work the session asked for: one job at a time, the rest queued, every row told to the views."""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from PySide6.QtCore import QObject, Signal

from quantstudio.core.codec import CodecError
from quantstudio.core.errors import QuantStudioError
from quantstudio.core.events import (
    ErrorInfo,
    Event,
    JobEnded,
    JobState,
    LayerFinished,
    Message,
    Progress,
    Severity,
)
from quantstudio.gui.bridge import EventBridge, RunnerFactory
from quantstudio.gui.wording import window_hint
from quantstudio.jobs.spec import JobSpec
from quantstudio.workspace.values import JobRow, LogLine, NoticeLevel

logger = logging.getLogger(__name__)

ROWS_KEPT = 100


@dataclass(eq=False)
class Work:
    """A job to come.

    Attributes:
        key: What it does; queued work of the same key is not queued twice.
        title: What the jobs panel shows.
        make: Called when its turn comes, with what is known then; None means that nothing has to be done.
        on_success: Takes the result and returns one sentence about it.
        reads: Makes of the result's JSON values what `on_success` gets; called on the runner's thread. None
            hands over the values.
        found: The result as it was read, or why it could not be.
        on_layer: Takes each layer as it comes.
        group: Work of one group is dropped when one of them fails or is cancelled.
        on_failure: Takes the error, if the job fails; returns whether the user was told of it.
    """

    key: str
    title: str
    make: Callable[[], JobSpec | None]
    on_success: Callable[[Any], str]
    on_layer: Callable[[LayerFinished], None] | None = None
    group: str = ""
    job_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    is_detached: bool = False
    on_failure: Callable[[ErrorInfo], bool] | None = None
    reads: Callable[[Any], Any] | None = None
    found: Any = None


class JobList(QObject):
    """The queue in front of the runner.

    Emits `changed` when any row changed, `logged(LogLine)` for the log, `failed(JobRow)` when a job failed.
    """

    changed = Signal()
    logged = Signal(object)
    failed = Signal(object)
    idle = Signal()

    def __init__(self, runner_factory: RunnerFactory, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._bridge = EventBridge(self)
        self._bridge.arrived.connect(self._on_event)
        self._runner = runner_factory(self._post)
        self._queue: deque[Work] = deque()
        self._running: Work | None = None
        self._rows: dict[str, JobRow] = {}
        # Seconds of a steady clock; pauses move the start.
        self._started_at: dict[str, float] = {}
        self._paused_at: float | None = None

    @property
    def rows(self) -> tuple[JobRow, ...]:
        """Newest last."""
        return tuple(self._rows.values())

    @property
    def running(self) -> JobRow | None:
        """The row of the job under way."""
        return self._rows.get(self._running.job_id) if self._running else None

    @property
    def is_busy(self) -> bool:
        """Whether anything runs or waits."""
        return self._running is not None or bool(self._queue)

    def add(self, work: Work) -> str:
        """Queue work; returns its id, or the id of the same work already waiting."""
        for waiting in self._queue:
            if waiting.key == work.key:
                return waiting.job_id
        self._queue.append(work)
        self._rows[work.job_id] = JobRow(work.job_id, work.title, JobState.QUEUED)
        while len(self._rows) > ROWS_KEPT:
            self._drop_oldest_final_row()
        self.changed.emit()
        self._start_next()
        return work.job_id

    def cancel(self, job_id: str | None = None) -> None:
        """Stop one job, or everything that runs or waits."""
        if self._running is not None and job_id in (None, self._running.job_id):
            running = self._running
            self._update(running.job_id, state=JobState.CANCELLING, label="stopping")
            self._drop_group(running.group)
            self._runner.cancel(running.job_id)
        for work in [w for w in self._queue if job_id in (None, w.job_id)]:
            self._queue.remove(work)
            self._update(work.job_id, state=JobState.CANCELLED, outcome="Cancelled before it started")

    def pause(self, job_id: str) -> None:
        """Let the job under way wait at its next batch or layer; one that is stopping ignores it."""
        row = self.running
        if row is not None and row.job_id == job_id and row.state is JobState.RUNNING:
            self._update(job_id, state=JobState.PAUSED)
            self._paused_at = time.monotonic()
            self._runner.pause(job_id)

    def resume(self, job_id: str) -> None:
        """Let a paused job go on."""
        row = self.running
        if row is not None and row.job_id == job_id and row.state is JobState.PAUSED:
            self._end_pause(job_id)
            self._update(job_id, state=JobState.RUNNING)
            self._runner.resume(job_id)

    def abandon(self) -> None:
        """Stop everything and ignore what still comes: the work is about another model."""
        if self._running is not None:
            self._running.is_detached = True
        self.cancel()

    def close(self) -> None:
        """End every job and the worker."""
        self.abandon()
        self._bridge.close()
        self._runner.close()

    def _post(self, job_id: str, event: Event) -> None:
        """Called on the runner's thread: a large result is read there, not in a turn of the window."""
        work = self._running
        is_ours = work is not None and work.job_id == job_id
        if work is not None and is_ours and isinstance(event, JobEnded) and event.state is JobState.SUCCEEDED:
            values = event.result or {}
            try:
                work.found = values if work.reads is None else work.reads(values)
            except CodecError as error:
                work.found = error
        self._bridge.post(job_id, event)

    def _start_next(self) -> None:
        while self._running is None and self._queue:
            work = self._queue.popleft()
            try:
                spec = work.make()
            except QuantStudioError as error:
                self._fail(work, error.what, error.hint, where=error.where)
                continue
            if spec is None:
                self._rows.pop(work.job_id, None)
                self.changed.emit()
                continue
            self._running = work
            self._started_at[work.job_id] = time.monotonic()
            self._log(NoticeLevel.INFO, f"{work.title}: started")
            self._update(work.job_id, state=JobState.RUNNING)
            self._runner.submit(replace(spec, id=work.job_id, title=work.title))
        if not self.is_busy:
            self.idle.emit()

    def _on_event(self, job_id: str, event: Event) -> None:
        work = self._running
        if work is None or work.job_id != job_id:
            return
        match event:
            case Progress():
                if not self._is_cancelling(job_id):
                    self._update(
                        job_id,
                        done=event.done,
                        total=event.total,
                        unit=event.unit,
                        label=event.label,
                        seconds_left=event.seconds_left,
                    )
            case LayerFinished():
                if work.on_layer is not None and not work.is_detached:
                    work.on_layer(event)
            case Message():
                level = NoticeLevel.WARNING if event.severity is Severity.WARNING else NoticeLevel.INFO
                self._log(level, f"{work.title}: {event.text}")
            case JobEnded():
                self._on_ended(work, event)

    def _end_pause(self, job_id: str) -> None:
        if self._paused_at is not None:
            self._started_at[job_id] += time.monotonic() - self._paused_at
            self._paused_at = None

    def _on_ended(self, work: Work, ended: JobEnded) -> None:
        self._running = None
        self._end_pause(work.job_id)
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
                is_told=is_told,
            )
        else:
            self._fail(work, "the job failed without a message", "See the log")
        self._start_next()

    def _succeed(self, work: Work) -> None:
        outcome = ""
        if not work.is_detached:
            try:
                if isinstance(work.found, CodecError):
                    raise work.found
                outcome = work.on_success(work.found)
            except (QuantStudioError, CodecError) as error:
                self._fail(
                    work, str(error), "The worker's answer does not fit this window; restart QuantStudio"
                )
                return
        self._update(work.job_id, state=JobState.SUCCEEDED, outcome=outcome, seconds_left=None)
        self._log(NoticeLevel.SUCCESS, f"{work.title}: {outcome or 'finished'}")

    def _fail(
        self,
        work: Work,
        what: str,
        hint: str,
        *,
        where: str = "",
        report_path: str = "",
        is_told: bool = False,
    ) -> None:
        self._drop_group(work.group)
        text = f"{where}: {what}" if where else what
        hint = window_hint(hint)
        self._update(
            work.job_id,
            state=JobState.FAILED,
            outcome=text,
            hint=hint,
            report_path=report_path,
            seconds_left=None,
        )
        self._log(NoticeLevel.ERROR, f"{work.title}: {text}. {hint}".rstrip(". ") + ".")
        if not work.is_detached and not is_told:
            self.failed.emit(self._rows[work.job_id])

    def _drop_group(self, group: str) -> None:
        if not group:
            return
        for work in [w for w in self._queue if w.group == group]:
            self._queue.remove(work)
            self._rows.pop(work.job_id, None)
        self.changed.emit()

    def _drop_oldest_final_row(self) -> None:
        oldest = next((job_id for job_id, row in self._rows.items() if row.state.is_final), None)
        self._rows.pop(oldest or next(iter(self._rows)))

    def _is_cancelling(self, job_id: str) -> bool:
        return self._rows[job_id].state is JobState.CANCELLING

    def _update(self, job_id: str, **changes: Any) -> None:  # noqa: ANN401  fields of JobRow
        row = self._rows.get(job_id)
        if row is None:
            return
        started = self._started_at.get(job_id)
        now = time.monotonic() if self._paused_at is None else self._paused_at
        seconds = now - started if started is not None else 0.0
        self._rows[job_id] = replace(row, seconds=seconds, **changes)
        self.changed.emit()

    def _log(self, severity: NoticeLevel, text: str) -> None:
        logger.info("%s", text)
        self.logged.emit(LogLine(time.time(), severity, text))
