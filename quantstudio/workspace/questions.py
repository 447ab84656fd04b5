"""Quick questions about the open model and data that is only being chosen: asked beside all other work."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from quantstudio.core.codec import from_json
from quantstudio.core.errors import DataError
from quantstudio.core.events import ErrorInfo, Part
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.layers import ModelSummary
from quantstudio.jobs.queue import JobQueue, Work
from quantstudio.jobs.spec import JobSpec, Lane
from quantstudio.workspace.known import Known

T = TypeVar("T")


def ask(
    known: Known,
    jobs: JobQueue,
    key: str,
    title: str,
    form: type[T],
    job: Callable[[ModelSummary], JobSpec],
    on_found: Callable[[T], str],
    *,
    on_part: Callable[[Part], None] | None = None,
    on_failed: Callable[[ErrorInfo], None] | None = None,
) -> str:
    """Queue a question in the quick lane; returns the id of the job.

    Args:
        known: What is open.
        jobs: The queue.
        key: The question; one that waits already is not queued twice.
        title: What the list of jobs shows.
        form: Type of the answer.
        job: Makes the job about the open model; called when its turn comes.
        on_found: Takes the answer and returns one sentence about it.
        on_part: Takes what is known before.
        on_failed: Takes the error where there is no answer; without it the user is notified.
    """

    def make() -> JobSpec:
        if known.model is None:
            raise DataError(
                "data needs a model that it fits", hint=Hint("Open a model first", HintAction.OPEN_MODEL)
            )
        return job(known.model)

    def failed(error: ErrorInfo) -> bool:
        if on_failed is not None:
            on_failed(error)
        return on_failed is not None

    reads = partial(from_json, form)
    return jobs.add(
        Work(key, title, make, on_found, on_part, on_failure=failed, reads=reads, lane=Lane.QUICK)
    )
