"""Python's cyclic garbage collector, kept on the thread that owns the widgets."""

from __future__ import annotations

import gc

from PySide6.QtCore import QObject, QTimer

INTERVAL_MS = 400


class MainThreadCollector(QObject):
    """Collects on a timer of the event loop instead of wherever an allocation happens to cross a threshold.

    A cycle that holds a widget or a timer must not be freed by the thread that reads the worker's pipe: Qt
    aborts when objects die on another thread than their own.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._timer = QTimer(self)
        self._timer.setInterval(INTERVAL_MS)
        self._timer.timeout.connect(self.collect_if_due)

    def start(self) -> None:
        """Take over from the automatic collector."""
        gc.disable()
        self._timer.start()

    def stop(self) -> None:
        """Give back to the automatic collector."""
        self._timer.stop()
        gc.enable()

    def exempt_what_lives(self) -> None:
        """Leave modules, classes and the window out of later collections, which then take a millisecond."""
        gc.collect()
        gc.freeze()

    def collect_if_due(self) -> int:
        """Collect the oldest generation whose threshold is crossed; returns it, or -1."""
        counts, thresholds = gc.get_count(), gc.get_threshold()
        due = [g for g in range(3) if counts[g] > thresholds[g] > 0]
        if not due:
            return -1
        gc.collect(due[-1])
        return due[-1]
