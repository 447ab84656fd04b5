"""Writing the quantized model with its recipe, and the same work as a command or as Python."""

from __future__ import annotations

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

from quantstudio.gui.session import Session
from quantstudio.gui.widgets.dialog import Dialog, caption
from quantstudio.gui.widgets.enabling import allow
from quantstudio.workspace.script import command_line, python_code


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
        built = session.workspace.current_variant is not None
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
        allow(self.write, _why_not(path))
        if path and not Path(path).name:
            path = ""
        self.command.setPlainText(command_line(self._session.workspace, path))
        self.python.setPlainText(python_code(self._session.workspace, path))

    def _on_browse(self) -> None:
        dialog = QFileDialog(self, "Export", self.path.text(), "ONNX (*.onnx)")
        dialog.setObjectName("export.file_dialog")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("onnx")
        dialog.fileSelected.connect(self.path.setText)
        dialog.open()

    def _on_write(self) -> None:
        self._session.workspace.documents.export(
            self.path.text().strip(), with_recipe=self.with_recipe.isChecked()
        )
        self.accept()


def _why_not(path: str) -> str:
    """What is wrong with a path to write to; empty where nothing is."""
    if not Path(path).name:
        return "Name a file first"
    if Path(path).is_dir():
        return "This is a folder: name a file in it"
    return "" if Path(path).parent.is_dir() else "The folder does not exist"
