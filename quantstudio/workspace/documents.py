"""Opening and writing files: projects, models, data, recipes, exports."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import QuantStudioError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.recipe import uniform_recipe
from quantstudio.core.samples import DEFAULT_SAMPLE, sample
from quantstudio.core.schemes import preset_scheme
from quantstudio.core.signals import Signal
from quantstudio.jobs.queue import JobQueue
from quantstudio.jobs.rows import JobRow, NoticeLevel
from quantstudio.project.outline import ProjectOutline
from quantstudio.project.references import ReferenceKind, content_digest, is_callable_name
from quantstudio.project.store import SUFFIX, Project
from quantstudio.workspace.edits import Edits
from quantstudio.workspace.file_kinds import (
    MODEL_SUFFIXES,
    is_broken_onnx,
    is_data,
    looks_like_test,
    trust_request,
)
from quantstudio.workspace.known import Known
from quantstudio.workspace.leaving import OPEN, Leaving
from quantstudio.workspace.opening import Opening
from quantstudio.workspace.runs.runs import Runs
from quantstudio.workspace.sessions import earlier_session
from quantstudio.workspace.values import TrustRequest


class Documents:
    """What File does.

    Attributes:
        trust_requested: A file is a program; only the user can agree to run it.
        data_offered: A data set was opened; the user says what it is for.
        pair_offered: Two were, probably calibration and test data.
        data_refused: The data chosen cannot be used; the data before stays.
        opened: A path for the recent files.
        report_written: The path of a report.
        leaving: The question before work is stopped because something else is opened.
    """

    def __init__(self, known: Known, opening: Opening, edits: Edits, runs: Runs, jobs: JobQueue) -> None:
        self.trust_requested: Signal[[TrustRequest]] = Signal()
        self.data_offered: Signal[[str]] = Signal()
        self.pair_offered: Signal[[str, str]] = Signal()
        self.data_refused: Signal[[JobRow]] = Signal()
        self.opened: Signal[[str]] = Signal()
        self.report_written: Signal[[str]] = Signal()
        self._known = known
        self._opening = opening
        self._edits = edits
        self._runs = runs
        self._waiting_data: tuple[DataSpec | None, DataSpec | None] = (None, None)
        self._data_to_offer: tuple[str, ...] = ()
        self._choice = ""
        self._check_job = ""
        self._asked: TrustRequest | None = None  # until it is open
        self._earlier: Path | None = None
        self._jobs = jobs
        self.leaving = Leaving(jobs)
        jobs.failed.connect(self._on_job_failed)

    def open_paths(self, paths: Sequence[str]) -> None:
        """Open what was dropped together: a model before its data; two data sets are calibration and test."""
        data = sorted((path for path in paths if is_data(path)), key=looks_like_test)
        others = [path for path in paths if not is_data(path)]
        for path in others:
            self.open_path(path)
        if data and others:
            self._data_to_offer = tuple(data)
        elif data:
            self._offer_all(data)

    def open_path(self, path: str) -> None:
        """Open whatever it is: project, model, data, recipe."""
        self._data_to_offer = ()
        suffix = Path(path).suffix.lower()
        if not is_callable_name(path) and not Path(path).exists():
            self._known.notify(
                NoticeLevel.ERROR, f"{path} does not exist", "It may have been moved or renamed"
            )
        elif suffix == SUFFIX:
            self.open_project(path)
        elif suffix == ".json":
            self.import_recipe(path)
        elif is_data(path):
            self._offer_data(path)
        elif suffix and suffix not in MODEL_SUFFIXES and not is_callable_name(path):
            # Before anything is stopped for it.
            self._known.notify(
                NoticeLevel.ERROR,
                f"QuantStudio does not read {Path(path).name}",
                "Models are .onnx, .pt2, TorchScript, .safetensors; data is .npz, text or a folder of images",
            )
        else:
            self._open_or_ask(trust_request(path))

    def open_model(self, path: str, *, trust: bool = False, factory: str = "") -> None:
        """Open a model; weights are put onto what `factory` (module:callable) makes."""
        self._asked = trust_request(path, factory)
        if not factory and is_broken_onnx(path):
            # Before anything is stopped for it.
            self._known.notify(
                NoticeLevel.ERROR,
                "this is not a complete ONNX file: it is truncated, damaged or of another kind",
                Hint("Copy it again", HintAction.OPEN_MODEL_AGAIN),
                path,
            )
            return
        source, state = (factory, path) if factory else (path, "")
        self.leaving.then(
            Path(path).name,
            lambda: self._runs.open_model(
                source, trust=trust, factory=factory, state=state, on_opened=lambda: self._opened_model(path)
            ),
        )

    @property
    def under_way(self) -> JobRow | None:
        """How far the model is that is being opened; None where none is."""
        opening = (work.job_id for work in self._jobs.under_way if work.key == OPEN and not work.is_detached)
        return next(map(self._jobs.row, opening), None)

    @property
    def to_reopen(self) -> str:
        """The model `reopen` opens: the one that could not be opened last, else that of the project."""
        request = self._to_reopen()
        return request.path if request is not None else ""

    def reopen(self) -> None:
        """Open a model again; what runs code is asked for again."""
        request = self._to_reopen()
        if request is not None:
            self._open_or_ask(request)

    def _to_reopen(self) -> TrustRequest | None:
        subject = self._known.subject
        if self._asked is not None or subject is None:
            return self._asked
        return trust_request(subject.state_path or subject.model.source_path, subject.factory)

    def _open_or_ask(self, request: TrustRequest) -> None:
        if request.reason:
            self.trust_requested.emit(request)
        else:
            self.open_model(request.path)

    def resume(self) -> None:
        """Open the source again if the normalised graph is gone from the cache, then the cheap statistics."""
        model = self._known.model
        if model is None:
            return
        if not Path(model.graph_path).is_file():
            self.reopen()
        else:
            self._runs.add_weights()

    def open_sample(self, name: str = DEFAULT_SAMPLE) -> None:
        """Open a bundled sample and run the whole analysis on it."""
        try:
            chosen = sample(name)
        except QuantStudioError as error:
            self._known.notify_of(error)
            return

        def opened() -> None:
            transform = parse_transform(chosen.transform)
            self._opening.set_data(
                DataSpec(str(chosen.train), transform), DataSpec(str(chosen.test), transform)
            )
            if chosen.scheme:
                self._begin_in(chosen.scheme)
            self._runs.run_all()

        self.leaving.then(
            chosen.title,
            lambda: self._runs.open_model(
                str(chosen.model), trust=False, factory="", state="", on_opened=opened
            ),
        )

    def _begin_in(self, scheme: str) -> None:
        """Put every layer in the scheme a sample begins with, and say where its accuracy is won back."""
        recipe = replace(self._known.recipe, rules=uniform_recipe(preset_scheme(scheme)).rules)
        self._edits.set_recipe(recipe, f"Begin in {preset_scheme(scheme).label}")
        self._known.notify(
            NoticeLevel.INFO,
            "Every weight is rounded to two bits, and the network falls to guessing.",
            Hint("Let steps be tried, or add one that chooses weights together", HintAction.RECOVER),
        )

    def choose_data(self, calibration: DataSpec | None, test: DataSpec | None) -> None:
        """Use other data and analyse the model with it; asks first where that runs code.

        What is new is opened against the model first: data that cannot be used replaces nothing.
        """
        specs = (calibration, test)
        program = next(
            (s for s in specs if s is not None and is_callable_name(s.path) and not s.trusted), None
        )
        if program is not None:
            self._waiting_data = specs
            reason = "The samples come from your own Python function."
            self.trust_requested.emit(TrustRequest(program.path, "data", reason))
            return
        known = self._known
        new = [
            spec
            for spec, now in ((calibration, known.calibration_data), (test, known.test_data))
            if spec is not None and spec != now and known.model is not None
        ]
        self._choice = choice = uuid.uuid4().hex
        self._check_next(choice, new, lambda: self._take_data(choice, calibration, test))

    @property
    def check(self) -> JobRow | None:
        """The check of the data chosen last; None while none is under way or known."""
        return self._jobs.row(self._check_job) if self._choice else None

    def drop_choice(self) -> None:
        """Forget data that is still being checked."""
        self._choice = ""

    def _check_next(self, choice: str, specs: list[DataSpec], then: Callable[[], None]) -> None:
        if choice != self._choice:
            return
        if not specs:
            then()
            return

        def checked(_found: object) -> None:
            self._check_next(choice, specs[1:], then)

        self._check_job = self._runs.check_data(specs[0], checked)

    def _on_job_failed(self, row: JobRow) -> None:
        if self._asked is not None and row.hint.action is HintAction.TRUST_MODEL:
            self._asked = replace(self._asked, reason=f"{row.outcome}.")
        if self._choice and row.job_id == self._check_job:
            self._choice = ""
            self.data_refused.emit(row)

    def _take_data(self, choice: str, calibration: DataSpec | None, test: DataSpec | None) -> None:
        """Use data that was checked, once it is known what is in it; analyse what is not known with it."""
        paths = {spec.path for spec in (calibration, test) if spec is not None}

        def read(contents: dict[str, str]) -> None:
            if choice != self._choice:
                return
            self._choice = ""
            self._opening.set_data(calibration, test, contents)
            model, curve = self._known.model, self._known.sensitivity_curve
            if calibration is not None and curve is None and model is not None and model.can_be_quantized:
                self._runs.analyze()

        self._known.background.run(lambda: _contents(paths), read, lambda _error: read({}))

    def trust(self, request: TrustRequest, factory: str = "") -> None:
        """The user agreed to run what was asked about."""
        if request.purpose == "model":
            self.open_model(request.path, trust=True, factory=factory)
            return
        # The user agreed to one function: another one is asked about in turn.
        calibration, test = (
            replace(spec, trusted=True) if spec is not None and spec.path == request.path else spec
            for spec in self._waiting_data
        )
        self.choose_data(calibration, test)

    # Projects.

    def new_project(self) -> None:
        """An empty session; the present one is on disk already."""
        self.leaving.then("A new session", lambda: self._attach(lambda: Project.temporary(restore=False)))

    def open_project(self, path: str) -> None:
        """Open a session or project file, or read again the one that is open."""
        self.leaving.then(Path(path).stem, lambda: self._open_project(path))

    def _open_project(self, path: str) -> None:
        present = self._known.project
        # A project is locked by whoever has it open, this window too.
        is_open = present.path.resolve() == Path(path).resolve()
        if self._attach(lambda: present if is_open else Project.open(Path(path))):
            self._earlier = None
            self.opened.emit(path)
            self.resume()
            for gone in self._known.project.missing():
                found = f"There is a file of that name at {gone.candidate}. " if gone.candidate else ""
                self._known.notify(
                    NoticeLevel.WARNING,
                    f"The {gone.kind.value} file {Path(gone.path).name} is not where it was",
                    Hint(f"{found}Choose where it is now", HintAction.LOCATE_FILES),
                )

    def save_as(self, path: str) -> None:
        """Copy the project into another file and go on there."""
        target = Path(path) if path.endswith(SUFFIX) else Path(path + SUFFIX)
        project = self._known.project
        self._known.findings.flush()
        try:
            project.save_as(target)
        except QuantStudioError as error:
            self._known.notify_of(error)
            return
        self._known.findings.follow(project.findings)
        self._known.project_changed.emit()
        self.opened.emit(str(target))
        self._known.notify(
            NoticeLevel.SUCCESS, f"Saved as {target.name}", "From now on every change is kept there at once"
        )

    def locate(self, kind: ReferenceKind, path: str) -> None:
        """Point a missing reference to where the file is now."""
        project = self._known.project

        def done(digest: str) -> None:
            try:
                project.relocate(kind, Path(path), digest=digest)
                self._opening.open_project(project)
            except QuantStudioError as error:
                self._known.notify_of(error)

        self._known.background.run(lambda: content_digest(Path(path)), done, self._known.notify_of)

    # Recipes, exports, reports.

    def import_recipe(self, path: str) -> None:
        """Make the recipe of a file the active plan's."""
        from quantstudio.project.recipe_file import read_recipe_file

        try:
            recipe = read_recipe_file(Path(path)).recipe
            if self._known.model is not None:
                resolve(recipe, self._known.layers)
        except QuantStudioError as error:
            self._known.notify_of(error)
            return
        self._edits.set_recipe(recipe, f"Import {Path(path).name}")

    def export_recipe(self, path: str) -> None:
        """Write the recipe with everything that reproduces its variant."""
        from quantstudio.project.recipe_file import write_recipe_file
        from quantstudio.workspace.exports import recipe_file_of

        try:
            write_recipe_file(Path(path), recipe_file_of(self._known, self._known.current_variant))
        except QuantStudioError as error:
            self._known.notify_of(error)
            return
        self._known.notify(NoticeLevel.SUCCESS, f"Wrote {Path(path).name}")

    def export(self, path: str, *, with_recipe: bool = True) -> None:
        """Write the variant of the recipe as it is, building it first where needed."""
        from quantstudio.workspace.exports import Export

        Export(self._known, self._runs, Path(path), with_recipe=with_recipe).start()

    def write_report(self, path: str) -> None:
        """Write an HTML report of everything known now."""
        from quantstudio.workspace.report_data import report_of

        target = Path(path)
        try:
            data = report_of(self._known)
        except QuantStudioError as error:
            self._known.notify_of(error)
            return

        def write() -> None:
            from quantstudio.report.html import write_html  # brings the template engine

            write_html(data, target)

        def done(_nothing: None) -> None:
            self._known.notify(NoticeLevel.SUCCESS, f"Wrote {target.name}", str(target.parent))
            self.report_written.emit(str(target))

        self._known.background.run(write, done, self._known.notify_of)

    # Inside.

    @property
    def earlier(self) -> Path | None:
        """The session in which work was done before on the model that was opened last; None for none."""
        return self._earlier

    def open_earlier(self) -> None:
        """Go on there."""
        if self._earlier is not None:
            self.open_path(str(self._earlier))

    def _look_for_earlier(self, path: str) -> None:
        """Say so where the model that was just opened has a session already: nobody does work twice."""
        present = self._known.project.path

        def told(found: ProjectOutline | None) -> None:
            if found is None or self._known.project.path != present:
                return
            self._earlier = found.path
            known = f": {found.summary.shown.name} and more" if found.summary and found.summary.shown else ""
            self._known.notify(
                NoticeLevel.INFO,
                f"There is an earlier session of {Path(path).name}{known}",
                Hint("This one begins anew; that one has its plans and results", HintAction.OPEN_SESSION),
            )

        self._known.background.run(lambda: earlier_session(path, present), told, self._known.notify_of)

    def _opened_model(self, path: str) -> None:
        self._asked = None
        self.opened.emit(path)
        self._earlier = None
        self._look_for_earlier(path)
        self._runs.add_weights()
        if self._data_to_offer:
            self._offer_all(self._data_to_offer)
            self._data_to_offer = ()
        elif self._known.calibration_data is None:
            self._known.notify(
                NoticeLevel.INFO,
                "Model opened; choose data next",
                Hint("Calibration, sensitivity and accuracy need samples", HintAction.CHOOSE_DATA),
            )

    def _offer_data(self, path: str) -> None:
        if self._known.model is None:
            hint = Hint("Data is read to fit it", HintAction.OPEN_MODEL)
            self._known.notify(NoticeLevel.WARNING, "Open a model before its data", hint)
            return
        self.data_offered.emit(path)

    def _offer_all(self, paths: Sequence[str]) -> None:
        if len(paths) == 1 or self._known.model is None:
            self._offer_data(paths[0])
        else:
            self.pair_offered.emit(paths[0], paths[1])

    def _attach(self, make: Callable[[], Project]) -> bool:
        try:
            self._opening.open_project(make())
        except QuantStudioError as error:
            self._known.notify_of(error)
            return False
        self._asked = None
        return True


def _contents(paths: set[str]) -> dict[str, str]:
    """What tells each data set from others; called off the owner's thread, for it reads the files."""
    found = {}
    for path in sorted(paths):
        # A function has no content of its own; a file that cannot be read was told of by the check.
        if not is_callable_name(path) and Path(path).exists():
            found[path] = content_digest(Path(path))
    return found
