"""What the outputs are judged as, with the reason; another task can be chosen."""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QGridLayout, QLabel, QSizePolicy, QWidget

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.events import ErrorInfo
from quantstudio.core.judgement import INFERRED, Judgement, Judging, Task
from quantstudio.gui.features.data.asking import Answer, Asking
from quantstudio.gui.session import Session

_INFERRED = "As inferred"
_TITLE_PX = 96


class JudgedRow(QWidget):
    """The task, chosen or inferred, and why. Emits `edited` when another is chosen."""

    edited = Signal()

    def __init__(self, session: Session, judging: Judging, parent: QWidget) -> None:
        super().__init__(parent)
        self.setObjectName("data.judged")
        self._judge = session.workspace.output_judge
        self._given = judging
        self._data: DataSpec | None = None
        self._asking = Asking(self._judge.drop, self)
        self._asking.found.connect(self.show_judgement)
        self._asking.failed.connect(self.show_problem)
        label = QLabel("Judged as", self)
        label.setObjectName("data.judged.label")
        label.setProperty("role", "muted")
        label.setFixedWidth(_TITLE_PX)
        self.task = QComboBox(self)
        self.task.setObjectName("data.judged.task")
        self.task.setAccessibleName("What the outputs are judged as")
        self.task.setToolTip("What is compared between FP32 and a variant, and what a search may lose")
        self.task.addItem(_INFERRED, None)
        for task in Task:
            self.task.addItem(task.label, task.value)
        if judging.task is not None:
            self.task.setCurrentIndex(self.task.findData(judging.task.value))
        self.task.activated.connect(self._on_chosen)
        label.setBuddy(self.task)
        self.reason = QLabel("", self)
        self.reason.setObjectName("data.judged.reason")
        self.reason.setProperty("role", "caption")
        self.reason.setWordWrap(True)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(5)
        grid.addWidget(label, 0, 0)
        grid.addWidget(self.task, 0, 1)
        grid.addWidget(self.reason, 1, 1, 1, 2)
        grid.setColumnStretch(2, 1)
        self.task.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)

    @property
    def judging(self) -> Judging:
        """What is said of the outputs."""
        text = self.task.currentData()  # Qt makes plain text of it
        chosen = Task(text) if text else None
        if chosen == self._given.task:
            return self._given
        # Another task may read another output.
        return replace(INFERRED, task=chosen, metric=self._given.metric)

    def ask(self, data: DataSpec | None) -> None:
        """Judge the outputs on other data, after a pause; the same again is not asked twice."""
        self._data = asked = replace(data, judging=self.judging) if data is not None else None

        def send(answer: Answer) -> str:
            assert asked is not None
            return self._judge.ask(asked, answer.on_found, answer.on_failed)

        if self._asking.ask(asked, send) and asked is None:
            self._say("")

    def close_questions(self) -> None:
        """Nobody waits for an answer any more."""
        self._asking.close()

    def show_judgement(self, judgement: Judgement) -> None:
        """The answer."""
        name = judgement.task.label.partition(":")[0]
        reason = judgement.reason[:1].upper() + judgement.reason[1:]
        self.task.setItemText(0, f"{_INFERRED}: {name}" if not judgement.is_chosen else _INFERRED)
        self._say(f"{reason}.")

    def show_problem(self, error: ErrorInfo) -> None:
        """Why there is no answer."""
        self.task.setItemText(0, _INFERRED)
        self._say(" ".join(f"{part.rstrip('.')}." for part in (error.what, error.hint.text) if part), "error")

    def _say(self, text: str, role: str = "caption") -> None:
        self.reason.setText(text)
        self.reason.setVisible(bool(text))
        self.reason.setProperty("role", role)
        self.reason.style().polish(self.reason)

    def _on_chosen(self) -> None:
        data = self._data
        self.edited.emit()
        if data is not None:
            self.ask(data)
