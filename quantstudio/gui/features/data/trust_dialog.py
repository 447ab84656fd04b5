"""The question before a file that is a program is opened: it names the file and says what may happen."""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QCheckBox, QDialogButtonBox, QHBoxLayout, QLabel, QLineEdit, QWidget

from quantstudio.gui.theme import icon_pixmap
from quantstudio.gui.widgets.dialog import Dialog, caption
from quantstudio.project.references import is_callable_name
from quantstudio.workspace.file_kinds import STATE_SUFFIXES
from quantstudio.workspace.values import TrustRequest


class TrustDialog(Dialog):
    """Asks whether to run a file.

    Emits `trusted(request, factory)` when the user agreed; `factory` is module:callable or empty.
    """

    trusted = Signal(object, str)

    def __init__(self, request: TrustRequest, parent: QWidget) -> None:
        super().__init__("trust", "Opening this runs code", "", parent)
        self._request = request
        self.body.addLayout(self._warning())
        self.file = QLineEdit(request.path, self)
        self.file.setObjectName("trust.file")
        self.file.setAccessibleName("File that would run")
        self.file.setReadOnly(bool(request.path))
        self.file.setPlaceholderText("package.module:make_network")
        self.file.setCursorPosition(0)
        self.body.addWidget(self.file)
        self.factory = QLineEdit(request.factory, self)
        self.factory.setObjectName("trust.factory")
        self.factory.setAccessibleName("Python function that makes the network")
        self.factory.setPlaceholderText("package.module:make_network")
        self._needs_factory = request.path.lower().endswith(".safetensors")
        takes_factory = request.path.lower().endswith(STATE_SUFFIXES)
        hint = "Function that makes the network" + (
            "" if self._needs_factory else " (only for weights alone)"
        )
        label = caption(hint, self, "trust.factory.label", self.factory)
        label.setVisible(takes_factory)
        self.factory.setVisible(takes_factory)
        self.body.addWidget(label)
        self.body.addWidget(self.factory)
        self.agree = QCheckBox("I know where this comes from and want to run it", self)
        self.agree.setObjectName("trust.agree")
        self.agree.setAccessibleName("I know where this comes from and want to run it")
        self.body.addWidget(self.agree)
        self.add_cancel("Do not open")
        self.run_button = self.add_button("run", "Run and open", QDialogButtonBox.ButtonRole.AcceptRole)
        self.run_button.clicked.connect(self._on_run)
        self.agree.toggled.connect(self._refresh)
        self.factory.textChanged.connect(self._refresh)
        self.file.textChanged.connect(self._refresh)
        self.setMinimumWidth(480)
        self._refresh()

    def _warning(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(12)
        shield = QLabel(self)
        shield.setObjectName("trust.icon")
        shield.setPixmap(icon_pixmap("shield", "warn", 28, self.devicePixelRatioF()))
        row.addWidget(shield, 0, Qt.AlignmentFlag.AlignTop)
        text = QLabel(
            f"{self._request.reason} It will run with your permissions, in QuantStudio's worker process. "
            "Open it only if you trust whoever made it. ONNX files never run code.",
            self,
        )
        text.setObjectName("trust.reason")
        text.setWordWrap(True)
        row.addWidget(text, 1)
        return row

    def _refresh(self) -> None:
        factory = self.factory.text().strip()
        is_valid = is_callable_name(factory) if factory else not self._needs_factory
        if not self._request.path:
            is_valid = is_callable_name(self.file.text().strip())
        self.factory.setProperty("invalid", bool(factory) and not is_valid)
        self.factory.style().polish(self.factory)
        self.run_button.setEnabled(self.agree.isChecked() and is_valid)

    def _on_run(self) -> None:
        request = replace(self._request, path=self.file.text().strip())
        self.trusted.emit(request, self.factory.text().strip())
        self.accept()
