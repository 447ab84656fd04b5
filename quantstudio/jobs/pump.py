"""The owner's thread of a queue where there is no event loop: a script, a notebook, a test."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable


class Pump:
    """Takes functions from any thread and runs them, in order, on the thread that pumps.

    `call_soon` is what a `JobQueue` asks for.
    """

    def __init__(self) -> None:
        self._functions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def call_soon(self, function: Callable[[], None]) -> None:
        """Run `function` when the owner pumps; called on any thread."""
        self._functions.put(function)

    def run_until(self, is_done: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Run what comes until `is_done`, which is asked again after every function.

        Args:
            is_done: Whether to return.
            timeout_s: Longest time to wait, in seconds; None waits as long as it takes.

        Returns:
            Whether it is done; False after the timeout.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not is_done():
            try:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                function = self._functions.get(timeout=left)
            except queue.Empty:
                return False
            function()
        return True
