"""A form made from what is known of the settings of a step; nothing in it is written for one step."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from quantstudio.core.steps import SettingInfo, SettingType, SettingValue, StepInfo
from quantstudio.gui.widgets.dialog import caption

_INT_BOUND = 2**31 - 1

Field = QCheckBox | QComboBox | QLineEdit | QSpinBox


class SettingsForm(QWidget):
    """One field per setting, with its unit and what it does below.

    Signals:
        changed(): a field holds something else.
    """

    changed = Signal()

    def __init__(
        self, info: StepInfo, settings: Mapping[str, SettingValue], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setObjectName("step.form")
        self._info = info
        self.fields: dict[str, Field] = {}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(12)
        for setting in info.settings:
            column.addLayout(self._row(setting))
        column.addStretch(1)
        self.fill(settings)

    def fill(self, settings: Mapping[str, SettingValue]) -> None:
        """Show settings; those left out show their default."""
        for setting in self._info.settings:
            _show(self.fields[setting.name], settings.get(setting.name, setting.default))

    def defaults(self) -> None:
        """Show the defaults."""
        self.fill({})

    def values(self) -> dict[str, SettingValue]:
        """What the fields hold, each in its own type.

        Raises:
            ValueError: a field holds what does not fit; the message names it.
        """
        found: dict[str, SettingValue] = {}
        for setting in self._info.settings:
            try:
                found[setting.name] = _value(setting, self.fields[setting.name])
            except ValueError as error:
                raise ValueError(f"{setting.label}: {error}") from error
        return found

    def mark_fault(self) -> str:
        """Colour the fields that hold what does not fit; says what is wrong with the first."""
        faults = []
        for setting in self._info.settings:
            fault, field = "", self.fields[setting.name]
            try:
                _value(setting, field)
            except ValueError as error:
                fault = f"{setting.label}: {error}"
                faults.append(fault)
            if isinstance(field, QLineEdit) and bool(field.property("invalid")) != bool(fault):
                field.setProperty("invalid", bool(fault))
                field.style().unpolish(field)
                field.style().polish(field)
        return faults[0] if faults else ""

    def _row(self, setting: SettingInfo) -> QVBoxLayout:
        field = self._field(setting)
        field.setObjectName(f"step.setting.{setting.name}")
        field.setAccessibleName(setting.label)
        field.setToolTip(setting.legal.capitalize())
        self.fields[setting.name] = field
        column = QVBoxLayout()
        column.setSpacing(4)
        if not isinstance(field, QCheckBox):
            column.addWidget(caption(setting.label, self, f"step.setting.{setting.name}.label", field))
        line = QHBoxLayout()
        line.setSpacing(8)
        is_text = setting.type is SettingType.TEXT
        line.addWidget(field, 1 if is_text else 0)
        if setting.unit and isinstance(field, QLineEdit):
            line.addWidget(QLabel(setting.unit, self))
        if not is_text:
            line.addStretch(1)
        column.addLayout(line)
        if setting.explanation:
            text = QLabel(setting.explanation, self)
            text.setProperty("role", "muted")
            text.setWordWrap(True)
            column.addWidget(text)
        return column

    def _field(self, setting: SettingInfo) -> Field:
        if setting.type is SettingType.BOOL:
            switch = QCheckBox(setting.label, self)
            switch.toggled.connect(self.changed)
            return switch
        if setting.type is SettingType.CHOICE:
            choice = QComboBox(self)
            for name in setting.choices:
                choice.addItem(name, name)
            choice.currentIndexChanged.connect(self.changed)
            return choice
        if setting.type is SettingType.INT:
            number = QSpinBox(self)
            low, high = (bound if bound is not None else _INT_BOUND for bound in (setting.low, setting.high))
            number.setRange(int(low) if setting.low is not None else -_INT_BOUND, int(min(high, _INT_BOUND)))
            number.setSuffix(f" {setting.unit}" if setting.unit else "")
            number.valueChanged.connect(self.changed)
            return number
        line = QLineEdit(self)
        line.textChanged.connect(self.changed)
        return line


def _show(field: Field, value: SettingValue) -> None:
    if isinstance(field, QCheckBox):
        field.setChecked(bool(value))
    elif isinstance(field, QComboBox):
        field.setCurrentIndex(field.findData(value))
    elif isinstance(field, QSpinBox):
        field.setValue(int(value))
    else:
        # Every digit: a form that is opened and closed must not change what is set.
        field.setText(repr(value).removesuffix(".0") if isinstance(value, float) else str(value))
        field.setCursorPosition(0)


def _value(setting: SettingInfo, field: Field) -> SettingValue:
    if isinstance(field, QCheckBox):
        return field.isChecked()
    if isinstance(field, QComboBox):
        return setting.checked(field.currentData())
    if isinstance(field, QSpinBox):
        return setting.checked(field.value())
    return setting.parsed(field.text().strip())
