"""Running engine tasks in the command's own process: progress, Ctrl+C, exit codes."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import Any, NoReturn, TypeVar

from quantstudio.cli.progress import TerminalReporter
from quantstudio.core.errors import JobCancelled, in_one_line
from quantstudio.core.events import CancelToken
from quantstudio.core.files import discard_unfinished
from quantstudio.jobs.execution import error_info

T = TypeVar("T")

CANCELLED = JobCancelled.exit_code

# A task looks at its token at every batch and layer; one that is deep in a native call is left behind.
GRACE_SECONDS = 1.0
_POLL_SECONDS = 0.05
_THREAD = "quantstudio-task"


class Abandoned(KeyboardInterrupt):
    """Ctrl+C, and the task did not stop in time: its thread still runs."""


def run_task(task: Callable[..., T], **parameters: Any) -> T:  # noqa: ANN401  tasks have their own signatures
    """Result of an engine task, with a progress bar on a terminal; Ctrl+C cancels it cleanly.

    The task runs in a thread: Python handles signals in the main thread only between native calls.

    Raises:
        QuantStudioError: whatever the task raises.
        JobCancelled: Ctrl+C.
        Abandoned: Ctrl+C, and the task did not stop within `GRACE_SECONDS`, or Ctrl+C twice.
    """
    token = CancelToken()
    # Standard output belongs to the result: what a factory of the user prints must not get into the JSON.
    with TerminalReporter() as reporter, redirect_stdout(sys.stderr):
        if threading.current_thread() is not threading.main_thread():
            return task(reporter=reporter, cancel=token, **parameters)
        with _interrupt_sets(token):
            threads = ThreadPoolExecutor(1, thread_name_prefix=_THREAD)
            outcome = threads.submit(task, reporter=reporter, cancel=token, **parameters)
            try:
                return _awaited(outcome, token)
            finally:
                threads.shutdown(wait=outcome.done())


def _awaited(outcome: Future[T], token: CancelToken) -> T:
    deadline = math.inf
    while True:
        try:
            return outcome.result(timeout=_POLL_SECONDS)
        except TimeoutError:
            if outcome.done():
                raise  # the task's own
        if token.is_set():
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() > deadline:
            raise Abandoned


@contextmanager
def _interrupt_sets(token: CancelToken) -> Iterator[None]:
    """The first Ctrl+C asks politely, the second stops at once."""

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        if token.is_set():
            raise Abandoned
        token.set()

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def leave(code: int) -> NoReturn:
    """End the process with this code, also while an abandoned task still runs."""
    if not any(thread.name.startswith(_THREAD) for thread in threading.enumerate()):
        sys.exit(code)
    # Waiting for native threads at interpreter exit would hang or crash; files must not be left half written.
    discard_unfinished()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def exit_code_of(error: BaseException) -> int:
    """Print an error in one line on standard error and say what the process exits with.

    User errors 2, cancelled 130, internal faults 1 with the path of a saved report.
    """
    if isinstance(error, KeyboardInterrupt | JobCancelled):
        sys.stderr.write("quantstudio: cancelled\n")
        return CANCELLED
    info = error_info(error)
    line = in_one_line(info.what, info.where, info.hint)
    report = f" A report is in {info.report_path}" if info.report_path else ""
    sys.stderr.write(f"quantstudio: {line}{report}\n")
    return info.exit_code
