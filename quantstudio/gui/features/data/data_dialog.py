"""Choosing data: the doctor proposes how it becomes what the model wants, before anything is pressed."""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QDialogButtonBox, QLabel
from typing_extensions import override

from quantstudio.core.data_spec import DataSpec, Transform, parse_transform
from quantstudio.core.diagnosis import Diagnosis, Trouble
from quantstudio.core.errors import QuantStudioError
from quantstudio.core.events import ErrorInfo, JobState
from quantstudio.core.hints import NO_HINT, Hint, HintAction
from quantstudio.core.judgement import INFERRED
from quantstudio.gui.action import Context
from quantstudio.gui.features.data.axes_row import AxesRow
from quantstudio.gui.features.data.data_fields import DataFields
from quantstudio.gui.features.data.doctor_card import CHOOSE_CALIBRATION, CHOOSE_TEST, EDIT_TEST, DoctorCard
from quantstudio.gui.features.data.examination import Examination, Question
from quantstudio.gui.features.data.judged_row import JudgedRow
from quantstudio.gui.widgets.dialog import Dialog
from quantstudio.gui.widgets.enabling import allow
from quantstudio.gui.widgets.remedy import RemedyButton
from quantstudio.jobs.rows import JobRow
from quantstudio.workspace.doctor import beside

# What this very dialog is for.
_DONE_HERE = {
    HintAction.CHOOSE_DATA,
    HintAction.CHECK_DATA,
    HintAction.TRUST_DATA,
    HintAction.USE_TRANSFORM,
}
_WIDTH = 780


