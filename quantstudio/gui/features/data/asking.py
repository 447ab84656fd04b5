"""Asking the worker while somebody types: the last question counts, and it waits for a pause."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject, QTimer, Signal

from quantstudio.core.events import ErrorInfo

PAUSE_MS = 350


class Asking(QObject):
    """The question under way and its answer.

    Signals:
        begun(): a question was sent.
        found(object): an answer, or a first one.
        failed(ErrorInfo): there is none, and why.
    """

    begun = Signal()
    found = Signal(object)
    failed = Signal(object)

    def __init__(self, drop: Callable[[str], None], parent: QObject) -> None:
        """Ask nothing yet.

        Args:
            drop: Ends the job of an answer that nobody waits for any more.
            parent: What it goes with.
        """
        super().__init__(parent)
        self._drop_job = drop
        self._question: object = None
        self._send_it: Callable[[Answer], str] | None = None
        self._answer: Answer | None = None
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

    def ask(self, question: object, send: Callable[[Answer], str] | None, *, at_once: bool = False) -> bool:
        """Ask another question, or none; the same one again is not asked twice.

        Args:
            question: What tells it from others; None for none.
            send: Sends it, with what takes the answer; returns the id of the job.
            at_once: Whether it waits for no pause.

        Returns:
            Whether it is another one.
        """
        if question == self._question:
            if at_once and self.is_waiting:
                self._send()
            return False
        self._question, self._send_it = question, send
        self._drop()
        if question is None:
            self._timer.stop()
        elif at_once:
            self._send()
        else:
            self._timer.start()
        return True

    def close(self) -> None:
        """Nobody waits for an answer any more."""
        self._timer.stop()
        self._drop()

    def _send(self) -> None:
        self._timer.stop()
        if self._question is None or self._send_it is None:
            return
        self._answer = self._waiting.answer = answer = Answer(self)
        self.begun.emit()
        answer.job = self._send_it(answer)

    def _drop(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.asker = None
            if answer.job and not answer.is_there:
                self._drop_job(answer.job)


class Answer:
    """Hands an answer on, while somebody waits for it.

    Attributes:
        asker: Who waits; None when nobody does any more.
        job: The job that works it out.
        is_there: Whether nothing more comes.
    """

    def __init__(self, asker: Asking) -> None:
        self.asker: Asking | None = asker
        self.job = ""
        self.is_there = False

    def on_found(self, found: object, *, is_final: bool = True) -> None:
        """An answer, the last or one before it."""
        self.is_there = self.is_there or is_final
        if self.asker is not None:
            self.asker.found.emit(found)

    def on_failed(self, error: ErrorInfo) -> None:
        """There is none."""
        self.is_there = True
        if self.asker is not None:
            self.asker.failed.emit(error)


class _Waiting:
    """Knows the answer that is waited for when the asker is gone without a word."""

    def __init__(self) -> None:
        self.answer: Answer | None = None

    def end(self) -> None:
        """Let the answer come to nobody."""
        if self.answer is not None:
            self.answer.asker = None
