"""Where a data set is chosen: its path, what is done to each sample, how many of them are used."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFileDialog, QGridLayout, QLabel, QLineEdit, QPushButton, QSpinBox, QWidget

from quantstudio.core.data_spec import DataSpec, Transform, is_text, parse_transform
from quantstudio.core.errors import QuantStudioError
from quantstudio.core.judgement import INFERRED
from quantstudio.gui.widgets.path_edit import PathEdit
from quantstudio.project.references import is_callable_name

MAX_SAMPLES = 100_000_000
EXAMPLE = "scale=1/255 mean=0.2860 std=0.3530 layout=NCHW"
_TITLE_PX = 96


class DataFields(QWidget):
    """One data set: path with buttons that browse, transform, samples. Emits `edited`.

    Attributes:
        judging: What is said of the outputs, which is shown elsewhere.
        batch_axes: Sample axes that were named.
    """

    edited = Signal()

    def __init__(self, key: str, title: str, spec: DataSpec | None, parent: QWidget) -> None:
        super().__init__(parent)
        self.setObjectName(f"data.{key}")
        self._key = key
        self._remark = ""
        self.judging = spec.judging if spec else INFERRED
        self.batch_axes = spec.batch_axes if spec else ()
        self.path = PathEdit(spec.path if spec else "", self)
        self.path.setObjectName(f"data.{key}.path")
        self.path.setAccessibleName(f"{title}: file, folder or module:callable")
        self.path.setPlaceholderText(
            "images.npz, a folder with one subfolder per class, text.txt, or module:callable"
        )
        self.transform = QLineEdit(spec.transform.text if spec else "", self)
        self.transform.setObjectName(f"data.{key}.transform")
        self.transform.setAccessibleName(f"{title}: transform")
        self.transform.setPlaceholderText(EXAMPLE)
        self.samples = QSpinBox(self)
        self.samples.setObjectName(f"data.{key}.samples")
        self.samples.setAccessibleName(f"{title}: samples, 0 for all")
        self.samples.setToolTip("How many samples are used, from the start")
        self.samples.setRange(0, MAX_SAMPLES)
        self.samples.setSpecialValueText("all samples")
        self.samples.setSuffix(" samples")
        self.samples.setGroupSeparatorShown(True)
        self.samples.setValue(spec.samples if spec else 0)
        self._browse = self._button("browse", "File…", f"{title}: choose a file")
        self._browse.clicked.connect(self.browse_file)
        self._folder = self._button("folder", "Folder…", f"{title}: choose a folder of images")
        self._folder.clicked.connect(self._browse_folder)
        self.problem = QLabel("", self)
        self.problem.setObjectName(f"data.{key}.problem")
        self.problem.setProperty("role", "caption")
        self.problem.setWordWrap(True)
        self._lay_out(title)
        order = (self.path, self._browse, self._folder, self.transform, self.samples)
        for one, other in pairwise(order):
            QWidget.setTabOrder(one, other)
        self.path.textChanged.connect(self._on_path_edited)
        self.transform.textChanged.connect(self._on_edited)
        self.samples.valueChanged.connect(self._on_edited)
        self._check()

    def _button(self, name: str, text: str, told: str) -> QPushButton:
        button = QPushButton(text, self)
        button.setObjectName(f"data.{self._key}.{name}")
        button.setAccessibleName(told)
        button.setAutoDefault(False)
        return button

    def _lay_out(self, title: str) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(5)
        head = QLabel(title, self)
        head.setObjectName(f"data.{self._key}.title")
        head.setProperty("role", "title")
        head.setFixedWidth(_TITLE_PX)
        head.setBuddy(self.path)
        label = QLabel("Transform", self)
        label.setObjectName(f"data.{self._key}.transform.label")
        label.setProperty("role", "muted")
        label.setBuddy(self.transform)
        grid.addWidget(head, 0, 0)
        grid.addWidget(self.path, 0, 1)
        grid.addWidget(self._browse, 0, 2)
        grid.addWidget(self._folder, 0, 3)
        grid.addWidget(label, 1, 0)
        grid.addWidget(self.transform, 1, 1)
        grid.addWidget(self.samples, 1, 2, 1, 2)
        grid.addWidget(self.problem, 2, 1, 1, 3)
        grid.setColumnStretch(1, 1)

    @property
    def spec(self) -> DataSpec | None:
        """The data set as typed; None while it is empty or not valid."""
        path = self.path.text().strip()
        if not path or self.error:
            return None
        return self._said(path, parse_transform(self.transform.text()))

    @property
    def source(self) -> DataSpec | None:
        """The data set whatever the transform; None while there is none at the path."""
        path = self.path.text().strip()
        if not path or self._path_error:
            return None
        return self._said(path, Transform())

    def _said(self, path: str, transform: Transform) -> DataSpec:
        return DataSpec(
            path,
            transform,
            self.samples.value(),
            batch_axes=self.batch_axes,
            judging=self.judging,
        )

    @property
    def error(self) -> str:
        """What is wrong with what was typed; empty if nothing is."""
        if self._path_error:
            return self._path_error
        try:
            parse_transform(self.transform.text())
        except QuantStudioError as error:
            return error.one_line
        return ""

    @property
    def _path_error(self) -> str:
        path = self.path.text().strip()
        is_missing = path and not is_callable_name(path) and not Path(path).exists()
        return "There is no such file or folder" if is_missing else ""

    @property
    def runs_code(self) -> bool:
        """Whether the path is module:callable."""
        return is_callable_name(self.path.text().strip())

    def remark(self, text: str) -> None:
        """Say something about the path that is there now."""
        self._remark = text
        self._check()

    def browse_file(self) -> None:
        """Ask for a file."""
        dialog = QFileDialog(
            self, "Choose data", self.path.text(), "Arrays and text (*.npz *.txt *.jsonl);;All files (*)"
        )
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

    def _on_path_edited(self) -> None:
        self._remark = ""
        self._on_edited()

    def _on_edited(self) -> None:
        self._check()
        self.edited.emit()

    def _check(self) -> None:
        error = self.error
        told = [self._remark, _described(self.spec)]
        self.problem.setText(error or ". ".join(part for part in told if part))
        self.problem.setVisible(bool(self.problem.text()))
        self.problem.setProperty("role", "error" if error else "caption")
        self.problem.style().polish(self.problem)


def _described(spec: DataSpec | None) -> str:
    if spec is None:
        return ""
    parts = []
    transform = spec.transform
    if is_text(spec.path):
        windows = f"{transform.context} tokens" if transform.context else "as many tokens as suit the model"
        return f"Text, in windows of {windows}"
    if transform.resize:
        parts.append(f"resized to {transform.resize[0]}×{transform.resize[1]}")
    if transform.crop:
        parts.append(f"cropped to {transform.crop[0]}×{transform.crop[1]}")
    if transform.channels == "BGR":
        parts.append("blue first")
    low, high = ((pixel * transform.scale - transform.mean[0]) / transform.std[0] for pixel in (0, 255))
    if transform.scale != 1.0 or transform.mean != (0.0,) or transform.std != (1.0,):
        parts.append(f"pixel 0 becomes {low:.4g}, pixel 255 becomes {high:.4g}")
    if transform.layout != "keep":
        parts.append(f"channels {'first' if transform.layout == 'NCHW' else 'last'}")
    return ", ".join(parts).capitalize() if parts else "Arrays are passed to the model unchanged"