class DataDialog(Dialog):
    """Calibration and test data of the session, with what the data doctor says of them."""

    def __init__(self, context: Context, *, offered: str = "", offered_test: str = "") -> None:
        super().__init__(
            "data",
            "Data",
            "Calibration data sets the ranges of activations and ranks the layers. Test data measures "
            "accuracy; without it, accuracy is measured on the calibration data.",
            context.window,
            scrolls=True,
        )
        self._context = context
        self._session = session = context.session
        workspace = session.workspace
        calibration, test = workspace.calibration_data, workspace.test_data
        # A transform that nobody typed or used before gives way to the proposed one.
        self._is_own = calibration is not None
        remembered = "" if self._is_own else workspace.doctor.remembered
        self._is_remembered = bool(remembered)
        transform = calibration.transform if calibration is not None else parse_transform(remembered)
        if offered and (calibration is None or offered_test):
            calibration = replace(calibration or DataSpec(""), path=offered, transform=transform, samples=0)
        elif offered:
            offered_test = offered
        found_test = ""
        if offered and test is None and not offered_test:
            found_test = offered_test = beside(offered)
        if offered_test:
            test = replace(calibration or DataSpec(""), path=offered_test, transform=transform, samples=0)
        self._build(calibration, test, transform)
        if found_test:
            self.test.remark("Found beside the calibration data")
        self._last_transform = self.calibration.transform.text()
        self.calibration.transform.textEdited.connect(self._on_transform_edited)
        self.test.transform.textEdited.connect(self._on_test_transform_edited)
        self._is_using = False
        self._failure: ErrorInfo | None = None
        session.job_signals.changed.connect(self._on_jobs_changed)
        session.data_changed.connect(self._on_data_changed)
        session.data_refused.connect(self._on_refused)
        self.setMinimumWidth(_WIDTH)
        workspace.runs.expect_checks()
        self._refresh()
        self._ask(at_once=True)

    def _build(self, calibration: DataSpec | None, test: DataSpec | None, transform: Transform) -> None:
        self.calibration = DataFields("calibration", "Calibration", calibration, self)
        self.test = DataFields("test", "Test", test, self)
        if test is None and calibration is not None:
            self.test.judging, self.test.batch_axes = calibration.judging, calibration.batch_axes
        if calibration is None:
            self.calibration.transform.setText(transform.text)
        self.body.addWidget(self.calibration)
        self.body.addSpacing(4)
        self.body.addWidget(self.test)
        self.body.addSpacing(4)
        self.doctor = DoctorCard(self)
        self.doctor.wanted.connect(self._on_wanted)
        self.doctor.asked.connect(self._on_asked)
        self._fitting = QTimer(self)
        self._fitting.setSingleShot(True)
        self._fitting.timeout.connect(self.fit)
        self.doctor.resized.connect(self._fitting.start)
        self.body.addWidget(self.doctor)
        judging = next((one.judging for one in (test, calibration) if one is not None), INFERRED)
        self.judged = JudgedRow(self._session, judging, self)
        self.judged.edited.connect(self._on_judged_as)
        self.body.addWidget(self.judged)
        self.axes = AxesRow(self.calibration.batch_axes, self)
        self.axes.edited.connect(self._on_axes_edited)
        self.body.addWidget(self.axes)
        self.found = QLabel("", self)
        self.found.setObjectName("data.found")
        self.found.setProperty("role", "muted")
        self.found.setWordWrap(True)
        self.body.addWidget(self.found)
        self.remedy = RemedyButton("data.remedy", self)
        self.remedy.clicked.connect(self.reject)
        self.body.addWidget(self.remedy, 0, Qt.AlignmentFlag.AlignLeft)
        self.body.addStretch(1)
        self.add_cancel()
        self.use = self.add_button(
            "use", "Use this data", QDialogButtonBox.ButtonRole.AcceptRole, is_default=True
        )
        self.use.clicked.connect(self._on_use)
        self.examination = Examination(self._session, self)
        self.examination.begun.connect(self._on_begun)
        self.examination.found.connect(self._on_found)
        self.examination.failed.connect(self._on_failed)
        for fields in (self.calibration, self.test):
            fields.edited.connect(self._on_edited)

    def _on_judged_as(self) -> None:
        for fields in (self.calibration, self.test):
            fields.judging = self.judged.judging

    def _on_axes_edited(self) -> None:
        for fields in (self.calibration, self.test):
            fields.batch_axes = self.axes.chosen
        self._on_edited()

    # What is typed.

    def _on_transform_edited(self, text: str) -> None:
        """Test data goes through the same transform until it is given another."""
        self._is_own = True
        if self.test.transform.text() in ("", self._last_transform):
            self.test.transform.setText(text)
        self._last_transform = text
        self._ask()

    def _on_test_transform_edited(self, _text: str) -> None:
        self._is_own = True
        self._ask()

    def _on_edited(self) -> None:
        self._refresh()
        self._session.workspace.runs.expect_checks()
        self.doctor.show_used(self._typed)
        self._ask()

    def _refresh(self) -> None:
        fields = (self.calibration, self.test)
        is_valid = self.calibration.spec is not None and not any(f.error for f in fields)
        allow(self.use, self._why_not_use())
        for field in fields:
            field.setEnabled(not self._is_using)
        self.judged.setEnabled(not self._is_using)
        self.axes.setEnabled(not self._is_using)
        if not is_valid or any(field.runs_code for field in fields):
            self.judged.ask(None)

    def _why_not_use(self) -> str:
        if self._is_using:
            return "The data is being opened"
        for title, fields in (("calibration", self.calibration), ("test", self.test)):
            if fields.error:
                return f"Mend the {title} data first: {fields.error}"
        if self.axes.error:
            return f"Mend the sample axes first: {self.axes.error}"
        return "" if self.calibration.spec is not None else "Choose calibration data first"

    @property
    def _typed(self) -> str:
        """The transform in the field in its usual form; what cannot be read as it is."""
        text = self.calibration.transform.text()
        try:
            return parse_transform(text).text
        except QuantStudioError:
            return text

    # The doctor.

    def _ask(self, *, at_once: bool = False) -> None:
        question = self._question()
        self.examination.examine(question, at_once=at_once)
        if question is None:
            self._tell_why_not()

    def _question(self) -> Question | None:
        fields = (self.calibration, self.test)
        if self._session.workspace.model is None or any(one.runs_code for one in fields):
            return None
        is_asked = self._is_own or self._is_remembered
        data, test = (one.spec if is_asked else one.source for one in fields)
        if data is None or self.axes.error or any(one.error for one in fields):
            return None
        return Question(data, test, is_asked)

    def _on_begun(self) -> None:
        self._failure = None
        self.doctor.say("Looking at the data…")
        self._say("")

    def _tell_why_not(self) -> None:
        is_code = self.calibration.runs_code or self.test.runs_code
        self.doctor.show_nothing(
            "Data from your own Python function is looked at once you have agreed to run it."
            if is_code
            else "Choose data, and its transform is proposed here."
        )

    def _on_found(self, found: Diagnosis) -> None:
        is_refuted = any(one.trouble is Trouble.WRONG_TRANSFORM for one in found.cautions)
        if self._is_remembered and not self._is_own and is_refuted:
            # What networks with such inputs got last is not what this one wants.
            self._is_remembered = False
            self._ask(at_once=True)
            return
        if not self._is_own and not self._is_remembered:
            self._put(found.proposed.transform)
        self.doctor.show_diagnosis(found, self._typed)
        if found.is_final:  # with the transform that is there now
            self.judged.ask(self.test.spec or self.calibration.spec)

    def _on_failed(self, error: ErrorInfo) -> None:
        self._failure = error
        self.doctor.show_nothing(_told(error), is_error=True)
        self.remedy.offer(None if error.hint.action in _DONE_HERE else self._context.remedy(error.hint))

    def _put(self, transform: Transform) -> None:
        """Write a transform into the fields; test data keeps one of its own."""
        is_alike = self.test.transform.text() in ("", self._last_transform)
        self.calibration.transform.setText(transform.text)
        if is_alike:
            self.test.transform.setText(transform.text)
        self._last_transform = transform.text

    def _on_wanted(self, transform: Transform) -> None:
        self._is_own = self._is_remembered = False
        self._put(transform)
        self._ask(at_once=True)

    def _on_asked(self, remedy: str) -> None:
        if remedy == CHOOSE_TEST:
            self.test.browse_file()
        elif remedy == CHOOSE_CALIBRATION:
            self.calibration.browse_file()
        elif remedy == EDIT_TEST:
            self.test.transform.setFocus()
            self.test.transform.selectAll()

    # Using it.

    def _say(self, text: str, *, is_error: bool = False, hint: Hint = NO_HINT) -> None:
        self.found.setText(text)
        self.found.setVisible(bool(text))
        self.found.setProperty("role", "error" if is_error else "muted")
        self.found.style().polish(self.found)
        self.remedy.offer(None if hint.action in _DONE_HERE else self._context.remedy(hint))

    def _on_use(self) -> None:
        calibration, test = self.calibration.spec, self.test.spec
        if self.calibration.runs_code or self.test.runs_code:
            self.accept()  # the question whether to run it comes in its own dialog
            self._session.workspace.documents.choose_data(calibration, test)
            return
        self.examination.close()
        self.judged.close_questions()
        self._is_using = True
        self._say("Opening the data…")
        self._refresh()
        self._session.workspace.documents.choose_data(calibration, test)

    def _on_data_changed(self) -> None:
        if self._is_using:
            self._is_using = False
            self.accept()

    def _on_refused(self, row: JobRow) -> None:
        told = _sentence(row)
        is_told = self._failure is not None and self._failure.what in row.outcome
        self._stop_using("Nothing was changed." if is_told else f"{told} Nothing was changed.", row.hint)

    def _on_jobs_changed(self) -> None:
        # The check was stopped from the jobs panel.
        check = self._session.workspace.documents.check
        if self._is_using and check is not None and check.state is JobState.CANCELLED:
            self._stop_using("Stopped. Nothing was changed.")

    def _stop_using(self, text: str, hint: Hint = NO_HINT) -> None:
        self._is_using = False
        self._say(text, is_error=True, hint=hint)
        self._refresh()

    @override
    def done(self, result: int) -> None:
        self.examination.close()
        self.judged.close_questions()
        if self._is_using:
            self._is_using = False
            self._session.workspace.documents.drop_choice()
        super().done(result)


def _told(error: ErrorInfo) -> str:
    return " ".join(
        f"{part[:1].upper()}{part[1:].rstrip('.')}." for part in (error.what, error.hint.text) if part
    )


def _sentence(row: JobRow) -> str:
    return " ".join(f"{part.rstrip('.')}." for part in (row.outcome, row.hint.text) if part)
