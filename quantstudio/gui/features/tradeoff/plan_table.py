"""Every plan of the last search, one row each: what the front shows, for the keyboard."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QColor
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.search_results import PlanPoint
from quantstudio.gui.facts.plan_facts import (
    change_text,
    figures_of,
    latency_text,
    plan_lines,
    size_text,
    state_text,
)
from quantstudio.gui.session import Session
from quantstudio.gui.theme import current_theme, ui_font
from quantstudio.gui.widgets.row_table import side_of
from quantstudio.workspace.runs.searches import plan_name

Index = QModelIndex | QPersistentModelIndex
PLAN_ROLE = Qt.ItemDataRole.UserRole + 1
PLAN_SORT_ROLE = Qt.ItemDataRole.UserRole


class PlanColumn(IntEnum):
    """Columns from left to right."""

    NAME = 0
    CHANGE = 1
    BITS = 2
    PACKED = 3
    FILE = 4
    LATENCY = 5
    KL = 6
    STATE = 7


_HEADERS = ("Plan", "Change", "Bits", "Packed", "File", "Time", "KL", "Figures")
_TIPS = {
    PlanColumn.CHANGE: "Points lost or won against FP32 on the same samples",
    PlanColumn.BITS: "Mean bits per weight",
    PlanColumn.PACKED: "Parameters with their weights packed to their bits",
    PlanColumn.FILE: "The ONNX file: 2 to 7 bit weights lie in INT8 there, which runs at INT8 speed",
    PlanColumn.LATENCY: "Time relative to FP32",
    PlanColumn.KL: "Mean KL divergence from FP32, nats",
}


class PlanTableModel(QAbstractTableModel):
    """The chosen plan, single precisions, then the front from small to large; a recipe comes once."""

    def __init__(self, session: Session, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._plans: tuple[PlanPoint, ...] = ()
        self.refresh()

    def refresh(self) -> None:
        """Show what the search knows now."""
        once: dict[str, PlanPoint] = {}
        for point in _ordered(self._session):
            once.setdefault(self._session.workspace.searches.key_of(point), point)
        fresh = tuple(once.values())
        if fresh != self._plans:
            self.beginResetModel()
            self._plans = fresh
            self.endResetModel()
        elif fresh:
            # The plan on the screen may be another one now.
            self.dataChanged.emit(self.index(0, 0), self.index(len(fresh) - 1, len(_HEADERS) - 1))

    @override
    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008  Qt's own default
        return 0 if parent.isValid() else len(self._plans)

    @override
    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(_HEADERS)

    @override
    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(_HEADERS):
            return None
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return _HEADERS[section]
            case Qt.ItemDataRole.ToolTipRole:
                return _TIPS.get(PlanColumn(section))
            case Qt.ItemDataRole.TextAlignmentRole:
                return side_of(is_right=_is_figure(section))
            case _:
                return None

    @override
    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        point, column = self._plans[index.row()], index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(point, column)
            case Qt.ItemDataRole.TextAlignmentRole:
                return side_of(is_right=_is_figure(column))
            case Qt.ItemDataRole.FontRole if self._is_on_screen(point) and column == PlanColumn.NAME:
                return ui_font(semibold=True)
            case Qt.ItemDataRole.ForegroundRole:
                return self._colour(point, column)
            case Qt.ItemDataRole.ToolTipRole:
                lines = plan_lines(point, self._session.workspace.steps)
                return "\n".join([*lines, "Double-click to load this plan"])
            case Qt.ItemDataRole.AccessibleTextRole:
                return f"{self._name(point)}, {_HEADERS[column]}: {self._text(point, column)}"
            case _:
                return {PLAN_ROLE: point, PLAN_SORT_ROLE: self._sort_key(point, column)}.get(role)

    def _colour(self, point: PlanPoint, column: int) -> QColor | None:
        theme = current_theme()
        if column == PlanColumn.STATE:
            return theme.color("muted" if point.measured is not None else "accent")
        is_chosen = column == PlanColumn.NAME and point == self._session.workspace.searches.chosen
        return theme.color("accent") if is_chosen else None

    def _is_on_screen(self, point: PlanPoint) -> bool:
        return point.recipe == self._session.workspace.recipe

    def _name(self, point: PlanPoint) -> str:
        return plan_name(point, is_chosen=point == self._session.workspace.searches.chosen)

    def _text(self, point: PlanPoint, column: int) -> str:
        plan = figures_of(point)
        match column:
            case PlanColumn.NAME:
                return self._name(point)
            case PlanColumn.CHANGE:
                return change_text(plan)
            case PlanColumn.BITS:
                return figures.number(plan.average_bits, 2)
            case PlanColumn.PACKED:
                return figures.size(plan.weight_bytes)
            case PlanColumn.FILE:
                return size_text(plan.size_bytes)
            case PlanColumn.LATENCY:
                return latency_text(plan)
            case PlanColumn.KL:
                return figures.significant(plan.kl, 2)
            case _:
                return state_text(point)

    def _sort_key(self, point: PlanPoint, column: int) -> object:
        plan = figures_of(point)
        keys: dict[int, float | None] = {
            PlanColumn.CHANGE: None if plan.drop is None else -plan.drop,
            PlanColumn.BITS: plan.average_bits,
            PlanColumn.PACKED: plan.weight_bytes,
            PlanColumn.FILE: plan.size_bytes,
            PlanColumn.LATENCY: plan.latency_ratio,
            PlanColumn.KL: plan.kl,
        }
        if column not in keys:
            return self._text(point, column)
        value = keys[column]
        return float("-inf") if value is None else float(value)


def _is_figure(column: int) -> bool:
    return PlanColumn.CHANGE <= column <= PlanColumn.KL


def _ordered(session: Session) -> list[PlanPoint]:
    search = session.workspace.searches
    front = search.front
    if front is None:
        return []
    first = [search.chosen] if search.chosen is not None else []
    named = [p for p in front.tried if p.name]
    return [*first, *named, *front.front, *(p for p in front.tried if not p.name)]
