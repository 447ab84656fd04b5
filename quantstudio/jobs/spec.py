"""What a job is."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

# The only modules whose functions a worker runs: a job names a task, it cannot name any function there is.
TASK_PREFIXES = ("quantstudio.engine.",)

_TASK_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class Lane(StrEnum):
    """What a job may run beside.

    WORK: one at a time, in the order asked for.
    QUICK: checks and previews, one at a time: beside work, and at once, for somebody waits.
    TIMING: takes its turn among the work; starts when nothing else runs, and no work starts until it ends.
        For a quick job it stands still. A job of another lane enters this one while it times runs
        (`CancelToken.timing`).
    """

    WORK = "work"
    QUICK = "quick"
    TIMING = "timing"


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One piece of long work, as plain values that cross a process boundary.

    Attributes:
        id: Unique name of the job.
        task: "package.module:function"; called as function(**params, reporter=..., cancel=...).
        params: JSON values by argument name.
        title: What the jobs panel shows.
        lane: What it may run beside.
        asks_to_time: Whether somebody answers when the job asks to time runs; otherwise it times at once.
    """

    id: str
    task: str
    params: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    lane: Lane = Lane.WORK
    asks_to_time: bool = False

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("a job needs an id")
        if not _TASK_NAME.fullmatch(self.task):
            raise ValueError(f"task {self.task!r} is not package.module:function")


def new_job(task: str, params: Mapping[str, Any] | None = None, title: str = "") -> JobSpec:
    """A job with a fresh id."""
    return JobSpec(uuid.uuid4().hex[:12], task, dict(params or {}), title)
