"""Samples whose answer changed."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from typing_extensions import override

from quantstudio.core.results import VariantResult

Index = QModelIndex | QPersistentModelIndex
SORT_ROLE = Qt.ItemDataRole.UserRole


class FlipColumn(IntEnum):
    """Columns from left to right."""

    SAMPLE = 0
    ANSWER = 1


class FlipTableModel(QAbstractTableModel):
    """One row per sample that the base gets right (or answers otherwise) and the variant does not."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: tuple[tuple[int, int], ...] = ()
        self._class_names: dict[int, str] = {}
        self._variant = ""

    def set_result(self, result: VariantResult | None) -> None:
        """Show the changed answers of a variant; the classes are named as in its own figures by class."""
        self.beginResetModel()
        rows = result.per_class if result is not None else ()
        self._class_names = {c.index: c.label for c in rows if c.index >= 0 and c.label != str(c.index)}
        self._variant = result.name if result is not None else ""
        pairs = zip(result.flipped, result.flipped_to, strict=False) if result is not None else ()
        self._rows = tuple(pairs)
        self.endResetModel()

    @override
    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008  Qt's own default
        return 0 if parent.isValid() else len(self._rows)

    @override
    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(FlipColumn)

    @override
    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return ("Sample", f"Answer of {self._variant}" if self._variant else "Answer")[section]
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.TextAlignmentRole:
            return _side(section)
        return None

    @override
    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        sample, answer = self._rows[index.row()]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return str(sample) if index.column() == FlipColumn.SAMPLE else self._name(answer)
            case Qt.ItemDataRole.TextAlignmentRole:
                return _side(index.column())
            case Qt.ItemDataRole.AccessibleTextRole:
                return f"sample {sample}, now {self._name(answer)}"
            case _ if role == SORT_ROLE:
                return sample if index.column() == FlipColumn.SAMPLE else self._name(answer)
            case _:
                return None

    def _name(self, answer: int) -> str:
        name = self._class_names.get(answer)
        return f"{name} ({answer})" if name is not None else str(answer)


def _side(column: int) -> Qt.AlignmentFlag:
    is_right = column == FlipColumn.SAMPLE
    side = Qt.AlignmentFlag.AlignRight if is_right else Qt.AlignmentFlag.AlignLeft
    return side | Qt.AlignmentFlag.AlignVCenter
