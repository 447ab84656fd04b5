"""The steps of the recipe as blocks in their order: add, drag, switch off, set, remove; each is one edit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from PySide6.QtCore import QPoint, Qt, Signal
from PySide6.QtGui import QResizeEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QListWidgetItem, QMenu, QStackedWidget, QWidget
from typing_extensions import override

from quantstudio.core.recipe import Recipe
from quantstudio.core.steps import StepInfo
from quantstudio.gui.features.improve.step_delegate import (
    COLOUR_ROLE,
    GAIN_COLOUR_ROLE,
    GAIN_ROLE,
    HEIGHT_PX,
    PROGRESS_ROLE,
)
from quantstudio.gui.features.improve.step_dialog import StepDialog
from quantstudio.gui.features.improve.step_gains import StepGain, gains_of, plan_line
from quantstudio.gui.features.improve.step_lines import StepLine, step_lines
from quantstudio.gui.features.improve.step_menu import fill_step_menu
from quantstudio.gui.features.improve.step_strip import END_WIDTH_PX, EndBlock, StepStrip
from quantstudio.gui.session import Session
from quantstudio.gui.theme import theme_hub
from quantstudio.gui.widgets.card import Card
from quantstudio.gui.widgets.empty_state import EmptyState
from quantstudio.gui.widgets.enabling import allow
from quantstudio.gui.widgets.icon_button import IconButton
from quantstudio.workspace.names import contents_text

NOTHING = (
    "The network is quantized as it is. Steps before that win back accuracy: add one, or have them tried."
)
NO_MODEL = "Steps change a network before it is quantized. Open a model first."
WORDING = "run in this order, each part of the recipe; drag to reorder, Ctrl+Z takes anything back"


class StepsPanel(Card):
    """Blocks with buttons above them, or what steps are for while there are none.

    Signals:
        step_chosen(int): another block is the chosen one; -1 for none.
    """

    step_chosen = Signal(int)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__("Steps", "", parent)
        self.setObjectName("steps")
        self._session = session
        self._is_filling = False
        self._shown: Recipe | None = None
        self._named: tuple[Recipe, str] | None = None
        self.subtitle.set_wordings(WORDING, "drag to reorder, Ctrl+Z takes anything back", "")
        self.list = self._make_list()
        self.end = EndBlock(self)
        self.menu = QMenu(self)
        self.menu.setObjectName("steps.menu")
        self.menu.setToolTipsVisible(True)
        self.menu.aboutToShow.connect(self._fill_menu)
        self.empty = EmptyState("layers", self)
        self.empty.setObjectName("steps.empty")
        self.buttons = {
            "up": IconButton("steps.up", "Run it earlier (Alt+Left)", "arrow-left"),
            "down": IconButton("steps.down", "Run it later (Alt+Right)", "arrow-right"),
            "edit": IconButton("steps.edit", "Settings of the step (double-click, or Return)", "settings"),
            "remove": IconButton("steps.remove", "Remove the step (Delete)", "delete"),
        }
        for name, slot in (
            ("up", partial(self._move, -1)),
            ("down", partial(self._move, 1)),
            ("edit", self._on_edit),
            ("remove", self._on_remove),
        ):
            self.buttons[name].clicked.connect(slot)
        self._lay_out()
        for signal in (
            session.recipe_changed,
            session.plans_changed,
            session.model_changed,
            session.variants_changed,
            session.steps_changed,
        ):
            signal.connect(self.refresh)
        for signal in (session.improvement_changed, session.jobs_changed):
            signal.connect(self._on_progress)
        theme_hub().theme_changed.connect(self._retheme)
        self._retheme()

    @override
    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._session.workspace.runs.describe_steps()

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        margins = self.body.contentsMargins()
        self.list.fit(self.width() - margins.left() - margins.right() - END_WIDTH_PX)

    def _lay_out(self) -> None:
        self.add_to_header(*self.buttons.values())
        filled = QWidget(self)
        row = QHBoxLayout(filled)
        row.setContentsMargins(0, 4, 0, 0)
        row.setSpacing(0)
        row.addWidget(self.list, 1000)
        row.addWidget(self.end, 0, Qt.AlignmentFlag.AlignTop)
        row.addStretch(1)
        self._stack = QStackedWidget(self)
        self._stack.setFixedHeight(HEIGHT_PX + 20)
        self._stack.addWidget(filled)
        self._stack.addWidget(self.empty)
        self.add(self._stack, 0)

    def _make_list(self) -> StepStrip:
        made = StepStrip(self)
        made.setObjectName("steps.list")
        made.setAccessibleName("Steps, in the order they are run")
        made.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        made.customContextMenuRequested.connect(self._on_context_menu)
        made.row_dropped.connect(self._on_dropped)
        made.currentRowChanged.connect(self._on_row_changed)
        made.itemChanged.connect(self._on_item_changed)
        made.itemActivated.connect(self._on_edit)
        made.moved.connect(self._move)
        made.removed.connect(self._on_remove)
        return made

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
            self.empty.set_message(NOTHING)
        variant = workspace.current_variant
        build = variant.build if variant is not None else None
        recipe = workspace.recipe
        lines = step_lines(recipe, self._infos, build.steps if build is not None else ())
        gains = gains_of(workspace)
        self._is_filling = True
        if len(lines) != self.list.count() or recipe.steps != (self._shown.steps if self._shown else None):
            row = self.list.currentRow()
            self.list.clear()
            for _ in lines:
                self.list.addItem(QListWidgetItem())
            self.list.setCurrentRow(min(max(row, 0), len(lines) - 1))
            self._fit()
        for number, (line, gain) in enumerate(zip(lines, gains, strict=True)):
            self._fill(self.list.item(number), number + 1, line, gain)
        self._shown = recipe
        self._is_filling = False
        self.end.show_plan(self._contents(), *plan_line(workspace))
        self._stack.setCurrentIndex(0 if lines else 1)
        for button in self.buttons.values():
            button.setVisible(bool(lines))
        self._refresh_buttons()

    def _contents(self) -> str:
        """What the plan holds besides steps; with hundreds of layers not to be found out again and again."""
        workspace = self._session.workspace
        bare = workspace.improvement.stages[0].recipe
        if self._named is None or self._named[0] is not bare:
            self._named = bare, contents_text(replace(bare, steps=()), workspace.layers)
        return self._named[1]

    def _fill(self, item: QListWidgetItem, number: int, line: StepLine, gain: StepGain) -> None:
        item.setFlags(
            Qt.ItemFlag.ItemIsEnabled
            | Qt.ItemFlag.ItemIsSelectable
            | Qt.ItemFlag.ItemIsUserCheckable
            | Qt.ItemFlag.ItemIsDragEnabled
        )
        colour = "bad" if not line.is_known else "muted" if line.is_on else "faint"
        for role, value in (
            (Qt.ItemDataRole.DisplayRole, f"{number}.  {line.label}\n{line.text}"),
            (Qt.ItemDataRole.ToolTipRole, "\n\n".join(part for part in (line.tip, gain.tip) if part)),
            (Qt.ItemDataRole.AccessibleDescriptionRole, gain.text),
            (
                Qt.ItemDataRole.CheckStateRole,
                Qt.CheckState.Checked if line.is_on else Qt.CheckState.Unchecked,
            ),
            (COLOUR_ROLE, colour),
            (GAIN_ROLE, gain.text),
            (GAIN_COLOUR_ROLE, gain.colour),
            (PROGRESS_ROLE, gain.progress),
        ):
            if item.data(role) != value:
                item.setData(role, value)

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

    # What can be done.

    def _fill_menu(self) -> None:
        fill_step_menu(self.menu, self._session.workspace.steps, self._on_add)

    def open_menu(self, below: QWidget) -> None:
        """Offer the steps there are, below a button."""
        self.menu.popup(below.mapToGlobal(below.rect().bottomLeft()))

    def _on_add(self, info: StepInfo) -> None:
        self._session.workspace.edits.add_step(info.name)
        self.list.setCurrentRow(self.list.count() - 1)
        self.list.scrollToItem(self.list.item(self.list.count() - 1))

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

    def _move(self, by: int, *_clicked: object) -> None:
        row = self.list.currentRow()
        if 0 <= row + by < self.list.count():
            self._on_dropped(row, row + by)

    def _on_dropped(self, row: int, to: int) -> None:
        self._session.workspace.edits.move_step(row, to)
        self.list.setCurrentRow(to)

    def _on_row_changed(self, row: int) -> None:
        if not self._is_filling:
            self._refresh_buttons()
            self.step_chosen.emit(row)

    def _on_item_changed(self, item: QListWidgetItem) -> None:
        if self._is_filling:
            return
        row, workspace = self.list.row(item), self._session.workspace
        is_on = item.checkState() is Qt.CheckState.Checked
        if is_on != workspace.recipe.steps[row].is_on:
            workspace.edits.switch_step(row, is_on=is_on)

    def _on_progress(self) -> None:
        if self.isVisible():
            self.refresh()

    def _on_context_menu(self, at: QPoint) -> None:
        item = self.list.itemAt(at)
        if item is None:
            return
        self.list.setCurrentItem(item)
        is_on = item.checkState() is Qt.CheckState.Checked
        menu = QMenu(self)
        menu.setObjectName("steps.context")
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        other = Qt.CheckState.Unchecked if is_on else Qt.CheckState.Checked
        menu.addAction("Switch off" if is_on else "Switch on").triggered.connect(
            partial(item.setCheckState, other)
        )
        for name, text in (
            ("edit", "Settings…"), ("up", "Run it earlier"), ("down", "Run it later"), ("remove", "Remove")
        ):  # fmt: skip
            action = menu.addAction(text)
            action.setEnabled(self.buttons[name].isEnabled())
            action.triggered.connect(self.buttons[name].click)
        menu.popup(self.list.viewport().mapToGlobal(at))

    def _retheme(self) -> None:
        self.list.viewport().update()
        self.refresh()
