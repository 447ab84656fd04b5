"""Choosing data: path, transform and number of samples, for calibration and for the test of accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QDialogButtonBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QWidget,
)
from typing_extensions import override

from quantstudio.core.data_spec import DataSpec, Transform, parse_transform
from quantstudio.core.errors import QuantStudioError
from quantstudio.core.events import JobState
from quantstudio.core.figures import count
from quantstudio.core.hints import NO_HINT, Hint, HintAction
from quantstudio.gui.action import Context
from quantstudio.gui.widgets.dialog import Dialog, caption
from quantstudio.gui.widgets.path_edit import PathEdit
from quantstudio.gui.widgets.remedy import RemedyButton
from quantstudio.jobs.rows import JobRow
from quantstudio.project.references import is_callable_name

MAX_SAMPLES = 100_000_000
# What this very dialog is for.
_DONE_HERE = {HintAction.CHOOSE_DATA, HintAction.CHECK_DATA, HintAction.TRUST_DATA}
EXAMPLE = "scale=1/255 mean=0.2860 std=0.3530 layout=NCHW"


class DataFields(QWidget):
    """One data set: path with a browse button, transform, samples. Emits `edited`."""

    edited = Signal()

    def __init__(self, key: str, title: str, spec: DataSpec | None, parent: QWidget) -> None:
        super().__init__(parent)
        self.setObjectName(f"data.{key}")
        self._key = key
        self.path = PathEdit(spec.path if spec else "", self)
        self.path.setObjectName(f"data.{key}.path")
        self.path.setAccessibleName(f"{title}: file, folder or module:callable")
        self.path.setPlaceholderText("images.npz, a folder with one subfolder per class, or module:callable")
        self.transform = QLineEdit(spec.transform.text if spec else "", self)
        self.transform.setObjectName(f"data.{key}.transform")
        self.transform.setAccessibleName(f"{title}: transform")
        self.transform.setPlaceholderText(EXAMPLE)
        self.samples = QSpinBox(self)
        self.samples.setObjectName(f"data.{key}.samples")
        self.samples.setAccessibleName(f"{title}: samples, 0 for all")
        self.samples.setRange(0, MAX_SAMPLES)
        self.samples.setSpecialValueText("all")
        self.samples.setGroupSeparatorShown(True)
        self.samples.setValue(spec.samples if spec else 0)
        browse = QPushButton("File…", self)
        browse.setObjectName(f"data.{key}.browse")
        browse.setAccessibleName(f"{title}: choose a file")
        browse.clicked.connect(self._browse_file)
        folder = QPushButton("Folder…", self)
        folder.setObjectName(f"data.{key}.folder")
        folder.setAccessibleName(f"{title}: choose a folder of images")
        folder.clicked.connect(self._browse_folder)
        self.problem = QLabel("", self)
        self.problem.setObjectName(f"data.{key}.problem")
        self.problem.setProperty("role", "caption")
        self.problem.setWordWrap(True)
        self._lay_out(title, (browse, folder))
        order = (self.path, browse, folder, self.transform, self.samples)
        for one, other in pairwise(order):
            QWidget.setTabOrder(one, other)
        for field in (self.path, self.transform):
            field.textChanged.connect(self._on_edited)
        self.samples.valueChanged.connect(self._on_edited)
        self._check()

    def _lay_out(self, title: str, buttons: tuple[QPushButton, ...]) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(4)
        head = QLabel(title, self)
        head.setObjectName(f"data.{self._key}.title")
        head.setProperty("role", "title")
        grid.addWidget(head, 0, 0, 1, 2)
        row = QHBoxLayout()
        row.setSpacing(8)
        for button in buttons:
            button.setAutoDefault(False)
            row.addWidget(button, 1)
        grid.addWidget(self.path, 1, 0)
        grid.addLayout(row, 1, 1)
        name = f"data.{self._key}"
        grid.addWidget(caption("Transform", self, f"{name}.transform.label", self.transform), 2, 0)
        grid.addWidget(caption("Samples", self, f"{name}.samples.label", self.samples), 2, 1)
        grid.addWidget(self.transform, 3, 0)
        grid.addWidget(self.samples, 3, 1)
        grid.addWidget(self.problem, 4, 0, 1, 2)
        grid.setColumnStretch(0, 1)

    @property
    def spec(self) -> DataSpec | None:
        """The data set as typed; None while it is empty or not valid."""
        path = self.path.text().strip()
        if not path or self.error:
            return None
        return DataSpec(path, parse_transform(self.transform.text()), self.samples.value())

    @property
    def error(self) -> str:
        """What is wrong with what was typed; empty if nothing is."""
        path = self.path.text().strip()
        if path and not is_callable_name(path) and not Path(path).exists():
            return "There is no such file or folder"
        try:
            parse_transform(self.transform.text())
        except QuantStudioError as error:
            return error.one_line
        return ""

    @property
    def runs_code(self) -> bool:
        """Whether the path is module:callable."""
        return is_callable_name(self.path.text().strip())

    def _on_edited(self) -> None:
        self._check()
        self.edited.emit()

    def _check(self) -> None:
        error = self.error
        self.problem.setText(error or _described(self.spec))
        self.problem.setProperty("role", "error" if error else "caption")
        self.problem.style().polish(self.problem)

    def _browse_file(self) -> None:
        dialog = QFileDialog(self, "Choose data", self.path.text(), "Arrays (*.npz);;All files (*)")
        dialog.setObjectName("data.file_dialog")
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(self.path.setText)
        dialog.open()

    def _browse_folder(self) -> None:
        dialog = QFileDialog(self, "Choose a folder of images", self.path.text())
        dialog.setObjectName("data.folder_dialog")
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.fileSelected.connect(self.path.setText)
        dialog.open()


class DataDialog(Dialog):
    """Calibration and test data of the session, checked in the worker against the model."""

    def __init__(self, context: Context, *, offered: str = "", offered_test: str = "") -> None:
        super().__init__(
            "data",
            "Data",
            "Calibration data sets the ranges of activations and ranks the layers. Test data measures "
            "accuracy; without it, accuracy is measured on the calibration data.",
            context.window,
        )
        self._context = context
        self._session = session = context.session
        calibration, test = session.workspace.calibration_data, session.workspace.test_data
        transform = calibration.transform if calibration is not None else Transform()
        if offered and (calibration is None or offered_test):
            calibration = DataSpec(offered, transform)
        elif offered:
            offered_test = offered
        if offered_test:
            test = DataSpec(offered_test, transform)
        self._build(calibration, test)
        self._last_transform = self.calibration.transform.text()
        self.calibration.transform.textEdited.connect(self._on_transform_edited)
        self._is_using = False
        self._checks: dict[str, str] = {}
        self._found_lines: list[str] = []
        session.job_signals.failed.connect(self._on_failed)
        session.job_signals.changed.connect(self._on_jobs_changed)
        session.data_changed.connect(self._on_data_changed)
        session.data_refused.connect(self._on_refused)
        self.setMinimumWidth(640)
        session.workspace.runs.expect_checks()
        self._refresh()

    def _build(self, calibration: DataSpec | None, test: DataSpec | None) -> None:
        self.calibration = DataFields("calibration", "Calibration", calibration, self)
        self.test = DataFields("test", "Test", test, self)
        self.body.addWidget(self.calibration)
        self.body.addSpacing(8)
        self.body.addWidget(self.test)
        self.found = QLabel("", self)
        self.found.setObjectName("data.found")
        self.found.setProperty("role", "muted")
        self.found.setWordWrap(True)
        self.body.addWidget(self.found)
        self.remedy = RemedyButton("data.remedy", self)
        self.remedy.clicked.connect(self.reject)
        self.body.addWidget(self.remedy, 0, Qt.AlignmentFlag.AlignLeft)
        self.body.addStretch(1)
        self.check = self.add_button("check", "Check", QDialogButtonBox.ButtonRole.ActionRole)
        self.check.setToolTip("Open the data in the worker and see the shapes the model would get")
        self.add_cancel()
        self.use = self.add_button(
            "use", "Use this data", QDialogButtonBox.ButtonRole.AcceptRole, is_default=True
        )
        self.check.clicked.connect(self._on_check)
        self.use.clicked.connect(self._on_use)
        for fields in (self.calibration, self.test):
            fields.edited.connect(self._refresh)
            fields.edited.connect(self._session.workspace.runs.expect_checks)

    def _on_transform_edited(self, text: str) -> None:
        """Test data goes through the same transform until it is given another."""
        if self.test.transform.text() in ("", self._last_transform):
            self.test.transform.setText(text)
        self._last_transform = text

    def _refresh(self) -> None:
        fields = (self.calibration, self.test)
        is_valid = self.calibration.spec is not None and not any(f.error for f in fields)
        self.use.setEnabled(is_valid and not self._is_using)
        self.check.setEnabled(is_valid and not self._is_using and not any(f.runs_code for f in fields))
        for field in fields:
            field.setEnabled(not self._is_using)

    def _on_check(self) -> None:
        self._checks.clear()
        self._found_lines.clear()
        self._say("Opening the data…")
        for title, fields in (("Calibration", self.calibration), ("Test", self.test)):
            spec = fields.spec
            if spec is not None:
                self._checks[self._session.workspace.runs.check_data(spec, _Found(self, title).show)] = title

    def show_found(self, line: str) -> None:
        """Add a line on what a data set holds."""
        self._found_lines.append(line)
        self._say("\n".join(self._found_lines))

    def _say(self, text: str, *, is_error: bool = False, hint: Hint = NO_HINT) -> None:
        self.found.setText(text)
        self.found.setProperty("role", "error" if is_error else "muted")
        self.found.style().polish(self.found)
        self.remedy.offer(None if hint.action in _DONE_HERE else self._context.remedy(hint))

    def _on_failed(self, row: JobRow) -> None:
        title = self._checks.get(row.job_id)
        if title is not None:
            self._found_lines.append(f"{title}: {_sentence(row)}")
            self._say("\n".join(self._found_lines), is_error=True, hint=row.hint)

    def _on_use(self) -> None:
        calibration, test = self.calibration.spec, self.test.spec
        if self.calibration.runs_code or self.test.runs_code:
            self.accept()  # the question whether to run it comes in its own dialog
            self._session.workspace.documents.choose_data(calibration, test)
            return
        self._is_using = True
        self._say("Opening the data…")
        self._refresh()
        self._session.workspace.documents.choose_data(calibration, test)

    def _on_data_changed(self) -> None:
        if self._is_using:
            self._is_using = False
            self.accept()

    def _on_refused(self, row: JobRow) -> None:
        self._stop_using(f"{_sentence(row)} Nothing was changed.", row.hint)

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
        if self._is_using:
            self._is_using = False
            self._session.workspace.documents.drop_choice()
        super().done(result)


class _Found:
    """Writes what a data set holds into the dialog, if that is still open."""

    def __init__(self, dialog: DataDialog, title: str) -> None:
        self._dialog: DataDialog | None = dialog
        self._title = title
        dialog.destroyed.connect(self._on_destroyed)

    def show(self, result: Mapping[str, Any]) -> None:
        """Result of the engine's `data_summary`."""
        if self._dialog is None:
            return
        shapes = ", ".join(
            f"{name} {'×'.join(str(n) for n in shape) or 'scalar'}"
            for name, shape in result["shapes"].items()
        )
        classes = result["classes"]
        labels = f"{classes} classes" if classes else "targets" if result["labelled"] else "no labels"
        self._dialog.show_found(f"{self._title}: {count(result['samples'])} samples, {shapes}, {labels}")

    def _on_destroyed(self) -> None:
        self._dialog = None


def _sentence(row: JobRow) -> str:
    return " ".join(f"{part.rstrip('.')}." for part in (row.outcome, row.hint.text) if part)


def _described(spec: DataSpec | None) -> str:
    if spec is None:
        return ""
    parts = []
    transform = spec.transform
    if transform.resize:
        parts.append(f"resized to {transform.resize[0]}×{transform.resize[1]}")
    if transform.crop:
        parts.append(f"cropped to {transform.crop[0]}×{transform.crop[1]}")
    low, high = ((pixel * transform.scale - transform.mean[0]) / transform.std[0] for pixel in (0, 255))
    if transform.scale != 1.0 or transform.mean != (0.0,) or transform.std != (1.0,):
        parts.append(f"pixel 0 becomes {low:.4g}, pixel 255 becomes {high:.4g}")
    if transform.layout != "keep":
        parts.append(f"channels {'first' if transform.layout == 'NCHW' else 'last'}")
    return ", ".join(parts).capitalize() if parts else "Arrays are passed to the model unchanged"
