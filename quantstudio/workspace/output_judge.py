"""Asking what the outputs of the open network mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from quantstudio.core.codec import from_json
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.errors import DataError
from quantstudio.core.events import ErrorInfo
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.judgement import Judgement
from quantstudio.jobs.queue import JobQueue, Work
from quantstudio.jobs.spec import JobSpec, Lane
from quantstudio.workspace.known import Known
from quantstudio.workspace.runs.job_specs import judge_outputs_job


class OutputJudge:
    """Finds out how outputs are read.

    Args:
        known: What is open.
        jobs: The queue.
    """

    def __init__(self, known: Known, jobs: JobQueue) -> None:
        self._known = known
        self._jobs = jobs

    def ask(
        self,
        data: DataSpec,
        on_judged: Callable[[Judgement], None],
        on_failed: Callable[[ErrorInfo], None] | None = None,
    ) -> str:
        """Judge the outputs on a data set; returns the id of the job.

        Args:
            data: The data, with what the user says of the outputs.
            on_judged: Takes the answer.
            on_failed: Takes the error where there is none; without it the user is notified.
        """

        def make() -> JobSpec:
            if self._known.model is None:
                raise DataError(
                    "data needs a model that it fits", hint=Hint("Open a model first", HintAction.OPEN_MODEL)
                )
            return judge_outputs_job(self._known.model, data)

        def finished(found: Judgement) -> str:
            on_judged(found)
            return found.task.label

        def failed(error: ErrorInfo) -> bool:
            if on_failed is not None:
                on_failed(error)
            return on_failed is not None

        return self._jobs.add(
            Work(
                f"judge {data}",
                "Judge the outputs",
                make,
                finished,
                on_failure=failed,
                reads=partial(from_json, Judgement),
                lane=Lane.QUICK,
            )
        )

    def drop(self, job_id: str) -> None:
        """Nobody waits for the answer any more."""
        self._jobs.cancel(job_id)
