"""What judges variants here: which runtime, on how many threads, and how much memory all of it takes."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import psutil

from quantstudio.jobs.worker_setup import thread_limit
from quantstudio.workspace.values import EngineOptions

_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


def runtime_name() -> str:
    """The runtime that judges, as it is installed: "ONNX Runtime 1.31.1"; this process never loads it."""
    for package in _RUNTIMES:
        try:
            return f"ONNX Runtime {version(package)}"
        except PackageNotFoundError:
            continue
    return "ONNX Runtime"


def threads_of(options: EngineOptions) -> int:
    """Threads the runtime measures with."""
    return options.threads or thread_limit()


def memory_in_use() -> int:
    """Bytes that this process and its workers hold; 0 where the system does not say."""
    try:
        own = psutil.Process()
        everyone = [own, *own.children(recursive=True)]
    except (psutil.Error, OSError):
        return 0
    return sum(_resident(process) for process in everyone)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except (psutil.Error, OSError):
        return 0  # it has just ended
