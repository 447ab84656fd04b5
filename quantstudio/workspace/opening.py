"""The doors by which a project, a model and its data come in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.errors import ProjectError
from quantstudio.core.figures import count
from quantstudio.core.findings import KNOWN_DATA, PATH_INSTEAD
from quantstudio.core.layers import ModelSummary
from quantstudio.core.signals import Signal
from quantstudio.jobs.rows import LogLine, NoticeLevel
from quantstudio.project.history import START_LABEL
from quantstudio.project.outline import outline
from quantstudio.project.references import ReferenceKind, content_digest, is_callable_name
from quantstudio.project.state import Plan, ProjectState
from quantstudio.project.store import Project
from quantstudio.workspace.known import Known
from quantstudio.workspace.names import content_name
from quantstudio.workspace.recipe_edits import default_recipe
from quantstudio.workspace.subject import Source, Subject

START_PLAN = "INT8"


class Opening:
    """Puts a project, a model, or data in the place of what is open, and tells everybody.

    Attributes:
        leaving: What is open is about to go: work for it is in vain.
        logged: A line for the log.

    Args:
        known: What is open.
    """

    def __init__(self, known: Known) -> None:
        self.leaving: Signal[[]] = Signal()
        self.logged: Signal[[LogLine]] = Signal()
        self._known = known
        self._start_plan()
        self._take_up()
        known.tell_everything()

    def open_project(self, project: Project) -> None:
        """Go on in another project, or in the same as it is on disk; what cannot be read is told.

        Raises:
            ProjectError: the file cannot be read; the present project stays.
        """
        known = self._known
        known.findings.flush()
        subject = subject_of(project)
        self.leaving.emit()
        old, known.project = known.project, project
        known.findings.move(project.findings)
        known.arrays.forget_weights()
        if old is not project:
            let_go(old)
        self._start_plan()
        self._take_up(subject)
        known.project_changed.emit()
        known.tell_everything()
        _ = known.evidence  # reads everything that is kept
        for text in project.unreadable:
            known.notify(NoticeLevel.WARNING, text)
        if subject is not None:
            for text in subject.model.warnings[1:]:  # no job of this session has put them into the log
                self.logged.emit(LogLine(time.time(), NoticeLevel.WARNING, text))
            self._warn_of(subject.model)

    def set_model(
        self, model: ModelSummary, *, trusted: bool = False, factory: str = "", state_path: str = ""
    ) -> None:
        """Show a model: another one begins a new project, the same one keeps what is known of it."""
        known = self._known
        is_other = known.model is None or known.model.digest != model.digest
        if is_other and (known.model is not None or is_untouched_session(known.project)):
            source, model_before = Path(state_path or model.source_path), known.model
            self.open_project(Project.temporary(restore=False, name=source.stem))
            if model_before is not None and model_before.source_path == model.source_path:
                known.notify(
                    NoticeLevel.INFO,
                    f"{source.name} has changed since it was opened",
                    "It is a new session now; the one before is kept",
                )
        try:
            known.project.set_model(model, factory=factory, state=state_path)
        except ProjectError as error:
            known.notify_of(error)
        before = known.subject or Subject(model)
        known.subject = replace(
            before, model=model, is_trusted=trusted, factory=factory, state_path=state_path
        )
        if is_other:
            known.arrays.forget_weights()
            self._fit_start_plan(model)
        known.tell_everything()
        self._warn_of(model)

    def set_data(
        self,
        calibration: DataSpec | None,
        test: DataSpec | None,
        contents: Mapping[str, str] | None = None,
    ) -> None:
        """Use other data. What was found with data that was used before is known again at once.

        Args:
            calibration: Where activation statistics come from.
            test: What accuracy is measured on; None for the calibration data.
            contents: `content_digest` by path; one that is not given is computed here, which reads the file.
        """
        known = self._known
        if known.subject is None:
            return
        sources: list[Source | None] = []
        for kind, spec in ((ReferenceKind.CALIBRATION, calibration), (ReferenceKind.TEST, test)):
            source = None if spec is None else Source(spec, self._content(spec.path, contents or {}))
            sources.append(source)
            try:
                if source is None:
                    known.project.drop_data(kind)
                else:
                    known.project.set_data(kind, source.spec, source.content)
            except ProjectError as error:
                known.notify_of(error)
        known.subject = replace(known.subject, calibration=sources[0], test=sources[1])
        known.tell_data()

    # Inside.

    def _take_up(self, subject: Subject | None = None) -> None:
        """Show what a project points to, and read what lies in files."""
        known = self._known
        known.subject = subject or subject_of(known.project)
        if known.subject is None:
            return
        weights = known.weights_file
        if weights is not None:
            known.arrays.load_weights(weights.path)
        for source in (known.subject.calibration, known.subject.test):
            if source is not None and source.content.startswith(PATH_INSTEAD):
                self._learn_content(source)

    def _learn_content(self, source: Source) -> None:
        """Know data of a project of the first format again, should it be chosen once more."""
        if is_callable_name(source.spec.path) or not Path(source.spec.path).exists():
            return
        known, table = self._known, self._known.project.findings

        def learned(digest: str) -> None:
            if known.project.findings is table and known.findings.get(KNOWN_DATA, digest) is None:
                known.findings.put(KNOWN_DATA, digest, source.content)

        known.background.run(lambda: content_digest(Path(source.spec.path)), learned, lambda _error: None)

    def _content(self, path: str, contents: Mapping[str, str]) -> str:
        """What tells the data from others in keys; empty where only its path does."""
        if is_callable_name(path):
            return ""
        digest = contents.get(path, "")
        if not digest:
            try:
                digest = content_digest(Path(path))
            except ProjectError:  # whoever reads the data says better what is wrong with it
                return ""
        return self._known.findings.get(KNOWN_DATA, digest) or digest

    def _start_plan(self) -> None:
        """A fresh project starts from INT8 everywhere instead of an empty recipe."""
        project = self._known.project
        if project.state == ProjectState() and not project.undo_label and not project.is_read_only:
            start = ProjectState((Plan(START_PLAN, default_recipe()),), START_PLAN)
            project.edit(start, f"{START_LABEL}{START_PLAN}")

    def _fit_start_plan(self, model: ModelSummary) -> None:
        """The first model of a project decides what its untouched first plan is."""
        project = self._known.project
        recipe = default_recipe(model.layers)
        name = content_name(recipe, model.layers)
        if project.state == ProjectState((Plan(START_PLAN, default_recipe()),), START_PLAN):
            project.edit(ProjectState((Plan(name, recipe),), name), f"{START_LABEL}{name}")

    def _warn_of(self, model: ModelSummary) -> None:
        """Say once what makes a model's results worthless; the log names every tensor."""
        if model.warnings:
            others = len(model.warnings) - 1
            hint = f"The log has {count(others)} more such warning{'s' * (others > 1)}" if others else ""
            self._known.notify(NoticeLevel.WARNING, model.warnings[0], hint)


def is_untouched_session(project: Project) -> bool:
    """Whether it is an unsaved session in which nothing was ever done: no edit, no data, no finding."""
    return project.is_temporary and outline(project.path).is_untouched


def let_go(project: Project) -> None:
    """Close what was open; a session in which nothing was ever done leaves no file behind."""
    if is_untouched_session(project):
        project.discard()
    else:
        project.close()


def subject_of(project: Project) -> Subject | None:
    """The model and data a project points to; None without a model.

    Raises:
        ProjectError: the file cannot be read at all.
    """
    reference = project.model
    if reference is None:
        return None
    calibration, test = (
        Source(found.spec, found.digest) if found is not None else None
        for found in (project.data(ReferenceKind.CALIBRATION), project.data(ReferenceKind.TEST))
    )
    return Subject(
        reference.summary,
        factory=reference.factory,
        state_path=reference.state,
        calibration=calibration,
        test=test,
    )
