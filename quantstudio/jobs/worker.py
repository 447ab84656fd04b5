"""The worker process: `python -m quantstudio.jobs.worker`.

Commands come on standard input and messages leave on standard output, one JSON line each (see `protocol`).
Tasks run on the main thread, one at a time. When standard input closes, the program that owned the worker is
gone, and so, after a grace period for the running task, is the worker.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from quantstudio.core.events import CancelToken, Event, Timing
from quantstudio.jobs import worker_setup
from quantstudio.jobs.execution import run_task
from quantstudio.jobs.protocol import (
    AllowTiming,
    Beat,
    Cancel,
    Command,
    Finish,
    Hello,
    JobEvent,
    Pause,
    Ping,
    Pong,
    ProtocolError,
    Resume,
    Run,
    Shutdown,
    Started,
    WorkerMessage,
    decode_command,
    encode,
)
from quantstudio.jobs.reporters import PROGRESS_INTERVAL_S, EventReporter, working_clock
from quantstudio.jobs.spec import TASK_PREFIXES, JobSpec

BEAT_INTERVAL_S = 1.0
ORPHAN_GRACE_S = 2.0
_TOKEN_ACTIONS: dict[type[Command], Callable[[CancelToken], None]] = {
    Cancel: CancelToken.set,
    Finish: CancelToken.finish,
    Pause: CancelToken.pause,
    Resume: CancelToken.resume,
    AllowTiming: CancelToken.allow_timing,
}

logger = logging.getLogger(__name__)


class Worker:
    """Reads commands on one thread, runs tasks on the calling one, beats on a third.

    Args:
        commands: Where commands are read.
        messages: Where messages are written; unbuffered.
        prefixes: Modules whose functions are tasks.
        modules: Imported before the first job, which may come while that goes on.
        leave: Ends the process at once; called when the owner is gone and the task does not stop.
        orphan_grace_s: Time a running task gets to stop once the owner is gone.
    """

    def __init__(
        self,
        commands: BinaryIO,
        messages: BinaryIO,
        *,
        prefixes: Sequence[str] = TASK_PREFIXES,
        modules: Sequence[str] = (),
        leave: Callable[[], None],
        orphan_grace_s: float = ORPHAN_GRACE_S,
    ) -> None:
        self._commands = commands
        self._messages = messages
        self._prefixes = tuple(prefixes)
        self._modules = tuple(modules)
        self._leave = leave
        self._orphan_grace_s = orphan_grace_s
        self._write_lock = threading.Lock()
        self._tokens: dict[str, CancelToken] = {}
        self._inbox: queue.SimpleQueue[JobSpec | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._reporter: EventReporter | None = None
        self._job = ""

    def serve(self) -> None:
        """Run jobs until told to shut down or the owner is gone."""
        self._send(Hello(os.getpid()))
        reader = threading.Thread(target=self._read, name="commands", daemon=True)
        beats = threading.Thread(target=self._beat, name="beats", daemon=True)
        reader.start()
        beats.start()
        for module in self._modules:
            _import(module)
        while (spec := self._inbox.get()) is not None:
            self._run(spec)
        self._ended.set()
        beats.join()

    def _run(self, spec: JobSpec) -> None:
        token = self._tokens[spec.id]
        reporter = EventReporter(lambda event: self._send_event(spec.id, event), clock=working_clock(token))
        self._send(Started(spec.id))
        self._job, self._reporter = spec.id, reporter
        try:
            ended = run_task(spec, reporter, token, prefixes=self._prefixes)
        finally:
            self._job, self._reporter = "", None
        reporter.flush(final=True)
        self._tokens.pop(spec.id, None)
        self._send_event(spec.id, ended)

    def _read(self) -> None:
        try:
            for line in self._commands:
                if not self._follow(line):
                    break
        finally:
            self._stop()

    def _follow(self, line: bytes) -> bool:
        """Whether to go on reading."""
        try:
            command = decode_command(line)
        except ProtocolError:
            logger.exception("The owner sent something that is not a command")
            return False
        if isinstance(command, Run):
            # The token exists before the job is taken up: a cancel right behind the run finds it.
            token = self._tokens[command.spec.id] = self._token(command.spec)
            if command.is_paused:
                token.pause()
            self._inbox.put(command.spec)
        elif isinstance(command, Cancel | Finish | Pause | Resume | AllowTiming):
            if asked := self._tokens.get(command.job):
                _TOKEN_ACTIONS[type(command)](asked)
        elif isinstance(command, Ping):
            self._send(Pong(command.number))
        return not isinstance(command, Shutdown)

    def _token(self, spec: JobSpec) -> CancelToken:
        if not spec.asks_to_time:
            return CancelToken()
        return CancelToken(on_timing=lambda begins: self._send_event(spec.id, Timing(begins)))

    def _stop(self) -> None:
        """Ask everything to stop; leave when it has, or when the grace period is over."""
        for token in list(self._tokens.values()):
            token.set()
        self._inbox.put(None)
        if not self._ended.wait(self._orphan_grace_s):
            self._leave()

    def _beat(self) -> None:
        next_beat = time.monotonic() + BEAT_INTERVAL_S
        while not self._ended.wait(PROGRESS_INTERVAL_S if self._job else BEAT_INTERVAL_S / 4):
            reporter = self._reporter
            if reporter is not None:
                reporter.flush()
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + BEAT_INTERVAL_S
                quiet = reporter.quiet_s if reporter is not None else 0.0
                self._send(Beat(self._job, quiet, time.process_time()))

    def _send_event(self, job: str, event: Event) -> None:
        self._send(JobEvent(job, event))

    def _send(self, message: WorkerMessage) -> None:
        data = memoryview(encode(message))
        try:
            with self._write_lock:
                while data:
                    data = data[self._messages.write(data) :]
        except OSError:
            # Nobody listens any more; the reading thread sees the same and ends the worker.
            logger.debug("The owner is gone")


def _import(module: str) -> None:
    """Have a module there; one that cannot be imported fails the job that needs it, with its reason."""
    try:
        importlib.import_module(module)
    except ImportError:
        logger.exception("Cannot import %s ahead of time", module)


def main(arguments: Sequence[str] | None = None) -> int:
    """Set the process up and serve."""
    parser = argparse.ArgumentParser(prog="python -m quantstudio.jobs.worker")
    parser.add_argument("--folder", type=Path, help="temporary files of this worker; removed with it")
    parser.add_argument("--tasks-under", action="append", default=[], help="more modules that hold tasks")
    parser.add_argument("--import", dest="modules", action="append", default=[], help="load before any job")
    parser.add_argument("--urgent", action="store_true", help="do not give way to other programs")
    options = parser.parse_args(arguments)
    commands, messages = worker_setup.take_pipes()
    worker_setup.ignore_interrupts()
    worker_setup.set_thread_limits()
    if not options.urgent:
        worker_setup.lower_priority()
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if options.folder is not None:
        worker_setup.use_folder(options.folder)
    worker = Worker(
        commands,
        messages,
        prefixes=(*TASK_PREFIXES, *options.tasks_under),
        modules=options.modules,
        leave=lambda: worker_setup.exit_at_once(options.folder, 3),
    )
    worker.serve()
    worker_setup.exit_at_once(options.folder, 0)
    return 0


if __name__ == "__main__":
    main()
