"""Theme, where the engine computes, and keys; every choice takes effect at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import (
    QComboBox,
    QDialogButtonBox,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QKeySequenceEdit,
    QLabel,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)
from shiboken6 import isValid

from quantstudio.gui.shell.actions import Actions
from quantstudio.gui.shell.settings import Settings
from quantstudio.gui.theme import ThemeChoice
from quantstudio.gui.widgets.dialog import Dialog
from quantstudio.workspace.values import EngineOptions

MAX_THREADS = 256
MAX_BATCH = 1024
_PROVIDER = "ExecutionProvider"
_THEMES = {
    ThemeChoice.SYSTEM: "Follow the system",
    ThemeChoice.LIGHT: "Light",
    ThemeChoice.DARK: "Dark",
}


class SettingsDialog(Dialog):
    """Settings of the window."""

    def __init__(self, settings: Settings, actions: Actions, parent: QWidget) -> None:
        super().__init__("settings", "Settings", "", parent)
        self._settings = settings
        self._actions = actions
        self.theme = QComboBox(self)
        self.theme.setObjectName("settings.theme")
        self.theme.setAccessibleName("Theme")
        for choice, text in _THEMES.items():
            self.theme.addItem(text, choice)
        self.theme.setCurrentIndex(self.theme.findData(settings.theme))
        self.theme.currentIndexChanged.connect(self._on_theme)
        self._make_engine(settings.engine)
        form = QFormLayout()
        form.setHorizontalSpacing(16)
        form.setVerticalSpacing(8)
        form.addRow(self._label("Theme", self.theme), self.theme)
        form.addRow(self._label("Measure on", self.provider), self.provider)
        form.addRow(self._label("Estimate sensitivity on", self.device), self.device)
        form.addRow(self._label("Threads when measuring", self.threads), self.threads)
        form.addRow(self._label("Batch when timing", self.batch), self.batch)
        self.body.addLayout(form)
        self.body.addLayout(self._key_header())
        self.table = self._make_table()
        self.body.addWidget(self.table, 1)
        self.conflict = QLabel("", self)
        self.conflict.setObjectName("settings.conflict")
        self.conflict.setProperty("role", "caption")
        self.body.addWidget(self.conflict)
        self.add_button("close", "Close", QDialogButtonBox.ButtonRole.RejectRole, is_default=True)
        self.resize(560, 620)
        self._filter("")

    def offer_devices(self, found: Mapping[str, Any]) -> None:
        """Offer what the worker found installed; the dialog may be gone by then."""
        if not isValid(self):
            return
        for box, names, shown in (
            (self.provider, found["providers"], _provider_text),
            (self.device, found["torch_devices"], str.upper),
        ):
            for name in names:
                key = name.removesuffix(_PROVIDER).lower()
                if box.findData(key) < 0:
                    box.addItem(shown(name), key)

    def _make_engine(self, options: EngineOptions) -> None:
        self.provider = self._choice("provider", "Execution provider when measuring", options.provider)
        self.device = self._choice("device", "Device of the sensitivity estimate", options.device)
        self.threads = self._number("threads", "Threads when measuring", options.threads, 0, MAX_THREADS)
        self.threads.setSpecialValueText("all cores but one")
        self.batch = self._number("batch", "Batch size when timing", options.batch, 1, MAX_BATCH)

    def _choice(self, key: str, name: str, value: str) -> QComboBox:
        box = QComboBox(self)
        box.setObjectName(f"settings.{key}")
        box.setAccessibleName(name)
        box.addItem(value.upper(), value)
        box.currentIndexChanged.connect(lambda: self._on_engine(key, box.currentData()))
        return box

    def _number(self, key: str, name: str, value: int, least: int, most: int) -> QSpinBox:
        box = QSpinBox(self)
        box.setObjectName(f"settings.{key}")
        box.setAccessibleName(name)
        box.setRange(least, most)
        box.setValue(value)
        box.valueChanged.connect(lambda count: self._on_engine(key, count))
        return box

    def _label(self, text: str, buddy: QWidget) -> QLabel:
        label = QLabel(text, self)
        label.setObjectName(f"{buddy.objectName()}.label")
        label.setBuddy(buddy)
        return label

    def _key_header(self) -> QHBoxLayout:
        title = QLabel("Keys", self)
        title.setObjectName("settings.keys.title")
        title.setProperty("role", "title")
        self.search = QLineEdit(self)
        self.search.setObjectName("settings.keys.search")
        self.search.setAccessibleName("Filter commands")
        self.search.setPlaceholderText("Filter commands")
        self.search.textChanged.connect(self._filter)
        self.reset = QPushButton("Reset all", self)
        self.reset.setObjectName("settings.keys.reset")
        self.reset.setAccessibleName("Reset all keys")
        self.reset.setAutoDefault(False)
        self.reset.clicked.connect(self._on_reset)
        row = QHBoxLayout()
        row.addWidget(title)
        row.addStretch(1)
        row.addWidget(self.search)
        row.addWidget(self.reset)
        return row

    def _make_table(self) -> QTableWidget:
        described = tuple(self._actions.described.values())
        table = QTableWidget(len(described), 2, self)
        table.setTabKeyNavigation(False)
        table.setObjectName("settings.keys")
        table.setAccessibleName("Commands and their keys")
        table.setHorizontalHeaderLabels(["Command", "Key"])
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(36)
        table.setShowGrid(False)
        table.setSelectionMode(QTableWidget.SelectionMode.NoSelection)
        header = table.horizontalHeader()
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Fixed)
        header.resizeSection(1, 170)
        for row, action in enumerate(described):
            item = QTableWidgetItem(f"{action.group}: {action.plain_text}")
            item.setFlags(Qt.ItemFlag.ItemIsEnabled)
            table.setItem(row, 0, item)
            edit = QKeySequenceEdit(self._actions[action.id].shortcut(), table)
            edit.setObjectName(f"settings.key.{action.id}")
            edit.setAccessibleName(f"Key for {action.plain_text}")
            edit.setMaximumSequenceLength(1)
            edit.setClearButtonEnabled(True)
            edit.editingFinished.connect(self._key_setter(action.id, edit))
            table.setCellWidget(row, 1, edit)
        return table

    def _key_setter(self, name: str, edit: QKeySequenceEdit) -> Callable[[], None]:
        def set_key() -> None:
            keys = edit.keySequence().toString(QKeySequence.SequenceFormat.PortableText)
            if keys == self._actions[name].shortcut().toString(QKeySequence.SequenceFormat.PortableText):
                return
            taken = self._actions.shortcut_conflicts(name, keys)
            if taken:
                other = self._actions.described[taken[0]].plain_text
                self.conflict.setText(f"{keys} belongs to {other}; give that another key first.")
                edit.setKeySequence(self._actions[name].shortcut())
                return
            self.conflict.setText("")
            self._settings.set_shortcut(name, keys)

        return set_key

    def _filter(self, text: str) -> None:
        for row, action in enumerate(self._actions.described.values()):
            shown = text.lower() in f"{action.group} {action.plain_text}".lower()
            self.table.setRowHidden(row, not shown)

    def _on_theme(self) -> None:
        self._settings.theme = ThemeChoice(self.theme.currentData())

    def _on_engine(self, key: str, value: str | int) -> None:
        self._settings.engine = replace(self._settings.engine, **{key: value})  # type: ignore[arg-type]

    def _on_reset(self) -> None:
        for row, name in enumerate(self._actions.described):
            self._settings.set_shortcut(name, None)
            edit = self.table.cellWidget(row, 1)
            if isinstance(edit, QKeySequenceEdit):
                edit.setKeySequence(self._actions[name].shortcut())


def _provider_text(name: str) -> str:
    return name.removesuffix(_PROVIDER).upper()
