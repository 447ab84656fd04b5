"""What a test may leave behind: nothing. Compares threads, processes, windows and files before and after."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

# What was told to end may need a moment, more of it on a busy machine.
GRACE_S = 120.0
# Caches that libraries make once and keep: compiled kernels of torch, settings of Qt's platform.
_LIBRARY_FILES = ("torchinductor_", ".ses", "pymp-", "numba-")
# Threads they start once and keep: the watch over progress bars that torch's exporter draws.
_LIBRARY_THREADS = ("tqdm_monitor",)

_REMEDIES = {
    "thread": "join it, or close what started it",
    "process": "close its runner, or wait for it (`with subprocess.Popen(...)`)",
    "window": "hand it to `qtbot.addWidget`, or close and `deleteLater` it",
    "temporary file": "write below `tmp_path`, or remove it (`with TemporaryDirectory()`)",
}


@dataclass(frozen=True)
class Belongings:
    """What lives now, by kind: an identity and a text for people."""

    things: dict[tuple[str, int | str], str]

    @classmethod
    def now(cls, temporary: Path) -> Belongings:
        """Look; `temporary` is the folder that `tempfile` writes to."""
        found: dict[tuple[str, int | str], str] = {}
        for thread in threading.enumerate():
            if thread.name not in _LIBRARY_THREADS:
                found["thread", id(thread)] = thread.name
        for pid in _children():
            found["process", pid] = f"{pid}"
        found |= _windows()
        for name in os.listdir(temporary):  # noqa: PTH208  a hundred times a second
            if not name.startswith(_LIBRARY_FILES):
                found["temporary file", name] = name
        return cls(found)

    def new_in(self, later: Belongings) -> list[str]:
        """Lines about what is there later and was not now."""
        new = [key for key in later.things if key not in self.things]
        return [f"{key[0]} {_described(key, later.things[key])}: {_REMEDIES[key[0]]}" for key in new]


@contextmanager
def nothing_left(temporary: Path, who: str) -> Iterator[None]:
    """Fail when the block leaves something behind; what was there before it, shared on purpose, may stay."""
    before = Belongings.now(temporary)
    yield
    left = before.new_in(Belongings.now(temporary))
    end = time.monotonic() + GRACE_S
    while left and time.monotonic() < end:
        time.sleep(0.01)
        left = before.new_in(Belongings.now(temporary))
    if left:
        pytest.fail(f"{who} leaves behind:\n  " + "\n  ".join(left), pytrace=False)


def _described(key: tuple[str, int | str], text: str) -> str:
    if key[0] != "process":
        return repr(text)
    try:
        return f"{text} ({' '.join(psutil.Process(int(key[1])).cmdline())[:150]})"
    except psutil.Error:
        return f"{text} (just ended)"


def _children() -> set[int]:
    """Ids of the processes started here that still run."""
    if sys.platform != "linux":
        return {child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}
    # The kernel's own list; looking through all processes of the machine, as psutil does, takes 5 ms.
    tasks = os.listdir("/proc/self/task")  # noqa: PTH208
    return {pid for task in tasks for pid in _children_of(task) if _is_running(pid)}


def _children_of(task: str) -> list[int]:
    try:
        with open(f"/proc/self/task/{task}/children", encoding="ascii") as file:  # noqa: PTH123
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []  # the thread has just ended


def _is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _windows() -> dict[tuple[str, int | str], str]:
    """Windows that nobody owns; a dialog or menu with a parent goes with it, unless it still shows."""
    if "PySide6.QtWidgets" not in sys.modules:
        return {}
    from PySide6.QtCore import QCoreApplication, QEvent
    from PySide6.QtWidgets import QApplication
    from shiboken6 import getCppPointer, isValid

    if QApplication.instance() is None:
        return {}
    # Only a running event loop deletes what asked for it.
    QCoreApplication.processEvents()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    found: dict[tuple[str, int | str], str] = {}
    for widget in QApplication.topLevelWidgets():
        if isValid(widget) and (widget.parent() is None or widget.isVisible()):
            found["window", getCppPointer(widget)[0]] = (
                f"{type(widget).__name__} {widget.objectName()}".rstrip()
            )
    return found
