"""What the data doctor says: the proposal, the accuracy it gives, some samples, and what is wrong."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from quantstudio.core.data_spec import Transform
from quantstudio.core.diagnosis import Caution, DataFigure, Diagnosis, Trouble
from quantstudio.core.figures import count, counted, number, percent
from quantstudio.gui.features.data.sample_strip import SampleStrip
from quantstudio.gui.theme import icon_pixmap, theme_hub
from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.gui.widgets.remedy import REMEDY_LOOK
from quantstudio.gui.widgets.small_button import SmallButton
from quantstudio.gui.widgets.tag import MEASURED, Tag

CAUTIONS_SHOWN = 3
_ICON_PX = 15
_FIGURE_PX = 270

# What the button beside a caution does in the dialog.
USE_TRANSFORM, CHOOSE_TEST, CHOOSE_CALIBRATION, EDIT_TEST = "transform", "test", "calibration", "edit test"
_REMEDIES = {
    Trouble.WRONG_TRANSFORM: (USE_TRANSFORM, "Use the proposed"),
    Trouble.OVERLAP: (CHOOSE_TEST, "Choose test data…"),
    Trouble.NO_LABELS: (CHOOSE_TEST, "Choose test data…"),
    Trouble.MISSING_CLASSES: (CHOOSE_CALIBRATION, "Choose other data…"),
    Trouble.LABELS_OUT_OF_RANGE: (CHOOSE_CALIBRATION, "Choose other data…"),
    Trouble.UNLIKE_RANGE: (EDIT_TEST, "Edit its transform"),
}


class MendButton(SmallButton):
    """Looks as the button of every remedy does."""

    look = REMEDY_LOOK


class CautionLine(QWidget):
    """One caution with the button that mends it.

    Signals:
        asked(str): the button was pressed; what it stands for.
    """

    asked = Signal(str)

    def __init__(self, caution: Caution, parent: QWidget) -> None:
        super().__init__(parent)
        name = f"data.caution.{caution.trouble.value.replace(' ', '_')}"
        self.setObjectName(name)
        self._is_certain = caution.is_certain
        self._icon = QLabel(self)
        self._icon.setFixedWidth(_ICON_PX)
        self.label = QLabel(caution.text, self)
        self.label.setObjectName(f"{name}.text")
        self.label.setWordWrap(True)
        self.label.setTextFormat(Qt.TextFormat.PlainText)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(self.label, 1)
        self._remedy, words = _REMEDIES.get(caution.trouble, ("", ""))
        if self._remedy:
            self.button = MendButton(f"{name}.remedy", words, caution.hint.text or words, self)
            self.button.clicked.connect(self._on_clicked)
            row.addWidget(self.button, 0, Qt.AlignmentFlag.AlignTop)
        theme_hub().theme_changed.connect(self._on_theme_changed)
        self._on_theme_changed(None)

    @property
    def offers_transform(self) -> bool:
        """Whether its button puts the proposed transform in place."""
        return self._remedy == USE_TRANSFORM

    def _on_clicked(self) -> None:
        self.asked.emit(self._remedy)

    def _on_theme_changed(self, _theme: object) -> None:
        name, role = ("warning", "warn") if self._is_certain else ("info", "muted")
        self._icon.setPixmap(icon_pixmap(name, role, _ICON_PX, self.devicePixelRatioF()))


class DoctorCard(QFrame):
    """The diagnosis of the data in the dialog.

    Signals:
        wanted(Transform): use this transform.
        asked(str): do something else about a caution.
        resized(): it holds more or less than before.
    """

    wanted = Signal(object)
    asked = Signal(str)
    resized = Signal()

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setObjectName("data.doctor")
        self.setProperty("card", True)
        self._proposed: Transform | None = None
        self._lines: list[CautionLine] = []
        self.status = QLabel(self)
        self.status.setObjectName("data.status")
        self.status.setProperty("role", "muted")
        self.status.setWordWrap(True)
        self._build_figure()
        self._build_proposal()
        self.strip = SampleStrip(self)
        self.facts = ElidedLabel(parent=self)
        self.facts.setObjectName("data.facts")
        self.facts.setProperty("role", "caption")
        self.classes = ElidedLabel(parent=self)
        self.classes.setObjectName("data.classes")
        self.classes.setProperty("role", "caption")
        self._cautions = QVBoxLayout()
        self._cautions.setSpacing(6)
        self._lay_out()
        self.show_nothing("Choose data, and its transform is proposed here.")

    def _build_figure(self) -> None:
        self.figure_caption = ElidedLabel(parent=self)
        self.figure_caption.setObjectName("data.figure.caption")
        self.figure_caption.setProperty("role", "caption")
        self.tag = Tag(parent=self)
        self.tag.setObjectName("data.figure.tag")
        self.figure = QLabel(self)
        self.figure.setObjectName("data.figure")
        self.figure.setProperty("role", "kpi")
        self.interval = ElidedLabel(parent=self)
        self.interval.setObjectName("data.figure.interval")
        self.figure_note = ElidedLabel(parent=self)
        self.figure_note.setObjectName("data.figure.note")
        for label in (self.interval, self.figure_note):
            label.setProperty("role", "caption")

    def _build_proposal(self) -> None:
        self.proposal_caption = ElidedLabel("Proposed transform", self)
        self.proposal_caption.setProperty("role", "caption")
        self.proposal_caption.setObjectName("data.proposal.caption")
        self.proposal = QLabel(self)
        self.proposal.setObjectName("data.proposal")
        self.proposal.setProperty("role", "title")
        self.proposal.setWordWrap(True)
        self.proposal.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.reason = QLabel(self)
        self.reason.setObjectName("data.reason")
        self.reason.setProperty("role", "caption")
        self.reason.setWordWrap(True)
        self.apply = QPushButton("Apply", self)
        self.apply.setObjectName("data.apply")
        self.apply.setAccessibleName("Use the proposed transform")
        self.apply.setToolTip("Use the proposed transform")
        self.apply.setAutoDefault(False)
        self.apply.clicked.connect(self._on_apply)

    def _lay_out(self) -> None:
        figure, proposal = QVBoxLayout(), QVBoxLayout()
        for column in (figure, proposal):
            column.setSpacing(2)
        head = QHBoxLayout()
        head.setSpacing(6)
        head.addWidget(self.figure_caption, 1)
        head.addWidget(self.tag)
        figure.addLayout(head)
        figure.addWidget(self.figure)
        figure.addWidget(self.interval)
        figure.addWidget(self.figure_note)
        figure.addStretch(1)
        proposal.addWidget(self.proposal_caption)
        proposal.addWidget(self.proposal)
        proposal.addWidget(self.reason)
        proposal.addStretch(1)
        self._top = QWidget(self)
        row = QHBoxLayout(self._top)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(16)
        self._figure_box = QWidget(self._top)
        self._figure_box.setLayout(figure)
        self._figure_box.setFixedWidth(_FIGURE_PX)
        figure.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._figure_box)
        row.addLayout(proposal, 1)
        row.addWidget(self.apply, 0, Qt.AlignmentFlag.AlignVCenter)
        body = QVBoxLayout(self)
        body.setContentsMargins(14, 10, 14, 10)
        body.setSpacing(8)
        body.addWidget(self._top)
        body.addWidget(self.strip)
        captions = QVBoxLayout()
        captions.setSpacing(2)
        captions.addWidget(self.facts)
        captions.addWidget(self.classes)
        body.addLayout(captions)
        body.addLayout(self._cautions)
        body.addWidget(self.status)

    # What it shows.

    def show_nothing(self, text: str, *, is_error: bool = False) -> None:
        """Say why there is no diagnosis."""
        self._proposed = None
        self._top.hide()
        self.strip.show_samples(())
        self._caption(self.facts, "")
        self._caption(self.classes, "")
        self._show_cautions(())
        self.say(text, is_error=is_error)

    def say(self, text: str, *, is_error: bool = False) -> None:
        """Tell what is going on, below what is known; nothing hides the line."""
        self.status.setText(text)
        self.status.setVisible(bool(text))
        self.resized.emit()
        self.status.setProperty("role", "error" if is_error else "muted")
        self.status.style().polish(self.status)

    def show_diagnosis(self, found: Diagnosis, used: str) -> None:
        """Show what was found.

        Args:
            found: It.
            used: The transform in the field, as text.
        """
        self._proposed = found.proposed.transform
        self._top.show()
        text = found.proposed.transform.text
        self.proposal.setText(text or "none: as stored")
        self.reason.setText(found.reason)
        self._show_figure(found)
        self.strip.show_samples(found.shown)
        self._caption(self.facts, _facts(found))
        self._caption(self.classes, _classes(found))
        self.classes.set_detail("\n".join(f"{one.name}: {count(one.count)}" for one in found.classes))
        self._show_cautions(found.cautions)
        self.show_used(used)
        self.say("" if found.is_final else "A first look; more samples are being tried…")

    def show_used(self, used: str) -> None:
        """Offer the proposal unless it is the transform in the field."""
        is_used = self._proposed is not None and self._proposed.text == used
        # The caution about the transform in the field has a button of its own.
        is_offered = any(line.offers_transform for line in self._lines)
        self.apply.setVisible(self._proposed is not None and not is_used and not is_offered)
        self.proposal_caption.setText("Proposed transform, in use" if is_used else "Proposed transform")

    def _show_figure(self, found: Diagnosis) -> None:
        # Where the transform in the field does not even fit, the proposed one's is all there is.
        figure = found.figure or found.proposed_figure
        first = found.used
        is_first = figure is None and not found.is_final and first.samples > 0 and found.labelled
        self._figure_box.setVisible(figure is not None or is_first)
        if figure is not None:
            write = percent if figure.is_share else _three
            is_used = found.figure is not None
            self.figure_caption.setText(f"{figure.label}, FP32" + ("" if is_used else ", as proposed"))
            self.figure.setText(write(figure.value))
            self.interval.setText(f"95 % interval {write(figure.low)} to {write(figure.high)}")
            where = f"{_samples(figure)} of {Path(figure.source).name}"
            self.figure_note.set_wordings(where, _samples(figure))
            self.figure_note.set_detail(
                f"Measured on {where}"
                + (", which also calibrate: test data would tell more" if figure.is_calibration else "")
            )
            self.tag.set_text(MEASURED, detail="FP32, by ONNX Runtime")
        elif is_first:
            self.figure_caption.setText("FP32, at first sight")
            self.figure.setText(percent(first.score) if 0 <= first.score <= 1 else _three(first.score))
            self.interval.setText("More samples are being tried")
            self.figure_note.setText(f"{count(first.samples)} samples of {Path(found.path).name}")
            self.tag.set_text(MEASURED)
        self._figure_box.setAccessibleName(
            ", ".join(w.text() for w in (self.figure_caption, self.figure, self.interval, self.figure_note))
        )

    def _show_cautions(self, cautions: tuple[Caution, ...]) -> None:
        for line in self._lines:
            self._cautions.removeWidget(line)
            line.hide()
            line.deleteLater()
        self._lines = [CautionLine(one, self) for one in cautions[:CAUTIONS_SHOWN]]
        for line in self._lines:
            line.asked.connect(self._on_asked)
            self._cautions.addWidget(line)

    @property
    def caution_lines(self) -> tuple[CautionLine, ...]:
        """The cautions shown, the worst first."""
        return tuple(self._lines)

    def _caption(self, label: ElidedLabel, text: str) -> None:
        label.setText(text)
        label.setVisible(bool(text))

    def _on_apply(self) -> None:
        if self._proposed is not None:
            self.wanted.emit(self._proposed)

    def _on_asked(self, remedy: str) -> None:
        if remedy == USE_TRANSFORM:
            self._on_apply()
        else:
            self.asked.emit(remedy)


def _three(value: float) -> str:
    return number(value, 3)


def _samples(figure: DataFigure) -> str:
    if figure.samples == figure.total:
        return f"all {counted(figure.total, 'sample')}"
    return f"{count(figure.samples)} of {count(figure.total)} samples"


def _facts(found: Diagnosis) -> str:
    parts = [
        f"{one.name}: {one.stored}, {_short(one.stored_low)} to {_short(one.stored_high)}  →  {one.given}, "
        f"{_short(one.low)} to {_short(one.high)}"
        for one in found.inputs
    ]
    return "   ·   ".join(parts)


def _short(value: float) -> str:
    return number(value, 0 if value == round(value) else 2)


def _classes(found: Diagnosis) -> str:
    parts = [counted(found.samples, "sample")]
    if found.classes:
        counts = [one.count for one in found.classes]
        spread = count(min(counts)) + ("" if min(counts) == max(counts) else f" to {count(max(counts))}")
        names = ", ".join(one.name for one in found.classes)
        parts.append(f"{len(counts)} classes, {spread} samples each")
        if any(one.name != str(one.index) for one in found.classes):
            parts.append(names)
    elif found.labelled:
        parts.append("labels are numbers to come close to" if found.figure is not None else "labels")
    else:
        parts.append("no labels")
    if found.segments:
        parts.append(f"also {', '.join(found.segments)}")
    return "   ·   ".join(parts)
