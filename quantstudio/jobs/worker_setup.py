"""What a worker arranges around itself before it imports anything heavy."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

import psutil

from quantstudio.core.cores import allowed_cores

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# Enough for the window to win every contest for a core, little enough to finish on a busy machine.
NICENESS = 5


def thread_limit() -> int:
    """Threads of a worker unless the user says otherwise: one of the cores it may use is the window's."""
    return max(1, allowed_cores(psutil.cpu_count(logical=False) or psutil.cpu_count() or 2) - 1)


def set_thread_limits() -> int:
    """Leave one of the cores the worker may use to the window; a limit the user has set is kept.

    Returns:
        The limit.
    """
    threads = thread_limit()
    for variable in THREAD_VARIABLES:
        os.environ.setdefault(variable, str(threads))
    return threads


def lower_priority() -> None:
    """Let the window go first; where the system refuses, the worker runs as it is."""
    with contextlib.suppress(OSError, psutil.Error):
        if sys.platform == "win32":
            psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            os.nice(NICENESS)


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The protocol's two ends, out of reach of everyone else.

    Standard output is pointed at standard error, so whatever a library or a child process prints cannot get
    between two messages; standard input becomes empty, so a child process cannot eat commands.
    """
    commands = os.fdopen(os.dup(0), "rb")
    messages = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return commands, messages


def ignore_interrupts() -> None:
    """Ctrl+C in a terminal belongs to the program that owns the worker; native crashes leave a stack."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, ValueError):
        faulthandler.enable()


def use_folder(folder: Path) -> None:
    """Put this process's temporary files, and those of its children, into `folder`."""
    for variable in ("TMPDIR", "TEMP", "TMP"):
        os.environ[variable] = str(folder)
    tempfile.tempdir = str(folder)


def exit_at_once(folder: Path | None, code: int) -> None:
    """Leave without unwinding: a native call may hold the main thread for minutes.

    Only the worker's own temporary files are removed; its children end with it.
    """
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(code)
