"""What every painted cell has in common: the row's own background, and a painter left as it was found."""

from __future__ import annotations

from abc import abstractmethod

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRectF
from PySide6.QtGui import QPainter
from PySide6.QtWidgets import QApplication, QStyle, QStyledItemDelegate, QStyleOptionViewItem
from typing_extensions import override

Index = QModelIndex | QPersistentModelIndex
PADDING = 8


class CellDelegate(QStyledItemDelegate):
    """Paints selection and stripes as the style does, then what the cell shows."""

    @override
    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        # Not CE_ItemViewItem: it would ask the model for seven roles this cell does not use.
        widget = option.widget
        style = widget.style() if widget is not None else QApplication.style()
        style.drawPrimitive(QStyle.PrimitiveElement.PE_PanelItemViewItem, option, painter, widget)
        # An exception in the middle must not leave the painter saved: every later cell would suffer.
        painter.save()
        try:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            self.paint_cell(painter, QRectF(option.rect), option, index)
        finally:
            painter.restore()

    @abstractmethod
    def paint_cell(self, painter: QPainter, rect: QRectF, option: QStyleOptionViewItem, index: Index) -> None:
        """Draw what the cell shows into `rect`."""
