"""Which layers the table shows, and in what order."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QObject, QPersistentModelIndex, QSortFilterProxyModel, Qt
from typing_extensions import override

from quantstudio.gui.itemmodels.layer_table import SORT_ROLE, LayerColumn, LayerTableModel

ALL_TYPES = ""


class LayerFilterModel(QSortFilterProxyModel):
    """Filters by words in name or type and by operator type; sorts by figures, not by their text."""

    def __init__(self, source: LayerTableModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._words: tuple[str, ...] = ()
        self._op_type = ALL_TYPES
        self.setSourceModel(source)
        self.setSortRole(SORT_ROLE)
        # Results stream in many times a second: rows must not jump about under the pointer.
        self.setDynamicSortFilter(False)

    @property
    def layers(self) -> LayerTableModel:
        """The table behind the filter."""
        source = self.sourceModel()
        assert isinstance(source, LayerTableModel)
        return source

    def set_text(self, text: str) -> None:
        """Show layers whose name or type contains every word."""
        self.beginFilterChange()
        self._words = tuple(text.lower().split())
        self.endFilterChange()

    def set_op_type(self, op_type: str) -> None:
        """Show one operator type, or all with an empty name."""
        self.beginFilterChange()
        self._op_type = op_type
        self.endFilterChange()

    @override
    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        # By number is the order they have: no need to compare anything.
        is_natural = column == LayerColumn.NUMBER and order == Qt.SortOrder.AscendingOrder
        super().sort(-1 if is_natural else column, order)

    @override
    def filterAcceptsRow(self, source_row: int, source_parent: QModelIndex | QPersistentModelIndex) -> bool:
        layer = self.layers.layer_at(source_row)
        if self._op_type and layer.op_type != self._op_type:
            return False
        text = f"{layer.name} {layer.op_type}".lower()
        return all(word in text for word in self._words)
