"""The application without a screen: what is known, and everything one can do."""

from __future__ import annotations

from quantstudio.jobs.backends.backend import BackendFactory
from quantstudio.jobs.queue import CallSoon, JobQueue
from quantstudio.jobs.rows import JobRow, NoticeLevel
from quantstudio.project.store import Project
from quantstudio.workspace.documents import Documents
from quantstudio.workspace.edits import Edits
from quantstudio.workspace.known import Known
from quantstudio.workspace.opening import Opening
from quantstudio.workspace.runs.runs import Runs
from quantstudio.workspace.runs.searches import Searches


class Workspace(Known):
    """A project that is open, with what is known of it and what can be done to it.

    Attributes:
        jobs: The queue of engine work.
        opening: Puts a project, a model or data in the place of what is open.
        edits: Changes of recipe and plans, each one undo step.
        runs: Engine work; returns at once, signals tell.
        searches: Searches for mixed precision.
        documents: Files that are opened and written.
    """

    def __init__(self, backend_factory: BackendFactory, call_soon: CallSoon, project: Project) -> None:
        super().__init__(project, call_soon)
        self.jobs = JobQueue(backend_factory, call_soon)
        self.opening = Opening(self)
        self.edits = Edits(self)
        self.runs = Runs(self, self.opening, self.edits, self.jobs)
        self.searches = Searches(self, self.edits, self.runs, self.jobs)
        self.documents = Documents(self, self.opening, self.edits, self.runs, self.jobs)
        self.opening.leaving.connect(self.jobs.abandon)
        self.opening.logged.connect(self.jobs.logged.emit)
        self.jobs.failed.connect(self._on_job_failed)

    def close(self) -> None:
        """End the work and let go of the project; nothing is lost."""
        self.findings.flush()
        self.jobs.close()
        self.background.close()
        self.project.close()

    def _on_job_failed(self, row: JobRow) -> None:
        self.notify(NoticeLevel.ERROR, f"{row.title} failed: {row.outcome}", row.hint)
