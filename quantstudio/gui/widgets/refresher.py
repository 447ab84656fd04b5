"""Redraws a view once for any number of changes in a row, and not at all while nobody sees it."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QTimer, Signal
from PySide6.QtWidgets import QWidget
from typing_extensions import override


class Refresher(QObject):
    """Collects requests until the event loop turns; for a hidden widget, until it is shown.

    Signals:
        due(): redraw now.
    """

    due = Signal()

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        self._is_waiting = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._on_timeout)
        widget.installEventFilter(self)

    def request(self) -> None:
        """Something changed."""
        self._is_waiting = True
        if self._widget.isVisible():
            self._timer.start()

    def flush(self) -> None:
        """Redraw at once if anything changed."""
        self._timer.stop()
        if self._is_waiting:
            self._is_waiting = False
            self.due.emit()

    def _on_timeout(self) -> None:
        if self._widget.isVisible():
            self.flush()

    @override
    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Show and self._is_waiting:
            self.flush()
        return super().eventFilter(watched, event)
