"""Running engine tasks in the command's own process: progress, Ctrl+C, exit codes."""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from quantstudio.cli.progress import TerminalReporter
from quantstudio.core.errors import QuantStudioError
from quantstudio.core.events import CancelToken
from quantstudio.core.files import write_text
from quantstudio.core.folders import config_folder

T = TypeVar("T")


def run_task(task: Callable[..., T], **parameters: Any) -> T:  # noqa: ANN401  tasks have their own signatures
    """Result of an engine task, with a progress bar on a terminal; Ctrl+C cancels it cleanly.

    Raises:
        QuantStudioError: whatever the task raises.
        JobCancelled: Ctrl+C.
    """
    token = CancelToken()
    with _interrupt_sets(token), TerminalReporter() as reporter:
        return task(reporter=reporter, cancel=token, **parameters)


@contextmanager
def _interrupt_sets(token: CancelToken) -> Iterator[None]:
    """The first Ctrl+C asks politely, the second stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        if token.is_set():
            raise KeyboardInterrupt
        token.set()

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def exit_code_of(error: BaseException) -> int:
    """Print an error in one line on standard error and say what the process exits with.

    User errors 2, cancelled 130, internal faults 1 with the path of a saved report.
    """
    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write("quantstudio: cancelled\n")
        return 130
    if isinstance(error, QuantStudioError):
        sys.stderr.write(f"quantstudio: {error.one_line}\n")
        return error.exit_code
    if isinstance(error, MemoryError):
        sys.stderr.write("quantstudio: out of memory. Use fewer samples or a smaller batch.\n")
        return 1
    sys.stderr.write(f"quantstudio: internal error ({type(error).__name__}). {_saved_report(error)}\n")
    return 1


def _saved_report(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    try:
        folder = config_folder() / "reports"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"crash-{time.strftime('%Y%m%d-%H%M%S')}.txt"
        write_text(path, f"arguments: {sys.argv[1:]}\n\n{text}")
    except (OSError, QuantStudioError) as cannot:
        return f"The report could not be saved ({cannot})"
    return f"A report is in {path}"
