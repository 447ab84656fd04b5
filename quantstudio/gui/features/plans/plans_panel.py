"""The named plans side by side, each with what it would cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from quantstudio.core import figures
from quantstudio.core.data_spec import ON_CALIBRATION
from quantstudio.core.figures import NOTHING, milliseconds, percent, size
from quantstudio.core.variants import Variant
from quantstudio.gui.facts.variant_facts import quality_of
from quantstudio.gui.session import Session
from quantstudio.gui.widgets.card import FocusEdge
from quantstudio.gui.widgets.enabling import allow
from quantstudio.gui.widgets.icon_button import IconButton
from quantstudio.gui.widgets.refresher import Refresher
from quantstudio.project.state import Plan
from quantstudio.workspace.names import contents_text, step_labels

if TYPE_CHECKING:
    from quantstudio.core.predict.table import Prediction

_COLUMNS = ("Plan", "Contains", "Layers quantized", "Size", "Accuracy", "Latency p50", "Figures")
QUALITY = 4  # the column of the task's figure
PLANS_TURN = 6


class PlansPanel(QWidget):
    """A table of plans; selecting a row makes that plan the one being edited."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("plans")
        self.setAccessibleName("Plans")
        self._session = session
        self._is_filling = False
        # Every plan is predicted anew: only while the panel is open, and after the plots.
        self._refresher = Refresher(self, PLANS_TURN)
        self.table = self._make_table()
        self.buttons = {
            "add": IconButton("plans.add", "New plan", "plus"),
            "duplicate": IconButton("plans.duplicate", "Duplicate plan", "copy"),
            "rename": IconButton("plans.rename", "Rename plan (double-click, or F2)", "edit"),
            "delete": IconButton("plans.delete", "Delete plan", "delete"),
        }
        for name, slot in (
            ("add", self._on_add),
            ("duplicate", self._on_duplicate),
            ("rename", self._on_rename),
            ("delete", self._on_delete),
        ):
            self.buttons[name].clicked.connect(slot)
        row = QVBoxLayout()
        row.setSpacing(4)
        for button in self.buttons.values():
            row.addWidget(button)
        row.addStretch(1)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(8, 4, 12, 8)
        layout.setSpacing(8)
        layout.addWidget(self.table, 1)
        layout.addLayout(row)
        for signal in (
            session.plans_changed,
            session.model_changed,
            session.prediction_changed,
            session.variants_changed,
        ):
            signal.connect(self._refresher.request)
        self._refresher.due.connect(self._refresh)
        self._refresh()

    def _make_table(self) -> QTableWidget:
        table = QTableWidget(0, len(_COLUMNS), self)
        table.setObjectName("plans.table")
        table.setAccessibleName("Plans with their figures")
        table.setHorizontalHeaderLabels(list(_COLUMNS))
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(28)
        table.setShowGrid(False)
        table.setAlternatingRowColors(True)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        # Any other key is a command of the window, not the first letter of a new name.
        triggers = QAbstractItemView.EditTrigger
        table.setEditTriggers(triggers.DoubleClicked | triggers.EditKeyPressed)
        table.setTabKeyNavigation(False)
        FocusEdge(table)
        header = table.horizontalHeader()
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(len(_COLUMNS) - 1, QHeaderView.ResizeMode.ResizeToContents)
        header.setHighlightSections(False)
        table.currentCellChanged.connect(self._on_current_changed)
        table.itemChanged.connect(self._on_renamed)
        table.itemDelegate().closeEditor.connect(self._refresher.request)
        return table

    def _refresh(self) -> None:
        if self.table.state() == QAbstractItemView.State.EditingState:
            return  # a new name is being typed; the rename refreshes
        self._is_filling = True
        plans = self._session.workspace.plans
        self.table.setRowCount(len(plans))
        base = self._session.workspace.base
        quality = quality_of(base) if base is not None else None
        heading = self.table.horizontalHeaderItem(QUALITY)
        if heading is not None and quality is not None:
            heading.setText(quality.short_name)
            heading.setToolTip(quality.shown_name)
        for row, plan in enumerate(plans):
            for column, text in enumerate((plan.name, *self._figures(plan))):
                item = QTableWidgetItem(text)
                flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
                item.setFlags(flags | Qt.ItemFlag.ItemIsEditable if column == 0 else flags)
                self.table.setItem(row, column, item)
            if plan.name == self._session.workspace.active_plan:
                self.table.setCurrentCell(row, 0)
        allow(self.buttons["delete"], "" if len(plans) > 1 else "The last plan cannot be deleted")
        self._is_filling = False

    def _figures(self, plan: Plan) -> tuple[str, ...]:
        session = self._session
        predicted = session.workspace.predicted(plan.recipe)
        if predicted is None:
            return ("", "", "", "", "", "")
        contents = contents_text(plan.recipe, session.workspace.layers)
        quantized = f"{predicted.quantized} of {len(session.workspace.layers)}"
        measured = session.workspace.variant_of(plan.recipe)
        if measured is not None and measured.result is not None:
            where = f" {ON_CALIBRATION}" if session.workspace.is_measured_on_calibration else ""
            return (contents, quantized, *_measured(measured), f"measured{where}")
        left_out = step_labels(predicted.left_out, session.workspace.steps)
        return (contents, quantized, *_predicted(predicted), figures.predicted(left_out))

    def _on_current_changed(self, row: int) -> None:
        if not self._is_filling and 0 <= row < len(self._session.workspace.plans):
            self._session.workspace.edits.activate_plan(self._session.workspace.plans[row].name)

    def _on_renamed(self, item: QTableWidgetItem) -> None:
        if self._is_filling or item.column() != 0:
            return
        name = self._session.workspace.plans[item.row()].name
        if item.text() != name:
            self._session.workspace.edits.rename_plan(name, item.text())
            self._is_filling = True
            item.setText(
                self._session.workspace.plans[item.row()].name
            )  # the old one where the new was refused
            self._is_filling = False
        self._refresher.request()

    def _on_rename(self) -> None:
        item = self.table.item(self.table.currentRow(), 0)
        if item is not None:
            self.table.setFocus(Qt.FocusReason.OtherFocusReason)
            self.table.editItem(item)

    def _on_add(self) -> None:
        self._session.workspace.edits.add_plan()

    def _on_duplicate(self) -> None:
        self._session.workspace.edits.duplicate_plan(self._session.workspace.active_plan)

    def _on_delete(self) -> None:
        self._session.workspace.edits.delete_plan(self._session.workspace.active_plan)


def _measured(variant: Variant) -> tuple[str, str, str]:
    result = variant.result
    if result is None:
        return (NOTHING, NOTHING, NOTHING)
    quality = quality_of(variant)
    latency = result.latency_ms
    return (
        size(result.size_bytes),
        NOTHING if quality is None else quality.text,
        NOTHING if latency is None else milliseconds(latency.p50),
    )


def _predicted(prediction: Prediction) -> tuple[str, str, str]:
    most = prediction.accuracy_at_most
    unknown = NOTHING if most is None else figures.below(most)
    return (
        NOTHING if prediction.size_bytes is None else size(prediction.size_bytes),
        unknown if prediction.accuracy is None else percent(prediction.accuracy.value),
        NOTHING if prediction.latency_ms is None else milliseconds(prediction.latency_ms),
    )
