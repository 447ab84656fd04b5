"""A list whose rows are dragged to another place; the owner of the rows does the moving."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import QAbstractItemView, QListView, QListWidget, QWidget
from typing_extensions import override


class ReorderList(QListWidget):
    """Shows where a dragged row would land.

    Signals:
        row_dropped(int, int): the row dragged, and the place it has once it is taken out and put back.
    """

    row_dropped = Signal(int, int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setDragDropMode(QAbstractItemView.DragDropMode.InternalMove)
        self.setDefaultDropAction(Qt.DropAction.MoveAction)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        # A row ends with what it decides.
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)

    @override
    def dropEvent(self, event: QDropEvent) -> None:
        row, at = self.currentRow(), event.position().toPoint()
        target = self.indexAt(at)
        place = self.count()
        if target.isValid():
            centre = self.visualRect(target).center()
            is_row = self.flow() is QListView.Flow.LeftToRight
            place = target.row() + (at.x() > centre.x() if is_row else at.y() > centre.y())
        # A copy as far as the view knows: it must not take the row out itself.
        event.setDropAction(Qt.DropAction.CopyAction)
        event.accept()
        place -= place > row
        if row >= 0 and place != row:
            self.row_dropped.emit(row, place)
