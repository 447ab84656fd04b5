"""Where the samples lie in arrays whose shapes do not say: a field that most networks leave empty."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QWidget

from quantstudio.core.data_spec import BatchAxes, axes_text, parse_batch_axes
from quantstudio.core.errors import QuantStudioError

_TITLE_PX = 96


class AxesRow(QWidget):
    """Sample axes as NAME=K, for inputs and outputs. Emits `edited`."""

    edited = Signal()

    def __init__(self, axes: BatchAxes, parent: QWidget) -> None:
        super().__init__(parent)
        self.setObjectName("data.axes_row")
        label = QLabel("Sample axes", self)
        label.setObjectName("data.axes.label")
        label.setProperty("role", "muted")
        label.setFixedWidth(_TITLE_PX)
        self.axes = QLineEdit(axes_text(axes), self)
        self.axes.setObjectName("data.axes")
        self.axes.setAccessibleName("Axes of the samples, as NAME=K")
        self.axes.setPlaceholderText("found by themselves; or NAME=K, for example state=1")
        self.axes.setToolTip(
            "Which axis of an input or output holds the samples, counted from 0, where its shape does not say"
        )
        label.setBuddy(self.axes)
        self.axes.textChanged.connect(self.edited)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(label)
        row.addWidget(self.axes, 1)

    @property
    def chosen(self) -> BatchAxes:
        """The axes as typed; none while they cannot be read."""
        return () if self.error else parse_batch_axes(self.axes.text().split())

    @property
    def error(self) -> str:
        """What is wrong with what was typed; empty if nothing is."""
        try:
            parse_batch_axes(self.axes.text().split())
        except QuantStudioError as error:
            return error.one_line
        return ""
