"""Writing the quantized model with its recipe, and the same work as a command or as Python."""

from __future__ import annotations

import shlex
from pathlib import Path

from PySide6.QtGui import QFontDatabase, QGuiApplication
from PySide6.QtWidgets import (
    QCheckBox,
    QDialogButtonBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from quantstudio.core.data_spec import DataSpec
from quantstudio.gui.session import Session
from quantstudio.gui.widgets.dialog import Dialog, caption


def command_line(session: Session, output: str) -> str:
    """The shell commands that give the same file."""
    output = output or "OUT.onnx"
    recipe = str(Path(output).with_suffix(".recipe.json"))
    state, data = session.state, session.calibration_data
    parts = ["quantstudio", "quantize", state.state_path or _model_path(session)]
    if data is not None:
        parts += ["--data", data.path, "--samples", str(session.recipe.calibration.samples)]
        if data.transform.text:
            parts += ["--transform", data.transform.text]
    if state.factory:
        parts += ["--factory", state.factory]
    if state.trusted or (data is not None and data.trusted):
        parts += ["--trust"]
    parts += ["--recipe", recipe, "-o", output]
    again = shlex.join(["quantstudio", "run", recipe])
    if data is not None and data.samples:
        # Only the recipe can say that no more than the first samples count.
        return f"# Export the recipe too: it makes the same file again.\n{again}\n"
    return f"{shlex.join(parts)}\n\n# or, from the recipe alone, checked byte for byte:\n{again}\n"


def python_code(session: Session, output: str) -> str:
    """The same work in Python."""
    output = output or "OUT.onnx"
    recipe = str(Path(output).with_suffix(".recipe.json"))
    state, data = session.state, session.calibration_data
    opened = f"path={_model_path(session)!r}"
    if state.trusted:
        opened += ", trust=True"
    if state.factory:
        opened = f"path={state.factory!r}, trust=True, state={state.state_path!r}"
    lines = [
        "from pathlib import Path",
        "",
        "from quantstudio.core.codec import to_json",
        "from quantstudio.engine.tasks.models import open_model",
        "from quantstudio.engine.tasks.quantize import quantize",
        "from quantstudio.project.recipe_file import read_recipe_file",
        "",
        f"recipe = read_recipe_file(Path({recipe!r})).recipe",
        f"model = open_model({opened})",
    ]
    if data is not None:
        lines += [
            f"data = DataSpec({data.path!r}, parse_transform({data.transform.text!r}){_limits(data)})",
            "statistics = calibrate(",
            "    graph_path=model.graph_path, data=to_json(data), samples=recipe.calibration.samples",
            ")",
        ]
    statistics = "statistics=statistics.path, " if data is not None else ""
    lines += [
        "result = quantize(",
        f"    graph_path=model.graph_path, {statistics}recipe=to_json(recipe),",
        f"    output={output!r},",
        ")",
        "print(result.build.size_bytes, result.build.digest)",
    ]
    if data is not None:
        lines[3:3] = [
            "from quantstudio.core.data_spec import DataSpec, parse_transform",
            "from quantstudio.engine.tasks.calibration import calibrate",
        ]
    return "\n".join(lines) + "\n"


def _model_path(session: Session) -> str:
    return session.model.source_path if session.model else "MODEL"


def _limits(data: DataSpec) -> str:
    text = f", samples={data.samples}" if data.samples else ""
    return f"{text}, trusted=True" if data.trusted else text


class ExportDialog(Dialog):
    """Where to write, what to write, and how to do it again without the window."""

    def __init__(self, session: Session, path: str, parent: QWidget) -> None:
        super().__init__("export", "Export", "", parent)
        self._session = session
        self.path = QLineEdit(path, self)
        self.path.setObjectName("export.path")
        self.path.setAccessibleName("ONNX file to write")
        browse = QPushButton("Browse…", self)
        browse.setObjectName("export.browse")
        browse.setAccessibleName("Choose where to write")
        browse.setAutoDefault(False)
        browse.clicked.connect(self._on_browse)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.path, 1)
        row.addWidget(browse)
        self.body.addWidget(caption("ONNX file", self, "export.path.label", self.path))
        self.body.addLayout(row)
        self.with_recipe = QCheckBox("Also write the recipe that reproduces it (.recipe.json)", self)
        self.with_recipe.setObjectName("export.with_recipe")
        self.with_recipe.setAccessibleName("Also write the recipe")
        self.with_recipe.setChecked(True)
        self.body.addWidget(self.with_recipe)
        self.tabs = QTabWidget(self)
        self.tabs.setObjectName("export.tabs")
        self.tabs.setAccessibleName("The same work without the window")
        self.tabs.setDocumentMode(True)
        self.command = self._code("command")
        self.python = self._code("python")
        self.tabs.addTab(self._with_copy(self.command, "command"), "Command line")
        self.tabs.addTab(self._with_copy(self.python, "python"), "Python")
        self.body.addWidget(self.tabs, 1)
        self.add_cancel()
        built = session.current_variant is not None
        self.write = self.add_button(
            "write",
            "Export" if built else "Quantize and export",
            QDialogButtonBox.ButtonRole.AcceptRole,
            is_default=True,
        )
        self.write.clicked.connect(self._on_write)
        self.path.textChanged.connect(self._refresh)
        self.resize(640, 460)
        self._refresh()

    def _code(self, name: str) -> QPlainTextEdit:
        edit = QPlainTextEdit(self)
        edit.setObjectName(f"export.{name}")
        edit.setAccessibleName(f"Export as {name}")
        edit.setReadOnly(True)
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        font.setPixelSize(12)
        edit.setFont(font)
        return edit

    def _with_copy(self, edit: QPlainTextEdit, name: str) -> QWidget:
        page = QWidget(self)
        page.setObjectName(f"export.{name}.page")
        copy = QPushButton("Copy", page)
        copy.setObjectName(f"export.{name}.copy")
        copy.setAccessibleName(f"Copy {name}")
        copy.setAutoDefault(False)
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(edit.toPlainText()))
        layout = QVBoxLayout(page)
        layout.setContentsMargins(0, 8, 0, 0)
        layout.addWidget(edit, 1)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(copy)
        layout.addLayout(row)
        return page

    def _refresh(self) -> None:
        path = self.path.text().strip()
        self.write.setEnabled(
            bool(Path(path).name) and Path(path).parent.is_dir() and not Path(path).is_dir()
        )
        if path and not Path(path).name:
            path = ""
        self.command.setPlainText(command_line(self._session, path))
        self.python.setPlainText(python_code(self._session, path))

    def _on_browse(self) -> None:
        dialog = QFileDialog(self, "Export", self.path.text(), "ONNX (*.onnx)")
        dialog.setObjectName("export.file_dialog")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("onnx")
        dialog.fileSelected.connect(self.path.setText)
        dialog.open()

    def _on_write(self) -> None:
        self._session.documents.export(self.path.text().strip(), with_recipe=self.with_recipe.isChecked())
        self.accept()
