"""The task boundary: every way a task can end is one JobEnded."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from quantstudio.core.errors import CalibrationError, JobCancelled, ModelLoadError, OutputError
from quantstudio.core.events import (
    NULL_REPORTER,
    CancelToken,
    ErrorInfo,
    Event,
    JobEnded,
    JobState,
    Reporter,
)
from quantstudio.core.folders import cache_folder, config_folder
from quantstudio.jobs import execution
from quantstudio.jobs.execution import call_task, ended_by, resolve_task, run_task, save_report
from quantstudio.jobs.reporters import EventReporter
from quantstudio.jobs.spec import JobSpec
from tests.jobs.fake_tasks import PREFIX
from tests.jobs.recorder import task
from tests.parts import layer_found, layers_of


def ended(spec: JobSpec, reporter: Reporter = NULL_REPORTER, cancel: CancelToken | None = None) -> JobEnded:
    return run_task(spec, reporter, cancel or CancelToken(), prefixes=[PREFIX])


def failed(name: str, **params: Any) -> ErrorInfo:
    last = ended(task(name, **params))
    assert (last.state, last.result) == (JobState.FAILED, None)
    assert last.error is not None
    return last.error


def test_that_a_job_ends_with_its_result_as_json() -> None:
    events: list[Event] = []
    assert ended(task("count", to=3), EventReporter(events.append)) == JobEnded(
        JobState.SUCCEEDED, {"numbers": [0, 1, 2], "mean": 1.0}
    )
    assert layers_of(events) == [layer_found(f"layer{i}", i / 2) for i in range(3)]


def test_that_a_caller_of_this_process_gets_the_result_and_the_error_themselves() -> None:
    found = object()

    def give(**_: object) -> object:
        return found

    def fail(**_: object) -> None:
        raise error

    error = CalibrationError("tensor holds infinities")
    assert call_task(give, {}, NULL_REPORTER, CancelToken()).result is found
    assert call_task(fail, {}, NULL_REPORTER, CancelToken()).error is error


def test_that_an_error_names_the_user_s_file_in_place_of_what_is_kept_of_it() -> None:
    kept = cache_folder("graphs") / f"{'0' * 64}.onnx"
    kept.with_suffix(".json").write_text('{"source_path": "net.onnx"}')
    error = ended_by(ModelLoadError(f"cannot load {kept}", where=f"{kept}: node 'a'")).error
    assert error is not None
    assert (error.what, error.where) == ("cannot load net.onnx", "net.onnx: node 'a'")
    refused = ended_by(OutputError("cannot write the file", where=str(kept))).error
    assert refused is not None
    assert refused.where == str(kept)


def test_that_a_task_is_not_called_for_a_job_that_is_cancelled_already() -> None:
    token = CancelToken()
    token.set()
    assert ended(task("fail_inside"), cancel=token) == JobEnded(JobState.CANCELLED)
    outcome = call_task(pytest.fail, {}, NULL_REPORTER, token)
    assert isinstance(outcome.error, JobCancelled)


def test_that_a_fault_inside_leaves_a_report() -> None:
    error = failed("fail_inside")
    assert (error.kind, error.exit_code) == ("KeyError", 1)
    report = Path(error.report_path)
    assert report.parent == config_folder() / "reports"
    text = report.read_text("utf-8")
    assert "Traceback" in text
    assert "fail_inside" in text
    assert "QuantStudio 0." in text


@pytest.mark.parametrize("native", [False, True])
def test_that_short_memory_is_explained(native: bool) -> None:
    error = failed("run_out_of_memory", native=native)
    assert (error.kind, error.exit_code, error.report_path) == ("MemoryError", 2, "")
    assert "smaller batch" in error.hint.text


def test_that_a_full_disk_is_explained() -> None:
    error = failed("fill_disk", path="/data/out.onnx")
    assert (error.kind, error.where) == ("OutputError", "/data/out.onnx")
    assert "no space left" in error.what
    assert errno.ENOSPC in execution._REFUSED_WRITES


def test_that_ctrl_c_is_a_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tests.jobs.fake_tasks.count", interrupted)
    assert ended(task("count")) == JobEnded(JobState.CANCELLED)
    assert ended_by(JobCancelled()) == JobEnded(JobState.CANCELLED)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("os:system", id="outside"),
        pytest.param("quantstudio.engineer:run", id="prefix is a package, not a string"),
        pytest.param("tests.jobs.fake_tasks:_hidden", id="private"),
    ],
)
def test_that_only_tasks_can_be_named(name: str) -> None:
    last = run_task(
        JobSpec("a", name), NULL_REPORTER, CancelToken(), prefixes=["quantstudio.engine.", PREFIX]
    )
    assert last.error is not None
    assert "is not a task" in last.error.what


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
