"""Short pieces of work on files, off the owner's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TypeVar

from quantstudio.core.errors import QuantStudioError
from quantstudio.jobs.queue import CallSoon

T = TypeVar("T")

# What such work may end in; anything else is a fault of ours and is raised where the future is looked at.
FileTrouble = QuantStudioError | OSError | ValueError | KeyError


class Background:
    """Runs functions (reading a statistics file, copying a model) one at a time, in order.

    Args:
        call_soon: Brings the answers back to the owner's thread.
    """

    def __init__(self, call_soon: CallSoon) -> None:
        self._call_soon = call_soon
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="files")
        self._pending: set[Future[None]] = set()
        self._answers = 0
        self._guard = threading.Lock()
        self._is_closed = False

    @property
    def is_busy(self) -> bool:
        """Whether a function runs or waits, or its answer is still to be taken."""
        with self._guard:
            return self._answers > 0

    def run(
        self, function: Callable[[], T], on_done: Callable[[T], None], on_error: Callable[[FileTrouble], None]
    ) -> None:
        """Call `function` on another thread, then a callback on the owner's; not once closed."""

        def call() -> None:
            try:
                value = function()
            except (QuantStudioError, OSError, ValueError, KeyError) as error:
                self._call_soon(partial(self._answer, partial(on_error, error)))
            else:
                self._call_soon(partial(self._answer, partial(on_done, value)))

        if self._is_closed:
            return
        with self._guard:
            self._answers += 1
        self._pending = {future for future in self._pending if not future.done()}
        self._pending.add(self._pool.submit(call))

    def wait(self, timeout_s: float | None = 3.0) -> bool:
        """Whether everything under way ended in time; the answers come when the owner's loop turns."""
        return not wait(self._pending, timeout=timeout_s).not_done

    def close(self) -> None:
        """Finish what is under way and take no more."""
        self._is_closed = True
        self._pool.shutdown(wait=self.wait(), cancel_futures=True)

    def _answer(self, callback: Callable[[], None]) -> None:
        with self._guard:
            self._answers -= 1
        callback()
