"""From other threads to the event loop, and signals at the pace of a screen."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter

from PySide6.QtCore import QObject, Qt, QTimer, Signal

from quantstudio.jobs.queue import JobQueue

TURN_MS = 8.0


class LoopCalls(QObject):
    """Takes functions on any thread and runs them on the thread of the event loop, in order.

    Hundreds of layers finish in a burst: a turn of the loop runs functions for `TURN_MS` and leaves the rest
    to the next turns.
    """

    _posted = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._is_closed = False
        self._waiting: deque[Callable[[], None]] = deque()
        self._next_turn = QTimer(self)
        self._next_turn.setSingleShot(True)
        self._next_turn.setInterval(0)
        self._next_turn.timeout.connect(self._run)
        self._posted.connect(self._on_posted, Qt.ConnectionType.QueuedConnection)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Run `function` in a turn to come; called on any thread."""
        if not self._is_closed:
            self._waiting.append(function)
            self._posted.emit()

    def close(self) -> None:
        """Drop what still comes: nobody listens any more."""
        self._is_closed = True
        self._waiting.clear()

    def _on_posted(self) -> None:
        if self._waiting and not self._next_turn.isActive():
            self._run()

    def _run(self) -> None:
        end = perf_counter() + TURN_MS / 1000
        while self._waiting:
            if perf_counter() > end:
                self._next_turn.start()
                return
            self._waiting.popleft()()


class JobSignals(QObject):
    """A queue's signals for views: a view that is gone is disconnected by Qt.

    Emits `changed` when any row changed, `logged(LogLine)` for the log, `failed(JobRow)` when a job failed,
    `idle` when nothing runs or waits any more.
    """

    changed = Signal()
    logged = Signal(object)
    failed = Signal(object)
    idle = Signal()

    def __init__(self, queue: JobQueue, parent: QObject | None = None) -> None:
        super().__init__(parent)
        queue.changed.connect(self.changed.emit)
        queue.logged.connect(self.logged.emit)
        queue.failed.connect(self.failed.emit)
        queue.idle.connect(self.idle.emit)


class Throttle(QObject):
    """Emits `due` soon after `request`, and never more often than once an interval."""

    due = Signal()

    def __init__(self, interval_ms: int, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(interval_ms)
        self._timer.timeout.connect(self.due)

    def request(self) -> None:
        """Something changed."""
        if not self._timer.isActive():
            self._timer.start()

    def flush(self) -> None:
        """Emit now what was asked for, if anything was."""
        if self._timer.isActive():
            self._timer.stop()
            self.due.emit()

    def stop(self) -> None:
        """Forget what was asked for."""
        self._timer.stop()
