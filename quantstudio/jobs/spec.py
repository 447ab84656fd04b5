"""What a job is, and what every runner of jobs can do."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from quantstudio.core.events import Event

# Job id and event; called on a runner's own thread, in order, JobEnded last and once.
EventCallback = Callable[[str, Event], None]

# The only modules whose functions a worker runs: a job names a task, it cannot name any function there is.
TASK_PREFIXES = ("quantstudio.engine.",)

_TASK_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One piece of long work, as plain values that cross a process boundary.

    Attributes:
        id: Unique name of the job.
        task: "package.module:function"; called as function(**params, reporter=..., cancel=...).
        params: JSON values by argument name.
        title: What the jobs panel shows.
    """

    id: str
    task: str
    params: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("a job needs an id")
        if not _TASK_NAME.fullmatch(self.task):
            raise ValueError(f"task {self.task!r} is not package.module:function")


def new_job(task: str, params: Mapping[str, Any] | None = None, title: str = "") -> JobSpec:
    """A job with a fresh id."""
    return JobSpec(uuid.uuid4().hex[:12], task, dict(params or {}), title)


class Runner(Protocol):
    """Runs jobs one at a time, in the order they were submitted; every job ends with exactly one JobEnded."""

    def submit(self, spec: JobSpec) -> None:
        """Run the job when those before it have ended."""

    def cancel(self, job_id: str) -> None:
        """Stop the job, waiting or running; a job that has ended or never was is ignored."""

    def pause(self, job_id: str) -> None:
        """Let the job wait at its next batch or layer; a job that has ended or never was is ignored."""

    def resume(self, job_id: str) -> None:
        """Let a paused job go on; cancelling ends a pause, too."""

    def close(self) -> None:
        """End every job and release everything; safe to call twice."""
