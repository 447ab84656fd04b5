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
from functools import partial
from types import FrameType
from typing import Any, NoReturn, TypeVar, cast

from quantstudio.cli.progress import TerminalReporter
from quantstudio.cli.wording import worded
from quantstudio.core.errors import JobCancelled, in_one_line
from quantstudio.core.events import CancelToken
from quantstudio.core.files import discard_unfinished
from quantstudio.jobs.execution import Outcome, call_task, ended_by

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
        call = partial(call_task, task, parameters, reporter, token)
        is_main = threading.current_thread() is threading.main_thread()
        outcome = _interruptible(call, token) if is_main else call()
    if outcome.error is not None:
        raise outcome.error
    return cast("T", outcome.result)


def _interruptible(call: Callable[[], Outcome[T]], token: CancelToken) -> Outcome[T]:
    with _interrupt_sets(token):
        threads = ThreadPoolExecutor(1, thread_name_prefix=_THREAD)
        running = threads.submit(call)
        try:
            return _awaited(running, token)
        finally:
            threads.shutdown(wait=running.done())


def _awaited(running: Future[Outcome[T]], token: CancelToken) -> Outcome[T]:
    deadline = math.inf
    while True:
        try:
            return running.result(timeout=_POLL_SECONDS)
        except TimeoutError:  # the task's own would be in its outcome
            pass
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
    info = ended_by(error).error
    if info is None:
        sys.stderr.write("quantstudio: cancelled\n")
        return CANCELLED
    line = in_one_line(info.what, info.where, worded(info.hint))
    report = f" A report is in {info.report_path}" if info.report_path else ""
    sys.stderr.write(f"quantstudio: {line}{report}\n")
    return info.exit_code
