"""What a table of rows shows: texts under headers, figures right; a subclass says what the rows are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Generic, TypeVar

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from typing_extensions import override

from quantstudio.gui.widgets.row_table import side_of

Index = QModelIndex | QPersistentModelIndex
Row = TypeVar("Row")


class RowModel(QAbstractTableModel, Generic[Row]):
    """One row per item, the name in the first column.

    Args:
        headers: Titles of the columns.
        figures: Columns of figures.
        tips: What columns mean, by column.
    """

    def __init__(
        self,
        headers: Sequence[str],
        *,
        figures: Collection[int],
        tips: Mapping[int, str] | None = None,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._headers = tuple(headers)
        self._figures = frozenset(figures)
        self._tips = dict(tips or {})
        self._rows: tuple[Row, ...] = ()

    def text(self, row: Row, column: int) -> str:
        """What stands in a cell."""
        raise NotImplementedError

    def role(self, row: Row, column: int, role: int) -> Any:  # noqa: ANN401  as Qt has it
        """The rest of a cell: colours, fonts, tips, values to sort by; None where nothing is said."""
        raise NotImplementedError

    def show_rows(self, rows: tuple[Row, ...], *, is_reset: bool) -> None:
        """Show these rows.

        Args:
            rows: All of them, in order.
            is_reset: Whether they are others than before; else what is said about them may have changed.
        """
        if is_reset:
            self.beginResetModel()
            self._rows = rows
            self.endResetModel()
            return
        self._rows = rows
        if rows:
            self.dataChanged.emit(self.index(0, 0), self.index(len(rows) - 1, len(self._headers) - 1))

    @override
    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008  Qt's own default
        return 0 if parent.isValid() else len(self._rows)

    @override
    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._headers)

    @override
    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(self._headers):
            return None
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._headers[section]
            case Qt.ItemDataRole.ToolTipRole:
                return self._tips.get(section)
            case Qt.ItemDataRole.TextAlignmentRole:
                return side_of(is_right=section in self._figures)
            case _:
                return None

    @override
    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        row, column = self._rows[index.row()], index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self.text(row, column)
            case Qt.ItemDataRole.TextAlignmentRole:
                return side_of(is_right=column in self._figures)
            case Qt.ItemDataRole.AccessibleTextRole:
                return f"{self.text(row, 0)}, {self._headers[column]}: {self.text(row, column)}"
            case _:
                return self.role(row, column, role)
