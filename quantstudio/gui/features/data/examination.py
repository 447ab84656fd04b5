"""Asking the data doctor while somebody types: the last question counts, and it waits for a pause."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QObject, QTimer, Signal

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.diagnosis import Diagnosis
from quantstudio.core.events import ErrorInfo
from quantstudio.gui.session import Session

PAUSE_MS = 350


@dataclass(frozen=True, slots=True)
class Question:
    """What the doctor is asked.

    Attributes:
        data: Calibration data.
        test: Test data; None without.
        is_asked: Whether their transforms are asked about; else one is wanted.
    """

    data: DataSpec
    test: DataSpec | None
    is_asked: bool


class Examination(QObject):
    """The question under way and its answer.

    Signals:
        begun(): a question was sent.
        found(Diagnosis): an answer, or a first one.
        failed(ErrorInfo): there is none, and why.
    """

    begun = Signal()
    found = Signal(object)
    failed = Signal(object)

    def __init__(self, session: Session, parent: QObject) -> None:
        super().__init__(parent)
        self._doctor = session.workspace.doctor
        self._question: Question | None = None
        self._answer: _Answer | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE_MS)
        self._timer.timeout.connect(self._send)
        self._waiting = _Waiting()
        self.destroyed.connect(self._waiting.end)

    @property
    def is_waiting(self) -> bool:
        """Whether a question waits for a pause."""
        return self._timer.isActive()

    def ask(self, question: Question | None, *, at_once: bool = False) -> None:
        """Ask another question, or none; the same one again is not asked twice."""
        if question == self._question:
            if at_once and self.is_waiting:
                self._send()
            return
        self._question = question
        self._drop()
        if question is None:
            self._timer.stop()
        elif at_once:
            self._send()
        else:
            self._timer.start()

    def close(self) -> None:
        """Nobody waits for an answer any more."""
        self._timer.stop()
        self._drop()

    def _send(self) -> None:
        self._timer.stop()
        question = self._question
        if question is None:
            return
        self._answer = self._waiting.answer = answer = _Answer(self)
        self.begun.emit()
        answer.job = self._doctor.ask(
            question.data,
            question.test,
            is_asked=question.is_asked,
            on_found=answer.on_found,
            on_failed=answer.on_failed,
        )

    def _drop(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.asker = None
            if answer.job and not answer.is_there:
                self._doctor.drop(answer.job)


class _Waiting:
    """Knows the answer that is waited for when the asker is gone without a word."""

    def __init__(self) -> None:
        self.answer: _Answer | None = None

    def end(self) -> None:
        """Let the answer come to nobody."""
        if self.answer is not None:
            self.answer.asker = None


class _Answer:
    """Hands an answer on, while somebody waits for it."""

    def __init__(self, asker: Examination) -> None:
        self.asker: Examination | None = asker
        self.job = ""
        self.is_there = False

    def on_found(self, found: Diagnosis) -> None:
        self.is_there = self.is_there or found.is_final
        if self.asker is not None:
            self.asker.found.emit(found)

    def on_failed(self, error: ErrorInfo) -> None:
        self.is_there = True
        if self.asker is not None:
            self.asker.failed.emit(error)
