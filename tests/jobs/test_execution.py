"""The inline runner and the task boundary: every way a task can end is one JobEnded."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from quantstudio.core.errors import CalibrationError, JobCancelled
from quantstudio.core.events import (
    NULL_REPORTER,
    CancelToken,
    Event,
    JobEnded,
    JobState,
    PartFound,
    Progress,
)
from quantstudio.core.folders import config_folder
from quantstudio.jobs import execution
from quantstudio.jobs.backends.inline import InlineBackend
from quantstudio.jobs.execution import resolve_task, run_task, save_report
from quantstudio.jobs.spec import JobSpec, new_job
from tests.jobs.fake_tasks import PREFIX
from tests.parts import layer_found, layers_of

Events = list[tuple[str, Event]]


def test_that_an_inline_job_waits_until_another_thread_resumes_it() -> None:
    seen: list[str] = []
    spec = new_job("tests.jobs.fake_tasks:count", {"to": 2})

    def hear(job: str, event: Event) -> None:
        if isinstance(event, PartFound):
            seen.append(layers_of([event])[0].name)
            if len(seen) == 1:
                inline.pause(job)
                threading.Timer(0.1, go_on).start()

    def go_on() -> None:
        seen.append("resumed")
        inline.resume(spec.id)

    inline = InlineBackend(hear, prefixes=[PREFIX])
    assert inline.run(spec).state is JobState.SUCCEEDED
    assert seen == ["layer0", "resumed", "layer1"]
    inline.pause(spec.id)
    inline.resume(spec.id)


@pytest.fixture
def events() -> Events:
    return []


@pytest.fixture
def runner(events: Events) -> InlineBackend:
    return InlineBackend(lambda job, event: events.append((job, event)), prefixes=[PREFIX])


def task(name: str, **params: Any) -> JobSpec:
    return new_job(f"tests.jobs.fake_tasks:{name}", params)


def test_that_a_job_ends_with_its_result_after_its_events(runner: InlineBackend, events: Events) -> None:
    job = task("count", to=3)
    ended = runner.run(job)
    assert ended == JobEnded(JobState.SUCCEEDED, {"numbers": [0, 1, 2], "mean": 1.0})
    assert layers_of([event for _, event in events]) == [layer_found(f"layer{i}", i / 2) for i in range(3)]
    assert events[-1] == (job.id, ended)
    assert isinstance(events[-2][1], Progress)
    assert events[-2][1].done == 3


def test_that_a_runner_without_a_receiver_works() -> None:
    assert InlineBackend(prefixes=[PREFIX]).run(task("count", to=1)).state is JobState.SUCCEEDED


def test_that_an_error_for_the_user_keeps_its_parts(runner: InlineBackend, events: Events) -> None:
    ended = runner.run(task("fail_for_user"))
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert (ended.error.what, ended.error.where, ended.error.report_path) == (
        "tensor holds infinities",
        "/conv/out",
        "",
    )
    assert len(events) == 1


def test_that_the_original_error_can_be_raised_after_the_last_event(
    runner: InlineBackend, events: Events
) -> None:
    with pytest.raises(CalibrationError, match="holds infinities"):
        runner.run(task("fail_for_user"), raise_errors=True)
    assert isinstance(events[-1][1], JobEnded)
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        runner.run(task("wait_for_cancel"), cancel=token, raise_errors=True)
    assert events[-1][1] == JobEnded(JobState.CANCELLED)


def test_that_a_fault_inside_leaves_a_report(runner: InlineBackend) -> None:
    error = runner.run(task("fail_inside")).error
    assert error is not None
    assert (error.kind, error.exit_code) == ("KeyError", 1)
    report = Path(error.report_path)
    assert report.parent == config_folder() / "reports"
    text = report.read_text("utf-8")
    assert "Traceback" in text
    assert "fail_inside" in text
    assert "QuantStudio 0." in text


def test_that_an_exit_call_in_a_task_does_not_end_the_program(runner: InlineBackend) -> None:
    error = runner.run(task("call_sys_exit")).error
    assert error is not None
    assert (error.kind, error.exit_code) == ("SystemExit", 1)


@pytest.mark.parametrize("native", [False, True])
def test_that_short_memory_is_explained(runner: InlineBackend, native: bool) -> None:
    error = runner.run(task("run_out_of_memory", native=native)).error
    assert error is not None
    assert (error.kind, error.exit_code, error.report_path) == ("MemoryError", 2, "")
    assert "smaller batch" in error.hint


def test_that_a_full_disk_is_explained(runner: InlineBackend) -> None:
    error = runner.run(task("fill_disk", path="/data/out.onnx")).error
    assert error is not None
    assert (error.kind, error.where) == ("OutputError", "/data/out.onnx")
    assert "no space left" in error.what
    assert errno.ENOSPC in execution._REFUSED_WRITES


def test_that_a_result_that_is_no_object_is_our_fault(runner: InlineBackend) -> None:
    error = runner.run(task("return_number")).error
    assert error is not None
    assert "returned int" in error.what


def test_that_a_callback_can_cancel_the_running_job() -> None:
    seen: list[Event] = []

    def receive(job: str, event: Event) -> None:
        seen.append(event)
        inline.cancel(job)

    inline = InlineBackend(receive, prefixes=[PREFIX])
    inline.submit(task("wait_for_cancel"))
    assert isinstance(seen[0], PartFound)
    assert seen[1:] == [JobEnded(JobState.CANCELLED)]
    inline.cancel("nobody")


def test_that_ctrl_c_is_a_cancel(runner: InlineBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tests.jobs.fake_tasks.count", interrupted)
    assert runner.run(task("count")).state is JobState.CANCELLED
    with pytest.raises(KeyboardInterrupt):
        runner.run(task("count"), raise_errors=True)


def test_that_a_closed_runner_cancels_what_comes_later(runner: InlineBackend, events: Events) -> None:
    runner.close()
    runner.submit(task("count", to=2))
    assert [event for _, event in events] == [JobEnded(JobState.CANCELLED)]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("os:system", id="outside"),
        pytest.param("quantstudio.engineer:run", id="prefix is a package, not a string"),
        pytest.param("tests.jobs.fake_tasks:_hidden", id="private"),
    ],
)
def test_that_only_tasks_can_be_named(name: str) -> None:
    outcome = run_task(
        JobSpec("a", name), NULL_REPORTER, CancelToken(), prefixes=["quantstudio.engine.", PREFIX]
    )
    assert outcome.ended.error is not None
    assert "is not a task" in outcome.ended.error.what


@pytest.mark.parametrize("name", ["tests.jobs.fake_tasks:nothing", "tests.jobs.fake_tasks:NOT_CALLABLE"])
def test_that_a_name_without_a_function_is_refused(name: str) -> None:
    with pytest.raises((AttributeError, TypeError)):
        resolve_task(name, [PREFIX])


@pytest.mark.parametrize("name", ["count", "a.b", "a:b:c", "a.b:c d", ":count", "a..b:c"])
def test_that_a_job_needs_a_well_formed_task(name: str) -> None:
    with pytest.raises(ValueError, match="is not package"):
        JobSpec("a", name)
    with pytest.raises(ValueError, match="id"):
        JobSpec("", "a:b")


def test_that_old_reports_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "REPORTS_KEPT", 3)
    paths = [save_report("Fault", f"number {i}") for i in range(5)]
    left = list((config_folder() / "reports").glob("*.txt"))
    assert len(left) == 3
    assert {str(path) for path in left} < set(paths)


def test_that_a_report_that_cannot_be_saved_goes_to_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "reports").write_text("a file where the folder should be")
    monkeypatch.setenv("QUANTSTUDIO_CONFIG", str(tmp_path))
    assert save_report("Fault", "the traceback") == ""
    assert "the traceback" in capsys.readouterr().err
