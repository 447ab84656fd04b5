"""The steps of the recipe in their order: add, drag, switch off, set, remove; each is one undo step."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QListWidgetItem,
    QMenu,
    QStackedLayout,
    QToolButton,
    QWidget,
)
from typing_extensions import override

from quantstudio.core.steps import StepInfo
from quantstudio.gui.features.steps.step_delegate import COLOUR_ROLE, StepDelegate
from quantstudio.gui.features.steps.step_dialog import StepDialog
from quantstudio.gui.features.steps.step_lines import StepLine, step_lines
from quantstudio.gui.session import Session
from quantstudio.gui.theme import icon, theme_hub
from quantstudio.gui.widgets.empty_state import EmptyState
from quantstudio.gui.widgets.enabling import allow
from quantstudio.gui.widgets.reorder_list import ReorderList

NOTHING = (
    "No steps: the network is quantized as it is. Steps change it first, and win back accuracy that low bit "
    "widths or per-tensor scales would cost."
)
NO_MODEL = "Steps change a network before it is quantized. Open a model first."
_ICONS = {"add": "plus", "edit": "settings", "up": "arrow-up", "down": "arrow-down", "remove": "delete"}


class StepsPanel(QWidget):
    """A list of steps with buttons beside it, or what steps are for while there are none."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("steps")
        self.setAccessibleName("Steps")
        self._session = session
        self._is_filling = False
        self.list = self._make_list()
        self.menu = QMenu(self)
        self.menu.setObjectName("steps.menu")
        self.menu.setToolTipsVisible(True)
        self.menu.aboutToShow.connect(self._fill_menu)
        self.empty = EmptyState("layers", self)
        self.empty.setObjectName("steps.empty")
        self.empty.asked.connect(self._on_empty_asked)
        self.buttons = {
            "add": self._button("add", "Add a step", self._open_menu),
            "edit": self._button("edit", "Settings of the step (double-click, or Return)", self._on_edit),
            "up": self._button("up", "Run it earlier", lambda: self._move(-1)),
            "down": self._button("down", "Run it later", lambda: self._move(1)),
            "remove": self._button("remove", "Remove the step", self._on_remove),
        }
        self._lay_out()
        for signal in (
            session.recipe_changed,
            session.plans_changed,
            session.model_changed,
            session.variants_changed,
            session.steps_changed,
        ):
            signal.connect(self.refresh)
        theme_hub().theme_changed.connect(self._retheme)
        self._retheme()

    @override
    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._session.workspace.runs.describe_steps()

    def _lay_out(self) -> None:
        # In pairs: all in one column would make the panel, and with it the room below, taller than two steps.
        pairs = QGridLayout()
        pairs.setSpacing(4)
        for number, button in enumerate(self.buttons.values()):
            pairs.addWidget(button, number // 2, number % 2)
        pairs.setRowStretch(len(self.buttons), 1)
        filled = QWidget(self)
        row = QHBoxLayout(filled)
        row.setContentsMargins(8, 4, 12, 8)
        row.setSpacing(8)
        row.addWidget(self.list, 1)
        row.addLayout(pairs)
        self._stack = QStackedLayout(self)
        self._stack.addWidget(filled)
        self._stack.addWidget(self.empty)

    def _make_list(self) -> ReorderList:
        made = ReorderList(self)
        made.setObjectName("steps.list")
        made.setAccessibleName("Steps, in the order they are run")
        made.setAlternatingRowColors(True)
        made.setTextElideMode(Qt.TextElideMode.ElideRight)
        made.setItemDelegate(StepDelegate(made))
        made.row_dropped.connect(self._on_dropped)
        made.currentRowChanged.connect(self._refresh_buttons)
        made.itemChanged.connect(self._on_item_changed)
        made.itemActivated.connect(self._on_edit)
        return made

    def _button(self, name: str, text: str, slot: object) -> QToolButton:
        button = QToolButton(self)
        button.setObjectName(f"steps.{name}")
        button.setAccessibleName(text)
        button.setToolTip(text)
        button.setAutoRaise(True)
        button.setIconSize(QSize(16, 16))
        button.clicked.connect(slot)
        return button

    # What is shown.

    @property
    def _infos(self) -> dict[str, StepInfo]:
        return {info.name: info for info in self._session.workspace.steps}

    def refresh(self) -> None:
        """Show the recipe of now."""
        workspace = self._session.workspace
        if workspace.model is None:
            self.empty.set_message(NO_MODEL)
        else:
            self.empty.set_message(NOTHING, "Add a step")
        variant = workspace.current_variant
        build = variant.build if variant is not None else None
        lines = step_lines(workspace.recipe, self._infos, build.steps if build is not None else ())
        row = self.list.currentRow()
        self._is_filling = True
        self.list.clear()
        for number, line in enumerate(lines, start=1):
            self.list.addItem(self._item(number, line))
        self.list.setCurrentRow(min(max(row, 0), len(lines) - 1))
        self._is_filling = False
        self._stack.setCurrentIndex(0 if lines else 1)
        self._refresh_buttons()

    def _item(self, number: int, line: StepLine) -> QListWidgetItem:
        item = QListWidgetItem(f"{number}.  {line.label}\n{line.text}")
        item.setToolTip(line.tip)
        item.setFlags(
            Qt.ItemFlag.ItemIsEnabled
            | Qt.ItemFlag.ItemIsSelectable
            | Qt.ItemFlag.ItemIsUserCheckable
            | Qt.ItemFlag.ItemIsDragEnabled
        )
        item.setCheckState(Qt.CheckState.Checked if line.is_on else Qt.CheckState.Unchecked)
        colour = "bad" if not line.is_known else "muted" if line.is_on else "faint"
        item.setData(COLOUR_ROLE, colour)
        return item

    def _refresh_buttons(self) -> None:
        if self._is_filling:
            return
        row, count = self.list.currentRow(), self.list.count()
        has_row = 0 <= row < count
        missing = "" if has_row else "Choose a step first"
        allow(self.buttons["up"], missing or ("" if row > 0 else "It is the first"))
        allow(self.buttons["down"], missing or ("" if row < count - 1 else "It is the last"))
        allow(self.buttons["remove"], missing)
        info = self._infos.get(self._session.workspace.recipe.steps[row].name) if has_row else None
        allow(self.buttons["edit"], missing or ("" if info is not None else "This step is not known here"))
        has_model = self._session.workspace.model is not None
        allow(self.buttons["add"], "" if has_model else "Open a model first")

    # What can be done.

    def _fill_menu(self) -> None:
        self.menu.clear()
        infos = self._session.workspace.steps
        for info in infos:
            action = self.menu.addAction(info.label)
            action.setObjectName(f"steps.menu.{info.name}")
            action.setToolTip(f"{info.explanation}\n\n{info.source}".strip())
            action.triggered.connect(partial(self._on_add, info))
        if not infos:
            self.menu.addAction("Looking for steps…").setEnabled(False)

    def _open_menu(self) -> None:
        button = self.buttons["add"]
        self.menu.popup(button.mapToGlobal(button.rect().bottomLeft()))

    def _on_empty_asked(self) -> None:
        button = self.empty.button
        self.menu.popup(button.mapToGlobal(button.rect().bottomLeft()))

    def _on_add(self, info: StepInfo) -> None:
        self._session.workspace.edits.add_step(info.name)
        self.list.setCurrentRow(self.list.count() - 1)

    def _on_edit(self, *_item: object) -> None:
        row, workspace = self.list.currentRow(), self._session.workspace
        steps = workspace.recipe.steps
        info = self._infos.get(steps[row].name) if 0 <= row < len(steps) else None
        if info is None:
            return
        step = steps[row]

        def change(settings: object) -> None:
            # The recipe may have changed while the dialog was open: by undo, or by another plan.
            now = workspace.recipe
            if row >= len(now.steps) or now.steps[row].name != step.name or not isinstance(settings, dict):
                return
            workspace.edits.set_step(row, **settings)

        StepDialog(info, step, change, self.window()).open()

    def _on_remove(self) -> None:
        row, workspace = self.list.currentRow(), self._session.workspace
        if 0 <= row < len(workspace.recipe.steps):
            workspace.edits.remove_step(row)

    def _move(self, by: int) -> None:
        row = self.list.currentRow()
        self._on_dropped(row, row + by)

    def _on_dropped(self, row: int, to: int) -> None:
        self._session.workspace.edits.move_step(row, to)
        self.list.setCurrentRow(to)

    def _on_item_changed(self, item: QListWidgetItem) -> None:
        if self._is_filling:
            return
        row, workspace = self.list.row(item), self._session.workspace
        is_on = item.checkState() is Qt.CheckState.Checked
        if is_on != workspace.recipe.steps[row].is_on:
            workspace.edits.switch_step(row, is_on=is_on)

    def _retheme(self) -> None:
        for name, button in self.buttons.items():
            button.setIcon(icon(_ICONS[name], "muted", 16))
        self.refresh()
