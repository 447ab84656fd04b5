"""The settings of one step, with what the step does and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialogButtonBox, QFrame, QLabel, QScrollArea, QWidget

from quantstudio.core.steps import SettingValue, Step, StepInfo
from quantstudio.gui.features.improve.settings_form import SettingsForm
from quantstudio.gui.widgets.dialog import Dialog

_WIDTH, _HEIGHT = 520, 560


class StepDialog(Dialog):
    """Opens with `open`; OK hands the settings on, Cancel changes nothing."""

    def __init__(
        self, info: StepInfo, step: Step, then: Callable[[Mapping[str, SettingValue]], None], parent: QWidget
    ) -> None:
        super().__init__("step", info.label, info.explanation, parent)
        self._then = then
        self.form = SettingsForm(info, step.settings, self)
        self.form.changed.connect(self._refresh)
        area = QScrollArea(self)
        area.setObjectName("step.settings")
        area.setAccessibleName(f"Settings of {info.label}")
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidgetResizable(True)
        area.setWidget(self.form)
        self.body.addWidget(area, 1)
        if not info.settings:
            self.body.addWidget(QLabel("This step has no settings.", self))
        self.fault = QLabel("", self)
        self.fault.setObjectName("step.fault")
        self.fault.setProperty("role", "error")
        self.fault.setWordWrap(True)
        self.body.addWidget(self.fault)
        if info.source:
            source = QLabel(f"Source: {info.source}", self)
            source.setObjectName("step.source")
            source.setProperty("role", "caption")
            source.setWordWrap(True)
            source.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            self.body.addWidget(source)
        if info.settings:
            self.add_button("defaults", "Defaults", QDialogButtonBox.ButtonRole.ResetRole).clicked.connect(
                self.form.defaults
            )
        self.add_cancel()
        self.ok = self.add_button("ok", "OK", QDialogButtonBox.ButtonRole.AcceptRole, is_default=True)
        self.ok.setProperty("primary", True)
        self.buttons.accepted.connect(self._on_accepted)
        self.resize(_WIDTH, _HEIGHT if info.settings else self.sizeHint().height())
        self._refresh()

    def _refresh(self) -> None:
        fault = self.form.mark_fault()
        self.fault.setText(fault)
        self.fault.setVisible(bool(fault))
        self.ok.setEnabled(not fault)

    def _on_accepted(self) -> None:
        self._then(self.form.values())
        self.accept()
