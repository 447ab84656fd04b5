"""What happened, line by line, for reading afterwards and for a report of a fault."""

from __future__ import annotations

import time
from collections import deque

from PySide6.QtGui import QColor, QFontDatabase, QGuiApplication, QTextCharFormat, QTextCursor
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from quantstudio.gui.session import Session
from quantstudio.gui.theme import current_theme, theme_hub
from quantstudio.gui.widgets.card import FocusEdge
from quantstudio.jobs.rows import LogLine, NoticeLevel

LINES_KEPT = 5000
_ROLES = {
    NoticeLevel.INFO: "muted",
    NoticeLevel.SUCCESS: "text",
    NoticeLevel.WARNING: "warn",
    NoticeLevel.ERROR: "bad",
}


class LogPanel(QWidget):
    """The log as text, with buttons to copy and clear it."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("log")
        self.setAccessibleName("Log")
        self._lines: deque[LogLine] = deque(maxlen=LINES_KEPT)
        self.text = QPlainTextEdit(self)
        self.text.setObjectName("log.text")
        self.text.setAccessibleName("Log lines")
        self.text.setReadOnly(True)
        FocusEdge(self.text)
        self.text.setProperty("flat", True)
        self.text.setMaximumBlockCount(LINES_KEPT)
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        font.setPixelSize(12)
        self.text.setFont(font)
        copy = QPushButton("Copy", self)
        copy.setObjectName("log.copy")
        copy.setAccessibleName("Copy the log")
        copy.clicked.connect(self.copy)
        clear = QPushButton("Clear", self)
        clear.setObjectName("log.clear")
        clear.setAccessibleName("Clear the log")
        clear.clicked.connect(self.clear)
        buttons = QVBoxLayout()
        buttons.addWidget(copy)
        buttons.addWidget(clear)
        buttons.addStretch(1)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(8, 4, 12, 8)
        layout.setSpacing(8)
        layout.addWidget(self.text, 1)
        layout.addLayout(buttons)
        session.job_signals.logged.connect(self.add)
        theme_hub().theme_changed.connect(self._rebuild)

    def add(self, line: LogLine) -> None:
        """One more line."""
        self._lines.append(line)
        self._write(line)

    def copy(self) -> None:
        """Put the whole log on the clipboard."""
        QGuiApplication.clipboard().setText(self.text.toPlainText())

    def clear(self) -> None:
        """Forget all lines."""
        self._lines.clear()
        self.text.clear()

    def _write(self, line: LogLine) -> None:
        bar = self.text.verticalScrollBar()
        follows = bar.value() >= bar.maximum() - 2
        form = QTextCharFormat()
        form.setForeground(QColor(getattr(current_theme(), _ROLES[line.severity])))
        cursor = self.text.textCursor()
        cursor.movePosition(QTextCursor.MoveOperation.End)
        if not self.text.document().isEmpty():
            cursor.insertBlock()
        stamp = time.strftime("%H:%M:%S", time.localtime(line.time))
        cursor.insertText(f"{stamp}  {line.text}", form)
        if follows:
            bar.setValue(bar.maximum())

    def _rebuild(self) -> None:
        self.text.clear()
        for line in self._lines:
            self._write(line)
