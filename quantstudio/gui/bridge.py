"""From other threads to the event loop: job events, and small pieces of work on files."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from PySide6.QtCore import QObject, Qt, QTimer, Signal

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
        self._is_closed = False
        self._posted.connect(self.arrived, Qt.ConnectionType.QueuedConnection)

    def post(self, job_id: str, event: Event) -> None:
        """Called on any thread."""
        if not self._is_closed:
            self._posted.emit(job_id, event)

    def close(self) -> None:
        """Drop what still comes: nobody listens any more."""
        self._is_closed = True


class Background(QObject):
    """Runs short functions (reading a statistics file, copying a model) off the event loop's thread."""

    _finished = Signal(object, object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        # Not QThreadPool: it deletes a runnable on its own thread while Python still holds it.
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="files")
        self._pending: set[Future[None]] = set()
        self._is_closed = False
        self._finished.connect(self._on_finished, Qt.ConnectionType.QueuedConnection)

    def run(
        self,
        function: Callable[[], Any],
        on_done: Callable[[Any], None],
        on_error: Callable[[QuantStudioError | OSError | ValueError | KeyError], None],
    ) -> None:
        """Call `function` on another thread, then one of the two callbacks on this one; not once closed."""

        def call() -> None:
            try:
                value = function()
            except (QuantStudioError, OSError, ValueError, KeyError) as error:
                self._finished.emit(None, error, on_error)
            else:
                self._finished.emit(value, None, on_done)

        if self._is_closed:
            return
        self._pending = {future for future in self._pending if not future.done()}
        self._pending.add(self._pool.submit(call))

    def wait(self, timeout_s: float = 3.0) -> bool:
        """Whether everything under way ended in time; the callbacks come when the event loop turns."""
        return not wait(self._pending, timeout=timeout_s).not_done

    def close(self) -> None:
        """Finish what is under way and take no more."""
        self._is_closed = True
        self.wait()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _on_finished(self, value: Any, error: Any, callback: Any) -> None:  # noqa: ANN401  Qt carries objects
        callback(value if error is None else error)


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
