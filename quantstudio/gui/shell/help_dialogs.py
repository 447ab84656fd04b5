"""What the program is, what its keys are, and what to do when it failed."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from PySide6.QtCore import Qt, qVersion
from PySide6.QtGui import QFontDatabase, QGuiApplication
from PySide6.QtWidgets import (
    QDialogButtonBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPlainTextEdit,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from quantstudio.core.version import VERSION
from quantstudio.gui.shell.actions import Actions
from quantstudio.gui.theme import icon_pixmap
from quantstudio.gui.widgets.dialog import Dialog


class ShortcutsDialog(Dialog):
    """Every command that has a key."""

    def __init__(
        self, actions: Actions, widget_keys: Sequence[tuple[str, str, str]], parent: QWidget
    ) -> None:
        """`widget_keys` are those of single widgets: group, what they do, keys."""
        super().__init__("shortcuts", "Keyboard shortcuts", "Keys can be changed in Settings.", parent)
        rows = [
            (described.group, described.plain_text, keys)
            for name, described in actions.described.items()
            if (keys := actions.keys_text(name))
        ]
        rows += widget_keys
        self.table = QTableWidget(len(rows), 3, self)
        self.table.setTabKeyNavigation(False)
        self.table.setObjectName("shortcuts.table")
        self.table.setAccessibleName("Commands and their keys")
        self.table.setHorizontalHeaderLabels(["Menu", "Command", "Key"])
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(28)
        self.table.setShowGrid(False)
        self.table.setAlternatingRowColors(True)
        self.table.setSelectionMode(QTableWidget.SelectionMode.NoSelection)
        header = self.table.horizontalHeader()
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        for row, texts in enumerate(rows):
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setFlags(Qt.ItemFlag.ItemIsEnabled)
                self.table.setItem(row, column, item)
        self.body.addWidget(self.table, 1)
        self.add_button("close", "Close", QDialogButtonBox.ButtonRole.RejectRole, is_default=True)
        self.resize(520, 600)


class AboutDialog(Dialog):
    """Name, version, and the versions a fault report needs."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__("about", "QuantStudio", "", parent)
        row = QHBoxLayout()
        row.setSpacing(16)
        mark = QLabel(self)
        mark.setObjectName("about.icon")
        mark.setPixmap(icon_pixmap("app", "accent", 56, self.devicePixelRatioF()))
        row.addWidget(mark, 0, Qt.AlignmentFlag.AlignTop)
        column = QVBoxLayout()
        said = QLabel("Make neural networks smaller and faster, and see what it costs.", self)
        said.setObjectName("about.what")
        said.setWordWrap(True)
        column.addWidget(said)
        self.versions = QLabel(version_text(), self)
        self.versions.setObjectName("about.versions")
        self.versions.setProperty("role", "muted")
        self.versions.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        column.addWidget(self.versions)
        column.addStretch(1)
        row.addLayout(column, 1)
        self.body.addLayout(row)
        copy = self.add_button("copy", "Copy versions", QDialogButtonBox.ButtonRole.ActionRole)
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(version_text()))
        self.add_button("close", "Close", QDialogButtonBox.ButtonRole.RejectRole, is_default=True)
        self.setMinimumWidth(420)


class FaultDialog(Dialog):
    """Something failed inside the window: what, where the report lies, a button that copies it."""

    def __init__(self, summary: str, details: str, parent: QWidget) -> None:
        super().__init__(
            "fault",
            "Something failed",
            "Your work is safe: every change was on disk before this. You can go on; if the window "
            "behaves oddly, start it again. Nothing is sent anywhere.",
            parent,
        )
        self._details = details
        said = QLabel(summary, self)
        said.setObjectName("fault.summary")
        said.setProperty("role", "error")
        said.setWordWrap(True)
        said.setTextFormat(Qt.TextFormat.PlainText)
        self.body.addWidget(said)
        text = QPlainTextEdit(details, self)
        text.setObjectName("fault.details")
        text.setAccessibleName("Details of the fault")
        text.setReadOnly(True)
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        font.setPixelSize(11)
        text.setFont(font)
        self.body.addWidget(text, 1)
        copy = self.add_button("copy", "Copy details", QDialogButtonBox.ButtonRole.ActionRole)
        copy.clicked.connect(self._on_copy)
        self.add_button("close", "Continue", QDialogButtonBox.ButtonRole.RejectRole, is_default=True)
        self.resize(640, 420)

    def _on_copy(self) -> None:
        QGuiApplication.clipboard().setText(self._details)


def version_text() -> str:
    """Versions of what is running."""
    lines = (
        f"QuantStudio {VERSION}",
        f"Python {platform.python_version()}",
        f"Qt {qVersion()}",
        platform.platform(),
    )
    return "\n".join(lines)
