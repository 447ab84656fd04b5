"""Asking what the outputs of the open network mean."""

from __future__ import annotations

from collections.abc import Callable

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.events import ErrorInfo
from quantstudio.core.judgement import Judgement
from quantstudio.jobs.queue import JobQueue
from quantstudio.workspace.known import Known
from quantstudio.workspace.questions import ask
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

        def finished(found: Judgement) -> str:
            on_judged(found)
            return found.task.label

        return ask(
            self._known,
            self._jobs,
            f"judge {data}",
            "Judge the outputs",
            Judgement,
            lambda model: judge_outputs_job(model, data),
            finished,
            on_failed=on_failed,
        )

    def drop(self, job_id: str) -> None:
        """Nobody waits for the answer any more."""
        self._jobs.cancel(job_id)
