"""From other threads to the event loop: what jobs report, and small pieces of work on files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from time import perf_counter
from typing import Any

from PySide6.QtCore import QObject, Qt, QTimer, Signal

from quantstudio.core.errors import QuantStudioError
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
