"""Every plan of the last search, one row each: what the front shows, for the keyboard."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QColor
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.search_results import PlanPoint
from quantstudio.core.variants import Variant
from quantstudio.gui.facts.plan_facts import (
    change_text,
    figures_of,
    plan_lines,
    ratio_text,
    size_text,
    state_text,
    time_ratio,
)
from quantstudio.gui.session import Session
from quantstudio.gui.theme import current_theme, ui_font
from quantstudio.gui.widgets.row_model import RowModel
from quantstudio.workspace.runs.searches import plan_name

PLAN_ROLE = Qt.ItemDataRole.UserRole + 1
PLAN_SORT_ROLE = Qt.ItemDataRole.UserRole


class PlanColumn(IntEnum):
    """Columns from left to right."""

    NAME = 0
    CHANGE = 1
    BITS = 2
    FILE = 3
    LATENCY = 4
    KL = 5
    STATE = 6


_HEADERS = ("Plan", "Change", "Bits", "File", "Time", "KL", "Figures")
_TIPS: dict[int, str] = {
    PlanColumn.CHANGE: "Points lost or won against FP32 on the same samples",
    PlanColumn.BITS: "Mean bits per weight",
    PlanColumn.FILE: "The ONNX file: 2 to 7 bit weights lie in INT8 there, which runs at INT8 speed",
    PlanColumn.LATENCY: "Time relative to FP32",
    PlanColumn.KL: "Mean KL divergence from FP32, nats",
}
_FIGURES = range(PlanColumn.CHANGE, PlanColumn.KL + 1)


class PlanTableModel(RowModel[PlanPoint]):
    """The chosen plan, single precisions, then the front from small to large; a recipe comes once."""

    def __init__(self, session: Session, parent: QObject | None = None) -> None:
        super().__init__(_HEADERS, figures=_FIGURES, tips=_TIPS, parent=parent)
        self._session = session
        self.refresh()

    def refresh(self) -> None:
        """Show what the search knows now."""
        once: dict[str, PlanPoint] = {}
        for point in _ordered(self._session):
            once.setdefault(self._session.workspace.searches.key_of(point), point)
        fresh = tuple(once.values())
        # Where the rows are the same, the plan on the screen may be another one now.
        self.show_rows(fresh, is_reset=fresh != self._rows)

    @override
    def role(self, row: PlanPoint, column: int, role: int) -> Any:
        match role:
            case Qt.ItemDataRole.FontRole if self._is_on_screen(row) and column == PlanColumn.NAME:
                return ui_font(semibold=True)
            case Qt.ItemDataRole.ForegroundRole:
                return self._colour(row, column)
            case Qt.ItemDataRole.ToolTipRole:
                lines = plan_lines(row, self._session.workspace.steps, self._variant(row))
                return "\n".join([*lines, "Double-click to load this plan"])
            case _ if role == PLAN_ROLE:
                return row
            case _ if role == PLAN_SORT_ROLE:
                return self._sort_key(row, column)
            case _:
                return None

    def _colour(self, point: PlanPoint, column: int) -> QColor | None:
        theme = current_theme()
        if column == PlanColumn.STATE:
            return theme.color("muted" if point.measured is not None else "accent")
        is_chosen = column == PlanColumn.NAME and point == self._session.workspace.searches.chosen
        return theme.color("accent") if is_chosen else None

    def _is_on_screen(self, point: PlanPoint) -> bool:
        return point.recipe == self._session.workspace.recipe

    def _variant(self, point: PlanPoint) -> Variant | None:
        return self._session.workspace.variant_of(point.recipe)

    def _name(self, point: PlanPoint) -> str:
        return plan_name(point, is_chosen=point == self._session.workspace.searches.chosen)

    @override
    def text(self, row: PlanPoint, column: int) -> str:
        plan = figures_of(row)
        match column:
            case PlanColumn.NAME:
                return self._name(row)
            case PlanColumn.CHANGE:
                return change_text(plan)
            case PlanColumn.BITS:
                return figures.number(plan.average_bits, 2)
            case PlanColumn.FILE:
                return size_text(plan.size_bytes)
            case PlanColumn.LATENCY:
                return ratio_text(time_ratio(row, self._variant(row)))
            case PlanColumn.KL:
                return figures.significant(plan.kl, 2)
            case _:
                return state_text(row)

    def _sort_key(self, point: PlanPoint, column: int) -> object:
        plan = figures_of(point)
        keys: dict[int, float | None] = {
            PlanColumn.CHANGE: None if plan.drop is None else -plan.drop,
            PlanColumn.BITS: plan.average_bits,
            PlanColumn.FILE: plan.size_bytes,
            PlanColumn.LATENCY: time_ratio(point, self._variant(point)),
            PlanColumn.KL: plan.kl,
        }
        if column not in keys:
            return self.text(point, column)
        value = keys[column]
        return float("-inf") if value is None else float(value)


def _ordered(session: Session) -> list[PlanPoint]:
    search = session.workspace.searches
    front = search.front
    if front is None:
        return []
    first = [search.chosen] if search.chosen is not None else []
    named = [p for p in front.tried if p.name]
    return [*first, *named, *front.front, *(p for p in front.tried if not p.name)]
