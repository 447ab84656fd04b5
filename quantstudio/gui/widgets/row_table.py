"""A table of rows one of which is chosen: quiet, sortable, its columns giving way when it gets narrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import TypeVar

from PySide6.QtCore import QAbstractItemModel, Qt
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from quantstudio.gui.widgets.card import FocusEdge

Column = TypeVar("Column", bound=IntEnum)
ROW_PX = 30
NAME_MIN_PX = 128


def row_table(name: str, title: str, model: QAbstractItemModel, widths: Mapping[Column, int]) -> QTableView:
    """A table whose first column takes the room the others leave."""
    table = QTableView()
    table.setObjectName(name)
    table.setAccessibleName(title)
    table.setModel(model)
    table.setAlternatingRowColors(True)
    table.setShowGrid(False)
    table.setWordWrap(False)
    table.setTabKeyNavigation(False)
    FocusEdge(table)
    table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    table.setSortingEnabled(True)
    table.horizontalHeader().setSortIndicatorClearable(True)
    table.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(ROW_PX)
    header = table.horizontalHeader()
    header.setHighlightSections(False)
    header.setObjectName(f"{name}.header")
    header.setAccessibleName(f"Columns: {title.lower()}")
    header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    for column, width in widths.items():
        table.setColumnWidth(column, width)
    return table


def fit_columns(
    table: QTableView, room: int, widths: Mapping[Column, int], giving_way: Sequence[Column]
) -> None:
    """Hide columns, in the order they give way, until the rest fits beside the name."""
    shown = dict(widths)
    for column in giving_way:
        if sum(shown.values()) > room - NAME_MIN_PX - 14:
            shown.pop(column)
    for column in widths:
        table.setColumnHidden(column, column not in shown)


def side_of(*, is_right: bool) -> Qt.AlignmentFlag:
    """Alignment of a cell: figures right, words left."""
    side = Qt.AlignmentFlag.AlignRight if is_right else Qt.AlignmentFlag.AlignLeft
    return side | Qt.AlignmentFlag.AlignVCenter
