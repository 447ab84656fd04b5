"""Error messages in one line, the cancel token, the states of a job."""

from __future__ import annotations

import threading

import pytest

from quantstudio.core import errors
from quantstudio.core.errors import (
    DataError,
    JobCancelled,
    ModelLoadError,
    QuantStudioError,
    WorkerDiedError,
)
from quantstudio.core.events import NULL_REPORTER, CancelToken, JobState, Severity, never_cancelled
from tests.parts import layer_found


@pytest.mark.parametrize(
    ("error", "line"),
    [
        pytest.param(QuantStudioError("it broke"), "it broke.", id="what"),
        pytest.param(
            ModelLoadError("it is empty", where="m.onnx", hint="Export it again"),
            "m.onnx: it is empty. Export it again.",
            id="all parts",
        ),
        pytest.param(DataError("no labels.", hint="Add labels."), "no labels. Add labels.", id="full stops"),
        pytest.param(DataError("two\n  lines", where="a\tb"), "a b: two lines.", id="line breaks"),
    ],
)
def test_that_a_message_is_one_line_of_its_parts(error: QuantStudioError, line: str) -> None:
    assert error.one_line == line
    assert str(error) == line


def test_that_every_error_has_one_root_and_a_fitting_exit_code() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, QuantStudioError)
    ]
    assert len(kinds) >= 13
    assert QuantStudioError.__base__ is Exception
    codes = {kind.__name__: kind.exit_code for kind in kinds if kind.exit_code != 2}
    assert codes == {"WorkerDiedError": 1, "JobCancelled": 130}


def test_that_a_cancelled_job_needs_no_words() -> None:
    assert JobCancelled().one_line == "cancelled."
    assert WorkerDiedError("gone", where="job").where == "job"


def test_that_a_token_set_elsewhere_stops_the_work_here() -> None:
    token = CancelToken()
    token.raise_if_set()
    assert not token.is_set()
    thread = threading.Thread(target=token.set)
    thread.start()
    thread.join()
    assert token.is_set()
    with pytest.raises(JobCancelled):
        token.raise_if_set()
    assert not never_cancelled().is_set()


def test_that_a_paused_token_holds_the_work_until_it_is_resumed() -> None:
    now = [7.0]
    token = CancelToken(lambda: now[0])
    passed = threading.Event()

    def work() -> None:
        token.raise_if_set()
        passed.set()

    token.pause()
    thread = threading.Thread(target=work)
    thread.start()
    assert not passed.wait(0.1)
    now[0] = 9.5
    assert token.paused_s == 2.5
    token.resume()
    assert passed.wait(60)
    thread.join()
    now[0] = 20.0
    assert token.paused_s == 2.5


def test_that_a_set_token_ends_a_pause_and_takes_no_other() -> None:
    token = CancelToken()
    token.pause()
    token.set()
    assert not token.is_paused
    token.pause()
    assert not token.is_paused
    with pytest.raises(JobCancelled):
        token.raise_if_set()


def test_that_three_states_are_final() -> None:
    assert {state for state in JobState if state.is_final} == {
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.CANCELLED,
    }


def test_that_the_null_reporter_takes_everything() -> None:
    NULL_REPORTER.progress(1, 2, "layers", "x")
    NULL_REPORTER.found(layer_found("a"))
    NULL_REPORTER.message("x", Severity.WARNING)


def test_that_an_action_runs_when_the_token_is_set_and_only_inside_its_block() -> None:
    token = CancelToken()
    calls: list[str] = []
    with token.on_set(lambda: calls.append("outer")):
        with token.on_set(lambda: calls.append("inner")):
            assert calls == []
        token.set()
    assert calls == ["outer"]
    with token.on_set(lambda: calls.append("late")):
        assert calls == ["outer", "late"]


def test_that_work_times_its_runs_only_when_it_is_allowed_to() -> None:
    told: list[bool] = []
    waits: list[bool] = []

    def begin(is_beginning: bool) -> None:
        told.append(is_beginning)
        waits.append(token.is_paused)
        if is_beginning:
            token.allow_timing()

    token = CancelToken(on_timing=begin)
    with token.timing(), token.timing():
        assert not token.is_paused
    assert told == [True, False]
    assert waits == [True, False]


def test_that_work_that_waits_to_time_its_runs_can_be_stopped() -> None:
    def stop(is_beginning: bool) -> None:
        if is_beginning:
            token.set()

    token = CancelToken(on_timing=stop)
    with pytest.raises(JobCancelled), token.timing():
        pytest.fail("nothing may be timed")
    assert not token.is_paused


def test_that_nobody_waits_where_nobody_else_runs() -> None:
    token = CancelToken()
    with token.timing():
        assert not token.is_paused
