"""Tiny tasks that do what real ones do at their worst."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import CancelToken, Reporter, Severity
from tests.parts import layer_found
from tests.waiting import PATIENCE_S

PREFIX = "tests.jobs."
RELEASED = threading.Event()


@dataclass(frozen=True, slots=True)
class Counted:
    numbers: tuple[int, ...]
    mean: float


def count(to: int, *, reporter: Reporter, cancel: CancelToken, seconds: float = 0.0) -> Counted:
    """Finishes a layer a step."""
    for i in range(to):
        cancel.raise_if_set()
        time.sleep(seconds)
        reporter.found(layer_found(f"layer{i}", i / 2))
        reporter.progress(i + 1, to, "layers", "Counting")
    return Counted(tuple(range(to)), (to - 1) / 2)


def be_deaf(*, reporter: Reporter, cancel: CancelToken) -> None:
    """Hears no cancel; ends when the test says so, which runs it on a thread of its own process."""
    assert RELEASED.wait(PATIENCE_S)


def time_runs(*, reporter: Reporter, cancel: CancelToken) -> None:
    """Times runs, alone on the machine as far as we go."""
    with cancel.timing(), cancel.timing():
        reporter.found(layer_found("timed"))


def wait_for_cancel(*, reporter: Reporter, cancel: CancelToken) -> None:
    """Obeys a cancel within a few milliseconds."""
    reporter.found(layer_found("first"))
    while True:
        cancel.raise_if_set()
        time.sleep(0.005)


def wait_to_finish(*, reporter: Reporter, cancel: CancelToken) -> None:
    """Goes on until it is told to end with what it has."""
    reporter.found(layer_found("first"))
    while not cancel.is_asked_to_finish:
        cancel.raise_if_set()
        time.sleep(0.005)


def ignore_cancel(*, reporter: Reporter, cancel: CancelToken) -> None:
    """Hangs, deaf."""
    reporter.found(layer_found("first"))
    while True:
        time.sleep(0.05)


def die(signal_name: str, *, reporter: Reporter, cancel: CancelToken) -> None:
    """Ends by a signal, as a native crash or the kernel's memory killer does."""
    reporter.found(layer_found("first"))
    if signal_name == "SIGSEGV":
        ctypes.string_at(0)
    os.kill(os.getpid(), getattr(signal, signal_name))


def exit_with(code: int, *, reporter: Reporter, cancel: CancelToken) -> None:
    """Ends the process as a library's own exit would."""
    os._exit(code)


def call_sys_exit(*, reporter: Reporter, cancel: CancelToken) -> None:
    """What an argument parser does to its caller."""
    sys.exit(4)


def fail_for_user(*, reporter: Reporter, cancel: CancelToken) -> None:
    raise CalibrationError("tensor holds infinities", where="/conv/out", hint="Clip it")


def fail_inside(*, reporter: Reporter, cancel: CancelToken) -> None:
    raise KeyError("weights")


def run_out_of_memory(*, reporter: Reporter, cancel: CancelToken, native: bool = False) -> None:
    if native:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
    raise MemoryError


def fill_disk(path: str, *, reporter: Reporter, cancel: CancelToken) -> None:
    raise OSError(28, "No space left on device", path)


def print_everywhere(*, reporter: Reporter, cancel: CancelToken) -> dict[str, Any]:
    """Prints where the protocol would be, from Python, from C, and from a child process that reads too."""
    print("from Python")  # noqa: T201
    with os.fdopen(os.dup(1), "w") as stream:
        stream.write("from another stream\n")
    os.write(1, b'{"v":1,"type":"hello","pid":0}\n')
    child = subprocess.run(
        [sys.executable, "-c", "import sys; print('child', len(sys.stdin.read()))"], check=True, timeout=20
    )
    return {"child": child.returncode}


def talk_much(*, reporter: Reporter, cancel: CancelToken, size: int = 3_000_000) -> dict[str, Any]:
    """A result far larger than a pipe's buffer."""
    reporter.message("ä" * 1000, Severity.WARNING)
    return {"text": "x" * size}


def return_number(*, reporter: Reporter, cancel: CancelToken) -> Any:
    return 3


def echo(values: Mapping[str, Any], *, reporter: Reporter, cancel: CancelToken) -> Mapping[str, Any]:
    return values


def describe_process(*, reporter: Reporter, cancel: CancelToken) -> dict[str, Any]:
    """What the worker arranged around itself."""
    with tempfile.NamedTemporaryFile(delete=False) as file:
        folder = str(Path(file.name).parent)
    return {
        "pid": os.getpid(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "nice": os.nice(0) if hasattr(os, "nice") else None,
        "temporary": folder,
        "path0": sys.path[0],
        "is_ready": "colorsys" in sys.modules,
        "heavy": sorted({"torch", "onnx", "onnxruntime", "PySide6"} & set(sys.modules)),
    }


def start_child_and_hang(*, reporter: Reporter, cancel: CancelToken) -> None:
    """A job with a process of its own, as a footprint measurement is."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    reporter.message(str(child.pid))
    while True:
        time.sleep(0.05)


def _hidden(*, reporter: Reporter, cancel: CancelToken) -> None:
    raise AssertionError("a private function is not a task")


NOT_CALLABLE = 3
