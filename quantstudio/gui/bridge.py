"""From other threads to the event loop: job events, and small pieces of work on files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, QRunnable, Qt, QThreadPool, QTimer, Signal

from quantstudio.core.errors import QuantStudioError
from quantstudio.core.events import Event
from quantstudio.jobs.spec import EventCallback, Runner

RunnerFactory = Callable[[EventCallback], Runner]


class EventBridge(QObject):
    """Takes events on a runner's thread and emits them on the thread of the event loop.

    Emits `arrived(job_id, event)`.
    """

    arrived = Signal(str, object)
    _posted = Signal(str, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._posted.connect(self.arrived, Qt.ConnectionType.QueuedConnection)

    def post(self, job_id: str, event: Event) -> None:
        """Called on any thread."""
        self._posted.emit(job_id, event)


class Background(QObject):
    """Runs short functions (reading a statistics file, copying a model) off the event loop's thread."""

    _finished = Signal(object, object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(1)
        self._finished.connect(self._on_finished, Qt.ConnectionType.QueuedConnection)

    def run(
        self,
        function: Callable[[], Any],
        on_done: Callable[[Any], None],
        on_error: Callable[[QuantStudioError | OSError | ValueError], None],
    ) -> None:
        """Call `function` on another thread, then one of the two callbacks on this one."""
        self._pool.start(_Call(function, lambda value, error: self._emit(value, error, (on_done, on_error))))

    def wait(self, timeout_ms: int = 3000) -> bool:
        """Whether everything under way ended in time; for the end of the program."""
        return self._pool.waitForDone(timeout_ms)

    def _emit(self, value: object, error: object, callbacks: object) -> None:
        self._finished.emit(value, error, callbacks)

    def _on_finished(self, value: Any, error: Any, callbacks: Any) -> None:  # noqa: ANN401  Qt carries objects
        on_done, on_error = callbacks
        if error is not None:
            on_error(error)
        else:
            on_done(value)


class _Call(QRunnable):
    def __init__(self, function: Callable[[], Any], finish: Callable[[Any, Any], None]) -> None:
        super().__init__()
        self._function = function
        self._finish = finish

    def run(self) -> None:
        try:
            value = self._function()
        except (QuantStudioError, OSError, ValueError, KeyError) as error:
            self._finish(None, error)
        else:
            self._finish(value, None)


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
