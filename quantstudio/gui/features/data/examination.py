"""What the data doctor is asked while somebody chooses data."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QObject

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.diagnosis import Diagnosis
from quantstudio.gui.features.data.asking import Answer, Asking
from quantstudio.gui.session import Session


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


class Examination(Asking):
    """The question under way and its answer, a `Diagnosis` or a first one."""

    def __init__(self, session: Session, parent: QObject) -> None:
        self._doctor = session.workspace.doctor
        super().__init__(self._doctor.drop, parent)

    def examine(self, question: Question | None, *, at_once: bool = False) -> None:
        """Ask another question, or none; the same one again is not asked twice."""

        def send(answer: Answer) -> str:
            assert question is not None

            def found(diagnosis: Diagnosis) -> None:
                answer.on_found(diagnosis, is_final=diagnosis.is_final)

            return self._doctor.ask(
                question.data,
                question.test,
                is_asked=question.is_asked,
                on_found=found,
                on_failed=answer.on_failed,
            )

        self.ask(question, send, at_once=at_once)
