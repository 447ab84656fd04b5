"""A field for a path: a file dropped on it is its path, not its address."""

from __future__ import annotations

from PySide6.QtGui import QDragEnterEvent, QDragMoveEvent, QDropEvent
from PySide6.QtWidgets import QLineEdit
from typing_extensions import override


class PathEdit(QLineEdit):
    """A line edit that takes dropped files and folders."""

    @override
    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if _local_path(event):
            event.acceptProposedAction()
        else:
            super().dragEnterEvent(event)

    @override
    def dragMoveEvent(self, event: QDragMoveEvent) -> None:
        if _local_path(event):
            event.acceptProposedAction()
        else:
            super().dragMoveEvent(event)

    @override
    def dropEvent(self, event: QDropEvent) -> None:
        path = _local_path(event)
        if path:
            self.setText(path)
            event.acceptProposedAction()
        else:
            super().dropEvent(event)


def _local_path(event: QDropEvent) -> str:
    return next((url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()), "")
