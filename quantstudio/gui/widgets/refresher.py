"""Redraws a view once for any number of changes in a row, one view per turn, and none that nobody sees."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QTimer, Signal
from PySide6.QtWidgets import QWidget
from shiboken6 import isValid
from typing_extensions import override


class _Turns:
    """Views that wait to be redrawn; each turn of the event loop redraws one, the most important first.

    All in one turn would add up to a pause: a click changes half a dozen plots.
    """

    def __init__(self) -> None:
        self._waiting: list[Refresher] = []
        self._timer: QTimer | None = None
        self._is_taken = False

    def take_or_wait(self, refresher: Refresher) -> None:
        """Redraw it at once if nothing else was in this turn: a tab that is shown holds many views."""
        if self._is_taken:
            self.add(refresher)
            return
        self._is_taken = True
        self._start()
        refresher.flush()

    def add(self, refresher: Refresher) -> None:
        """Redraw it in one of the next turns."""
        if refresher not in self._waiting:
            self._waiting.append(refresher)
        self._start()

    def drop(self, refresher: Refresher) -> None:
        """It was redrawn, or is gone."""
        if refresher in self._waiting:
            self._waiting.remove(refresher)

    def _start(self) -> None:
        if self._timer is None:
            self._timer = QTimer()
            self._timer.setSingleShot(True)
            self._timer.setInterval(0)
            self._timer.timeout.connect(self._on_timeout)
        self._timer.start()

    def _on_timeout(self) -> None:
        self._is_taken = False
        self._waiting = [refresher for refresher in self._waiting if isValid(refresher)]
        if not self._waiting:
            return
        first = min(self._waiting, key=lambda refresher: refresher.priority)
        self._waiting.remove(first)
        if self._waiting:
            self._start()
        first.redraw_if_seen()


_turns = _Turns()


class Refresher(QObject):
    """Collects requests until a turn of the event loop is free; for a hidden widget, until it is shown.

    Signals:
        due(): redraw now.
    """

    due = Signal()

    def __init__(self, widget: QWidget, priority: int = 0) -> None:
        """A smaller `priority` is redrawn before a larger one."""
        super().__init__(widget)
        self.priority = priority
        self._widget = widget
        self._is_waiting = False
        widget.installEventFilter(self)

    def request(self) -> None:
        """Something changed."""
        self._is_waiting = True
        if self._widget.isVisible():
            _turns.add(self)

    def flush(self) -> None:
        """Redraw at once if anything changed."""
        _turns.drop(self)
        if self._is_waiting:
            self._is_waiting = False
            self.due.emit()

    def redraw_if_seen(self) -> None:
        """Its turn has come."""
        if self._widget.isVisible():
            self.flush()

    @override
    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Show and self._is_waiting:
            _turns.take_or_wait(self)
        return super().eventFilter(watched, event)
