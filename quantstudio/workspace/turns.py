"""A script waits for what it set off: jobs and files are taken care of in turns, faults become exceptions."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from quantstudio.core import errors
from quantstudio.core.errors import JobCancelled, QuantStudioError
from quantstudio.core.events import JobState
from quantstudio.jobs.pump import Pump
from quantstudio.jobs.queue import JobQueue
from quantstudio.jobs.rows import JobRow, NoticeLevel
from quantstudio.workspace.known import Known
from quantstudio.workspace.progress import ProgressDisplay, progress_display
from quantstudio.workspace.values import Notification


class Turns:
    """Runs what comes back to the owner's thread while a script waits.

    Args:
        pump: Where it comes.
        progress: Whether to show how far work is.
    """

    def __init__(self, pump: Pump, *, progress: bool) -> None:
        self._pump = pump
        self._is_shown = progress

    def finish(self, known: Known, jobs: JobQueue, start: Callable[[], object]) -> None:
        """Call `start` and return when nothing runs or waits any more.

        Ctrl+C stops the jobs, keeps what they finished, and is raised again.

        Raises:
            QuantStudioError: of the class the first job that failed met.
        """
        before = {row.job_id for row in jobs.rows}
        told: list[Notification] = []
        known.notified.connect(told.append)
        try:
            start()
            with progress_display(wanted=self._is_shown) as display:
                self._wait(known, jobs, display)
        finally:
            known.notified.disconnect(told.append)
        _raise_first([row for row in jobs.rows if row.job_id not in before], told)

    def _wait(self, known: Known, jobs: JobQueue, display: ProgressDisplay) -> None:
        def is_over() -> bool:
            row = jobs.running
            if row is not None:
                display.show(row)
            return not jobs.is_busy and not known.background.is_busy

        try:
            self._pump.run_until(is_over)
        except KeyboardInterrupt:
            jobs.cancel()
            self._pump.run_until(is_over)
            raise


def _raise_first(rows: list[JobRow], told: list[Notification]) -> None:
    for row in rows:
        if row.state is JobState.FAILED:
            raise _class_of(row.error_kind)(row.outcome, hint=row.hint)
        if row.state is JobState.CANCELLED:
            raise JobCancelled(f"{row.title} was cancelled")
    for notice in told:
        if notice.severity is NoticeLevel.ERROR:
            raise _class_of(notice.error_kind)(notice.text, where=notice.where, hint=notice.hint)
        if notice.severity is NoticeLevel.WARNING:
            warnings.warn(f"{notice.text}. {notice.hint}".rstrip(". ") + ".", stacklevel=4)


def _class_of(kind: str) -> type[QuantStudioError]:
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, QuantStudioError) and found is not JobCancelled:
        return found
    return QuantStudioError
