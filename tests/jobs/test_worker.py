"""The worker's loop in this process, between two pipes."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import psutil
import pytest

from quantstudio.core.events import JobEnded, JobState, PartFound, Progress
from quantstudio.jobs import worker as worker_module
from quantstudio.jobs import worker_setup
from quantstudio.jobs.protocol import (
    Beat,
    Cancel,
    Command,
    Hello,
    JobEvent,
    Ping,
    Pong,
    Run,
    Shutdown,
    Started,
    WorkerMessage,
    decode_message,
    encode,
)
from quantstudio.jobs.spec import JobSpec
from quantstudio.jobs.worker import Worker
from tests.jobs.fake_tasks import PREFIX, RELEASED
from tests.waiting import PATIENCE_S


class Link:
    """The owner's ends of a worker that runs on a thread here."""

    def __init__(self) -> None:
        read_commands, write_commands = os.pipe()
        read_messages, write_messages = os.pipe()
        self.commands: BinaryIO = os.fdopen(write_commands, "wb", buffering=0)
        self.messages: BinaryIO = os.fdopen(read_messages, "rb")
        self.left = threading.Event()
        self._inner: list[BinaryIO] = [
            os.fdopen(read_commands, "rb"),
            os.fdopen(write_messages, "wb", buffering=0),
        ]
        worker = Worker(
            self._inner[0], self._inner[1], prefixes=[PREFIX], leave=self.left.set, orphan_grace_s=0.2
        )
        self.thread = threading.Thread(target=worker.serve, daemon=True)
        self.thread.start()

    def send(self, command: Command) -> None:
        self.commands.write(encode(command))

    def read_until(self, kind: type[WorkerMessage]) -> list[WorkerMessage]:
        found: list[WorkerMessage] = []
        while not found or not isinstance(found[-1], kind):
            found.append(decode_message(self.messages.readline()))
        return found

    def read_to_end(self, job: str) -> list[WorkerMessage]:
        found: list[WorkerMessage] = []
        while True:
            message = decode_message(self.messages.readline())
            found.append(message)
            if isinstance(message, JobEvent) and message.job == job and isinstance(message.event, JobEnded):
                return found

    def close(self) -> None:
        if not self.commands.closed:
            self.commands.close()
        self.thread.join(5)
        for file in (*self._inner, self.messages):
            file.close()


@pytest.fixture
def link() -> Iterator[Link]:
    made = Link()
    yield made
    made.close()
    assert not made.thread.is_alive()


def test_that_a_worker_says_hello_then_runs_and_answers(link: Link) -> None:
    link.send(Ping(7))
    assert link.read_until(Pong) == [Hello(os.getpid()), Pong(7)]
    link.send(Run(JobSpec("a", "tests.jobs.fake_tasks:count", {"to": 2})))
    messages = link.read_to_end("a")
    assert messages[0] == Started("a")
    said = [m.event for m in messages if isinstance(m, JobEvent)]
    assert sum(isinstance(event, PartFound) for event in said) == 2
    assert isinstance(said[-2], Progress)
    assert said[-1] == JobEnded(JobState.SUCCEEDED, {"numbers": [0, 1], "mean": 0.5})
    link.send(Shutdown())
    link.thread.join(5)
    assert not link.left.is_set()


def test_that_a_worker_has_its_modules_before_the_first_job_and_outlives_one_it_cannot_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    imported: list[str] = []

    def note(name: str) -> None:
        imported.append(name)
        raise ImportError(name)

    monkeypatch.setattr("quantstudio.jobs.worker.importlib.import_module", note)
    commands = io.BytesIO(encode(Shutdown()))
    Worker(commands, io.BytesIO(), modules=["a.b"], leave=lambda: None).serve()
    assert imported == ["a.b"]


def test_that_a_cancel_right_behind_its_run_is_not_lost(link: Link) -> None:
    link.send(Run(JobSpec("a", "tests.jobs.fake_tasks:wait_for_cancel")))
    link.send(Cancel("a"))
    link.send(Cancel("nobody"))
    messages = link.read_to_end("a")
    assert messages[-1] == JobEvent("a", JobEnded(JobState.CANCELLED))


def test_that_a_worker_beats_while_a_job_runs(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "BEAT_INTERVAL_S", 0.02)
    link.send(Run(JobSpec("a", "tests.jobs.fake_tasks:wait_for_cancel")))
    link.send(Ping(1))
    beat = link.read_until(Beat)[-1]
    assert isinstance(beat, Beat)
    assert beat.cpu_s > 0
    link.send(Cancel("a"))
    link.read_to_end("a")


def test_that_a_worker_stops_when_its_owner_closes_the_pipe(link: Link) -> None:
    link.send(Run(JobSpec("a", "tests.jobs.fake_tasks:wait_for_cancel")))
    link.read_until(Started)
    link.commands.close()
    link.thread.join(5)
    assert not link.thread.is_alive()
    assert not link.left.is_set()


def test_that_a_worker_with_a_deaf_task_leaves_when_its_owner_is_gone(link: Link) -> None:
    RELEASED.clear()
    link.send(Run(JobSpec("a", "tests.jobs.fake_tasks:be_deaf")))
    link.read_until(Started)
    link.commands.close()
    try:
        assert link.left.wait(PATIENCE_S)
    finally:
        RELEASED.set()


def test_that_a_worker_stops_at_a_line_it_does_not_understand(
    link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    link.commands.write(b"rubbish\n")
    link.thread.join(5)
    assert not link.thread.is_alive()
    assert "not a command" in caplog.text


def test_that_a_worker_nobody_reads_does_not_fail(link: Link) -> None:
    link.read_until(Hello)
    link.messages.close()
    link.send(Run(JobSpec("a", "tests.jobs.fake_tasks:count", {"to": 1})))
    link.send(Shutdown())
    link.thread.join(5)
    assert not link.thread.is_alive()


def test_that_a_users_thread_limit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in worker_setup.THREAD_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8 if logical else 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("quantstudio.core.cores._quota", lambda: None)
    assert worker_setup.set_thread_limits() == 3
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["MKL_NUM_THREADS"] == "3"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert worker_setup.set_thread_limits() == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 1)
    worker_setup.set_thread_limits()
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_that_temporary_files_go_to_the_workers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    for variable in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(variable, "elsewhere")
    worker_setup.use_folder(tmp_path)
    assert tempfile.gettempdir() == str(tmp_path)
    assert os.environ["TMPDIR"] == str(tmp_path)


def test_that_leaving_removes_only_the_workers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    worker_setup.exit_at_once(own, 3)
    assert codes == [3]
    assert not own.exists()
    assert other.exists()
