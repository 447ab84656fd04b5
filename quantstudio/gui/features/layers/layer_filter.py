"""Which layers the table shows."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QObject, QPersistentModelIndex, QSortFilterProxyModel, Qt
from typing_extensions import override

from quantstudio.gui.features.layers.layer_table import LayerColumn, LayerTableModel

ALL_TYPES = ""


class LayerFilterModel(QSortFilterProxyModel):
    """Filters by words in name or type and by operator type; sorting is left to the table behind it."""

    def __init__(self, source: LayerTableModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._words: tuple[str, ...] = ()
        self._op_type = ALL_TYPES
        self._sorted_by = (LayerColumn.NUMBER, Qt.SortOrder.AscendingOrder)
        self.setSourceModel(source)
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
        self._sorted_by = (LayerColumn(max(column, 0)), order)
        self.layers.order_by(self._sorted_by[0], is_descending=order == Qt.SortOrder.DescendingOrder)

    @override
    def sortColumn(self) -> int:
        return self._sorted_by[0]

    @override
    def sortOrder(self) -> Qt.SortOrder:
        return self._sorted_by[1]

    @override
    def filterAcceptsRow(self, source_row: int, source_parent: QModelIndex | QPersistentModelIndex) -> bool:
        layer = self.layers.layer_at(source_row)
        if self._op_type and layer.op_type != self._op_type:
            return False
        text = f"{layer.name} {layer.label} {layer.op_type}".lower()
        return all(word in text for word in self._words)
