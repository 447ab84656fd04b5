"""Real workers: they succeed, fail, crash, hang and are killed, and the next job always runs."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

import quantstudio
from quantstudio.core.events import (
    JobEnded,
    JobState,
    Message,
    PartFound,
    Severity,
    Timing,
)
from quantstudio.core.folders import cache_folder, config_folder
from quantstudio.jobs.backends import supervisor as supervisor_module
from quantstudio.jobs.backends.process import ProcessBackend
from quantstudio.jobs.backends.worker_process import exit_text
from quantstudio.jobs.spec import JobSpec, Lane
from tests.jobs.fake_tasks import PREFIX
from tests.jobs.recorder import Recorder, task
from tests.parts import layer_found
from tests.waiting import FakeClock, wait_until

GRACE_S = 0.4
posix_only = pytest.mark.skipif(os.name != "posix", reason="signals end processes on POSIX")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def runner(recorder: Recorder) -> Iterator[ProcessBackend]:
    with closing(made_runner(recorder)) as made:
        yield made


@pytest.fixture
def timed_runner(recorder: Recorder, clock: FakeClock) -> Iterator[ProcessBackend]:
    """A runner whose deadlines pass when the test says so."""
    with closing(made_runner(recorder, clock)) as made:
        yield made


def made_runner(recorder: Recorder, clock: Callable[[], float] = time.monotonic) -> ProcessBackend:
    return ProcessBackend(
        recorder,
        tasks_under=[PREFIX],
        cancel_grace_s=GRACE_S,
        quick_idle_s=GRACE_S,
        quick_modules=["colorsys"],
        clock=clock,
    )


@contextmanager
def closing(made: ProcessBackend) -> Iterator[ProcessBackend]:
    yield made
    made.close()
    folder = cache_folder() / "workers"
    assert not folder.exists() or not list(folder.iterdir())
    gc.collect()


def test_that_jobs_run_in_order_in_one_worker(runner: ProcessBackend, recorder: Recorder) -> None:
    jobs = [task("describe_process") for _ in range(3)]
    for job in jobs:
        runner.submit(job)
    results = [recorder.wait_for_end(job.id).result or {} for job in jobs]
    assert len({result["pid"] for result in results}) == 1
    assert [name for name, event in recorder.events if isinstance(event, JobEnded)] == [j.id for j in jobs]


def test_that_the_worker_is_polite_and_light(runner: ProcessBackend, recorder: Recorder) -> None:
    job = task("describe_process")
    runner.submit(job)
    seen = recorder.wait_for_end(job.id).result or {}
    assert int(seen["threads"]) >= 1
    assert seen["heavy"] == []
    # Never the folder the user happens to work in.
    assert Path(seen["path0"]) == Path(quantstudio.__file__).parents[1]
    assert Path(seen["temporary"]).parent == cache_folder() / "workers"
    if seen["nice"] is not None:
        assert seen["nice"] >= min(19, os.nice(0) + 1)


def test_that_prints_and_child_processes_cannot_reach_the_protocol(
    runner: ProcessBackend, recorder: Recorder
) -> None:
    job = task("print_everywhere")
    runner.submit(job)
    assert recorder.wait_for_end(job.id) == JobEnded(JobState.SUCCEEDED, {"child": 0})
    log = config_folder() / "logs" / "worker.log"
    wait_until(lambda: log.exists() and "child 0" in log.read_text("utf-8"))
    assert "from Python" in log.read_text("utf-8")


def test_that_a_result_larger_than_the_pipe_arrives_whole(runner: ProcessBackend, recorder: Recorder) -> None:
    job = task("talk_much")
    runner.submit(job)
    assert recorder.wait_for_end(job.id).result == {"text": "x" * 3_000_000}
    assert recorder.of(job.id)[0] == Message(Severity.WARNING, "ä" * 1000)


def test_that_params_larger_than_the_pipe_arrive_whole(runner: ProcessBackend, recorder: Recorder) -> None:
    values = {"names": ["layer " * 10] * 20_000, "n": 3, "none": None}
    job = task("echo", values=values)
    runner.submit(job)
    assert recorder.wait_for_end(job.id).result == values


@posix_only
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGABRT"])
def test_that_a_crash_is_one_failed_job_and_the_next_runs_in_a_fresh_worker(
    runner: ProcessBackend, recorder: Recorder, name: str
) -> None:
    crash, after = task("die", signal_name=name), task("count", to=2)
    runner.submit(crash)
    runner.submit(after)
    ended = recorder.wait_for_end(crash.id)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert (ended.error.kind, ended.error.exit_code) == ("WorkerDiedError", 1)
    assert name in ended.error.what
    if name == "SIGSEGV":
        assert "Segmentation fault" in Path(ended.error.report_path).read_text("utf-8")
    assert recorder.wait_for_end(after.id).state is JobState.SUCCEEDED
    assert len(recorder.ends(crash.id)) == 1
    assert recorder.of(crash.id)[0] == PartFound(layer_found("first"))


def test_that_a_worker_that_exits_in_a_job_fails_it(runner: ProcessBackend, recorder: Recorder) -> None:
    job = task("exit_with", code=7)
    runner.submit(job)
    error = recorder.wait_for_end(job.id).error
    assert error is not None
    assert "exit code 7" in error.what


@posix_only
def test_that_a_worker_killed_while_idle_is_replaced_unseen(
    runner: ProcessBackend, recorder: Recorder
) -> None:
    first, second = task("describe_process"), task("describe_process")
    runner.submit(first)
    pid = (recorder.wait_for_end(first.id).result or {})["pid"]
    os.kill(pid, signal.SIGKILL)
    runner.submit(second)
    ended = recorder.wait_for_end(second.id)
    assert ended.state is JobState.SUCCEEDED
    assert (ended.result or {})["pid"] != pid


@pytest.mark.parametrize("is_paused", [False, True], ids=["running", "paused"])
def test_that_a_cancelled_job_stops_by_itself_and_its_worker_stays(
    runner: ProcessBackend, recorder: Recorder, is_paused: bool
) -> None:
    job, after = task("wait_for_cancel"), task("describe_process")
    runner.submit(job)
    recorder.wait_for_part(job.id)
    pid = runner.health.pid
    if is_paused:
        runner.pause(job.id)
    runner.cancel(job.id)
    assert recorder.wait_for_end(job.id) == JobEnded(JobState.CANCELLED)
    runner.submit(after)
    assert (recorder.wait_for_end(after.id).result or {})["pid"] == pid
    assert len(recorder.ends(job.id)) == 1


@posix_only
def test_that_a_worker_killed_while_paused_is_a_failed_job(
    runner: ProcessBackend, recorder: Recorder
) -> None:
    spec, after = task("wait_for_cancel"), task("count", to=1)
    runner.submit(spec)
    recorder.wait_for_part(spec.id)
    runner.pause(spec.id)
    assert runner.health.pid is not None
    os.kill(runner.health.pid, signal.SIGKILL)
    assert recorder.wait_for_end(spec.id).state is JobState.FAILED
    runner.submit(after)
    assert recorder.wait_for_end(after.id).state is JobState.SUCCEEDED


def test_that_a_waiting_job_is_paused_before_it_begins(runner: ProcessBackend, recorder: Recorder) -> None:
    first, second = task("wait_for_cancel"), task("count", to=1)
    runner.submit(first)
    runner.submit(second)
    recorder.wait_for_part(first.id)
    runner.pause(second.id)
    runner.cancel(first.id)
    recorder.wait_for_end(first.id)
    wait_until(lambda: runner.health.job == second.id)
    recorder.wait_for_silence(second.id)
    assert not recorder.of(second.id)
    runner.resume(second.id)
    assert recorder.wait_for_end(second.id).state is JobState.SUCCEEDED


def test_that_a_job_deaf_to_cancel_is_ended_and_its_worker_replaced(
    timed_runner: ProcessBackend, recorder: Recorder, clock: FakeClock
) -> None:
    job, after = task("ignore_cancel"), task("describe_process")
    timed_runner.submit(job)
    recorder.wait_for_part(job.id)
    pid = timed_runner.health.pid
    timed_runner.cancel(job.id)
    timed_runner.cancel(job.id)
    recorder.wait_for_silence(job.id)
    assert not recorder.ends(job.id)
    clock.run_until(lambda: recorder.ends(job.id), GRACE_S / 4)
    assert recorder.ends(job.id) == [JobEnded(JobState.CANCELLED)]
    timed_runner.submit(after)
    assert (recorder.wait_for_end(after.id).result or {})["pid"] != pid
    assert len(recorder.ends(job.id)) == 1


@posix_only
def test_that_a_stopped_worker_is_killed_by_cancel(
    timed_runner: ProcessBackend, recorder: Recorder, clock: FakeClock
) -> None:
    job = task("wait_for_cancel")
    timed_runner.submit(job)
    recorder.wait_for_part(job.id)
    pid = timed_runner.health.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    timed_runner.cancel(job.id)
    clock.run_until(lambda: recorder.ends(job.id), GRACE_S / 4)
    assert recorder.ends(job.id) == [JobEnded(JobState.CANCELLED)]


@posix_only
def test_that_ending_a_worker_ends_the_processes_it_started(
    runner: ProcessBackend, recorder: Recorder
) -> None:
    job = task("start_child_and_hang")
    runner.submit(job)
    recorder.wait(lambda: bool(recorder.of(job.id)))
    message = recorder.of(job.id)[0]
    assert isinstance(message, Message)
    runner.cancel(job.id)
    recorder.wait_for_end(job.id)
    wait_until(lambda: not psutil.pid_exists(int(message.text)) or _is_zombie(int(message.text)))


def _is_zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("name", ["wait_for_cancel", "ignore_cancel"])
def test_that_close_ends_every_job_once(recorder: Recorder, name: str) -> None:
    runner = ProcessBackend(recorder, tasks_under=[PREFIX])
    running, waiting = task(name), task("count", to=1)
    runner.submit(running)
    runner.submit(waiting)
    recorder.wait_for_part(running.id)
    runner.close()
    for job in (running, waiting):
        assert recorder.ends(job.id) == [JobEnded(JobState.CANCELLED)]
    late = task("count", to=1)
    runner.submit(late)
    assert recorder.ends(late.id) == [JobEnded(JobState.CANCELLED)]
    runner.close()


def test_that_an_unused_runner_starts_no_process(runner: ProcessBackend) -> None:
    assert runner.health.pid is None
    assert not psutil.Process().children()


def quick(name: str, **params: Any) -> JobSpec:
    return replace(task(name, **params), lane=Lane.QUICK)


def test_that_a_quick_job_ends_while_work_goes_on(runner: ProcessBackend, recorder: Recorder) -> None:
    work, check = task("wait_for_cancel"), quick("describe_process")
    runner.submit(work)
    recorder.wait_for_part(work.id)
    runner.submit(check)
    ended = recorder.wait_for_end(check.id)
    assert ended.state is JobState.SUCCEEDED
    assert not recorder.ends(work.id)
    assert (ended.result or {})["pid"] != runner.health.pid
    # It must not give way to the work.
    assert (ended.result or {})["nice"] in (None, os.nice(0))
    runner.cancel(work.id)
    recorder.wait_for_end(work.id)


def test_that_the_worker_for_quick_jobs_ends_when_nobody_asks_and_starts_again(
    timed_runner: ProcessBackend, recorder: Recorder, clock: FakeClock
) -> None:
    first, second = quick("describe_process"), quick("describe_process")
    timed_runner.submit(first)
    pid = (recorder.wait_for_end(first.id).result or {})["pid"]
    clock.run_until(lambda: not psutil.pid_exists(pid), GRACE_S / 4)
    timed_runner.submit(second)
    assert (recorder.wait_for_end(second.id).result or {})["pid"] != pid


def test_that_a_worker_that_was_made_ready_runs_the_job(
    timed_runner: ProcessBackend, recorder: Recorder
) -> None:
    timed_runner.prepare(Lane.QUICK)
    timed_runner.prepare(Lane.QUICK)
    wait_until(lambda: timed_runner.quick_health is not None and timed_runner.quick_health.pid is not None)
    assert timed_runner.quick_health is not None
    pid = timed_runner.quick_health.pid
    job = quick("describe_process")
    timed_runner.submit(job)
    seen = recorder.wait_for_end(job.id).result or {}
    assert (seen["pid"], seen["is_ready"]) == (pid, True)


def test_that_a_job_waits_to_time_its_runs_until_it_is_allowed(
    runner: ProcessBackend, recorder: Recorder
) -> None:
    job = replace(task("time_runs"), asks_to_time=True)
    runner.submit(job)
    recorder.wait(lambda: Timing(begins=True) in recorder.of(job.id))
    assert not any(isinstance(event, PartFound) for event in recorder.of(job.id))
    runner.allow_timing(job.id)
    assert recorder.wait_for_end(job.id).state is JobState.SUCCEEDED
    said = [event for event in recorder.of(job.id) if isinstance(event, Timing | PartFound)]
    assert said == [Timing(True), PartFound(layer_found("timed")), Timing(False)]


def test_that_cancel_ends_the_wait_to_time(runner: ProcessBackend, recorder: Recorder) -> None:
    job = replace(task("time_runs"), asks_to_time=True)
    runner.submit(job)
    recorder.wait(lambda: Timing(begins=True) in recorder.of(job.id))
    runner.cancel(job.id)
    assert recorder.wait_for_end(job.id).state is JobState.CANCELLED


@posix_only
def test_that_a_silent_worker_is_reported_once(
    timed_runner: ProcessBackend, recorder: Recorder, clock: FakeClock
) -> None:
    job = task("wait_for_cancel")
    timed_runner.submit(job)
    recorder.wait_for_part(job.id)
    pid = timed_runner.health.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    # Beats that were under way when it stopped still count as heard.
    clock.run_until(
        lambda: any(isinstance(event, Message) for event in recorder.of(job.id)),
        supervisor_module.SILENCE_S + 1,
    )
    assert timed_runner.health.silent_s > supervisor_module.SILENCE_S
    os.kill(pid, signal.SIGCONT)
    timed_runner.cancel(job.id)
    recorder.wait_for_end(job.id)
    assert sum(isinstance(event, Message) for event in recorder.of(job.id)) == 1


@posix_only
def test_that_a_worker_leaves_when_its_owner_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(
        "import sys, time\n"
        "from quantstudio.jobs.backends.process import ProcessBackend\n"
        "from quantstudio.jobs.spec import new_job\n"
        "runner = ProcessBackend(lambda job, event: print(runner.health.pid, flush=True),"
        " tasks_under=['tests.jobs.'])\n"
        "runner.submit(new_job('tests.jobs.fake_tasks:ignore_cancel'))\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert psutil.pid_exists(pid)
        owner.kill()
    wait_until(lambda: not psutil.pid_exists(pid) or _is_zombie(pid))
    assert not list((cache_folder() / "workers").iterdir())


def test_that_a_dead_owners_folder_is_removed_by_the_next(runner: ProcessBackend, recorder: Recorder) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = cache_folder() / "workers" / f"{dead.pid}-left"
    left.mkdir(parents=True)
    (left / "big.bin").write_bytes(b"x")
    job = task("count", to=1)
    runner.submit(job)
    recorder.wait_for_end(job.id)
    assert not left.exists()


def test_that_a_worker_that_cannot_start_fails_the_job(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    runner = ProcessBackend(recorder, tasks_under=[PREFIX])
    job = task("count", to=1)
    runner.submit(job)
    error = recorder.wait_for_end(job.id).error
    assert error is not None
    assert "cannot be started" in error.what
    runner.close()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        pytest.param(-11, "SIGSEGV, a crash in native code", id="signal", marks=posix_only),
        pytest.param(-63, "signal 63", id="unnamed signal", marks=posix_only),
        pytest.param(0xC0000005, "0xC0000005, access violation, a crash in native code", id="windows"),
        pytest.param(7, "exit code 7", id="code"),
    ],
)
def test_that_an_exit_is_named(code: int, text: str) -> None:
    assert exit_text(code) == text
