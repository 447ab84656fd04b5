"""One spawned worker as its owner holds it: pipes, threads that serve them, its folder, its end."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path

import psutil

from quantstudio.core.errors import OutputError
from quantstudio.core.folders import cache_folder, config_folder
from quantstudio.core.version import ROOT
from quantstudio.jobs.protocol import Command, encode

STDERR_TAIL_LINES = 60
FINISH_TIMEOUT_S = 1.0
LOG_BYTES = 1_000_000
LOG_FILES = 2

# What a person can make of the signal or the status a process ended with.
_SIGNAL_MEANINGS = {
    "SIGSEGV": "a crash in native code",
    "SIGBUS": "a crash in native code",
    "SIGILL": "an instruction this processor does not have",
    "SIGFPE": "an arithmetic fault in native code",
    "SIGABRT": "native code gave up",
    "SIGKILL": "killed, often because memory ran out",
    "SIGTERM": "told to end by another program",
}
_WINDOWS_STATUSES = {
    0xC0000005: "access violation, a crash in native code",
    0xC00000FD: "stack overflow",
    0xC0000017: "no memory",
    0xC0000409: "native code gave up",
    0xC000001D: "an instruction this processor does not have",
}


def exit_text(code: int) -> str:
    """How a process ended, in words: "SIGSEGV, a crash in native code" or "exit code 7"."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        meaning = _SIGNAL_MEANINGS.get(name)
        return f"{name}, {meaning}" if meaning else name
    status = code & 0xFFFFFFFF
    if status in _WINDOWS_STATUSES:
        return f"0x{status:08X}, {_WINDOWS_STATUSES[status]}"
    return f"exit code {code}"


class WorkerProcess:
    """A running worker. Nothing here blocks but `finish`, which waits for a process that is already ending.

    Args:
        on_line: Gets each line of the worker's output, on a thread of its own.
        on_end: Called on that thread when the output has ended.
        tasks_under: More module prefixes whose functions are tasks.
        is_urgent: Whether it competes with the window instead of giving way to it.
        modules: What it imports as soon as it runs.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(
        self,
        on_line: Callable[[bytes], None],
        on_end: Callable[[], None],
        *,
        tasks_under: Sequence[str] = (),
        is_urgent: bool = False,
        modules: Sequence[str] = (),
    ) -> None:
        self._on_line = on_line
        self._on_end = on_end
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._tail: deque[str] = deque(maxlen=STDERR_TAIL_LINES)
        self._folder = _own_folder()
        try:
            self._process = self._spawn(tasks_under, modules, is_urgent=is_urgent)
        except OSError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._threads = [
            threading.Thread(target=target, name=f"worker-{name}-{self.pid}", daemon=True)
            for name, target in (("out", self._read), ("err", self._keep_stderr), ("in", self._write))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def stderr_tail(self) -> str:
        """The last lines the worker wrote to standard error."""
        return "\n".join(self._tail)

    def send(self, command: Command) -> None:
        """Queue a command; a worker that does not read cannot hold the caller up."""
        self._outbox.put(encode(command))

    def terminate(self) -> None:
        """Ask the system to end it."""
        with contextlib.suppress(OSError):
            self._process.terminate()

    def kill(self) -> None:
        """End it and every process it started."""
        if os.name == "posix":
            # It leads its own session. While it is not reaped its id cannot belong to anyone else.
            if self._process.returncode is None:
                with contextlib.suppress(OSError):
                    os.killpg(self.pid, signal.SIGKILL)
            return
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.pid).children(recursive=True):
                child.kill()
        with contextlib.suppress(OSError):
            self._process.kill()

    def finish(self) -> int:
        """Its exit code, once its output has ended; leaves no thread, pipe, folder or child process."""
        self.kill()
        try:
            code = self._process.wait(FINISH_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # A process in the middle of a system call that cannot be interrupted ends when that returns.
            code = -getattr(signal, "SIGKILL", 9)
        self._outbox.put(None)
        for thread in self._threads:
            thread.join(FINISH_TIMEOUT_S)
        shutil.rmtree(self._folder, ignore_errors=True)
        return code

    def _spawn(
        self, tasks_under: Sequence[str], modules: Sequence[str], *, is_urgent: bool
    ) -> subprocess.Popen[bytes]:
        # -P: a file called torch.py in the folder the user works in must not be imported.
        command = [sys.executable, "-P", "-u", "-m", "quantstudio.jobs.worker", "--folder", str(self._folder)]
        for prefix in tasks_under:
            command += ["--tasks-under", prefix]
        for module in modules:
            command += ["--import", module]
        if is_urgent:
            command.append("--urgent")
        root = str(ROOT)
        paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"}
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._on_line(line)
        self._on_end()

    def _write(self) -> None:
        assert self._process.stdin is not None
        try:
            with self._process.stdin as commands:
                while (line := self._outbox.get()) is not None:
                    commands.write(line)
                    commands.flush()
        except OSError:
            # The worker has ended; the reading thread says so.
            logging.getLogger(__name__).debug("Worker %d reads no more", self.pid)

    def _keep_stderr(self) -> None:
        assert self._process.stderr is not None
        log = _open_log()
        with self._process.stderr as errors:
            for line in errors:
                text = line.decode("utf-8", "replace").rstrip()
                self._tail.append(text)
                if log is not None:
                    log.emit(logging.makeLogRecord({"msg": f"[{self.pid}] {text}"}))
        if log is not None:
            log.close()


def _open_log() -> RotatingFileHandler | None:
    try:
        folder = config_folder() / "logs"
        folder.mkdir(exist_ok=True)
        return RotatingFileHandler(
            folder / "worker.log", maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", delay=True
        )
    except (OSError, OutputError):
        # The tail in memory is what a crash report needs; a log on disk is a convenience.
        return None


def _own_folder() -> Path:
    """A folder for one worker's temporary files; those of owners that died are removed on the way."""
    try:
        workers = cache_folder("workers")
        for old in workers.iterdir():
            owner = old.name.partition("-")[0]
            if owner.isdecimal() and not psutil.pid_exists(int(owner)):
                shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=workers))
    except (OSError, OutputError):
        # Only jobs that need the cache end without it, and say so.
        return Path(tempfile.mkdtemp(prefix=f"quantstudio-{os.getpid()}-"))
