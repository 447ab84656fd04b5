"""The contract of a back end, which each of them keeps."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantstudio.core.events import Event, JobEnded, JobState, PartFound, Progress, Timing
from quantstudio.core.hints import Hint
from quantstudio.jobs.backends.backend import Backend, EventCallback
from quantstudio.jobs.backends.inline import InlineBackend
from quantstudio.jobs.backends.process import ProcessBackend
from quantstudio.jobs.spec import JobSpec, new_job
from tests.jobs.fake_tasks import PREFIX
from tests.jobs.recorder import Recorder, task
from tests.parts import layer_found, layers_of


class BackendContract(ABC):
    """A subclass makes its back end; everything else is inherited."""

    @classmethod
    @abstractmethod
    def make(cls, on_event: EventCallback) -> Backend:
        """A back end that runs the fake tasks."""

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Backend, Recorder]]:
        """One back end for all tests that leave it as they found it; what it starts, it has started."""
        home, recorder = tmp_path_factory.mktemp("backend"), Recorder()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("QUANTSTUDIO_CACHE", str(home / "cache"))
            patch.setenv("QUANTSTUDIO_CONFIG", str(home / "config"))
            with cls.opened(recorder) as backend:
                cls.ended(backend, recorder, task("echo", values={}))
                yield backend, recorder

    @pytest.fixture
    def recorder(self, shared: tuple[Backend, Recorder]) -> Iterator[Recorder]:
        yield shared[1]
        shared[1].react = lambda _job, _event: None

    @pytest.fixture
    def backend(self, shared: tuple[Backend, Recorder]) -> Backend:
        return shared[0]

    @classmethod
    @contextmanager
    def opened(cls, on_event: EventCallback) -> Iterator[Backend]:
        backend = cls.make(on_event)
        yield backend
        backend.close()

    @staticmethod
    def ended(backend: Backend, recorder: Recorder, *jobs: JobSpec) -> JobEnded:
        """The end of the last of the jobs; all of them have ended, once."""
        for job in jobs:
            backend.submit(job)
        for job in jobs:
            recorder.wait_for_end(job.id)
            assert len(recorder.ends(job.id)) == 1
            assert isinstance(recorder.of(job.id)[-1], JobEnded)
        return recorder.ends(jobs[-1].id)[0]

    # How a job ends.

    def test_that_a_job_tells_its_parts_and_ends_with_its_result(
        self, backend: Backend, recorder: Recorder
    ) -> None:
        job = task("count", to=5)
        ended = self.ended(backend, recorder, job)
        assert ended == JobEnded(JobState.SUCCEEDED, {"numbers": [0, 1, 2, 3, 4], "mean": 2.0})
        assert layers_of(recorder.of(job.id)) == [layer_found(f"layer{i}", i / 2) for i in range(5)]
        progress = [event for event in recorder.of(job.id) if isinstance(event, Progress)]
        assert (progress[-1].done, progress[-1].total, progress[-1].unit) == (5, 5, "layers")

    def test_that_jobs_run_one_at_a_time_in_their_order(self, backend: Backend, recorder: Recorder) -> None:
        jobs = [task("count", to=2), task("fail_for_user"), task("count", to=1)]
        before = len(recorder.events)
        self.ended(backend, recorder, *jobs)
        order = [job for job, _ in recorder.events[before:]]
        assert list(dict.fromkeys(order)) == [job.id for job in jobs]
        assert order == sorted(order, key=[job.id for job in jobs].index)

    def test_that_an_error_for_the_user_keeps_its_parts(self, backend: Backend, recorder: Recorder) -> None:
        ended = self.ended(backend, recorder, task("fail_for_user"))
        assert ended.state is JobState.FAILED
        error = ended.error
        assert error is not None
        assert (error.kind, error.exit_code, error.report_path) == ("CalibrationError", 2, "")
        assert (error.what, error.where, error.hint) == (
            "tensor holds infinities",
            "/conv/out",
            Hint("Clip it"),
        )

    def test_that_a_fault_inside_leaves_a_report(self, backend: Backend, recorder: Recorder) -> None:
        error = self.ended(backend, recorder, task("fail_inside")).error
        assert error is not None
        assert (error.kind, error.exit_code) == ("KeyError", 1)
        text = Path(error.report_path).read_text("utf-8")
        assert "Traceback" in text
        assert "fake_tasks:fail_inside" in text

    @pytest.mark.parametrize(
        ("name", "kind", "text"),
        [
            pytest.param("call_sys_exit", "SystemExit", "something failed inside", id="exit call"),
            pytest.param("run_out_of_memory", "MemoryError", "not enough memory", id="memory"),
            pytest.param("return_number", "TypeError", "returned int", id="result is a number"),
            pytest.param("nothing", "AttributeError", "something failed inside", id="no such task"),
            pytest.param("_hidden", "QuantStudioError", "is not a task", id="private"),
        ],
    )
    def test_that_whatever_a_task_does_is_one_failed_job(
        self, backend: Backend, recorder: Recorder, name: str, kind: str, text: str
    ) -> None:
        ended = self.ended(backend, recorder, task(name))
        assert ended.state is JobState.FAILED
        assert ended.error is not None
        assert ended.error.kind == kind
        assert text in ended.error.what

    def test_that_a_function_outside_the_tasks_is_not_called(
        self, backend: Backend, recorder: Recorder
    ) -> None:
        ended = self.ended(backend, recorder, new_job("os:getpid"))
        assert ended.state is JobState.FAILED

    def test_that_a_failing_receiver_holds_up_nothing(self, backend: Backend, recorder: Recorder) -> None:
        def fail(job: str, event: Event) -> None:
            raise RuntimeError("broken panel")

        recorder.react = fail
        ended = self.ended(backend, recorder, task("count", to=2), task("count", to=1))
        assert ended.state is JobState.SUCCEEDED

    # Cancelling and pausing.

    def test_that_a_running_job_is_cancelled_once_and_keeps_its_parts(
        self, backend: Backend, recorder: Recorder
    ) -> None:
        job, after = task("wait_for_cancel"), task("count", to=1)

        def cancel_twice() -> None:
            backend.cancel(job.id)
            backend.cancel(job.id)

        recorder.at_first_part(job.id, cancel_twice)
        self.ended(backend, recorder, job, after)
        assert recorder.of(job.id) == [PartFound(layer_found("first")), JobEnded(JobState.CANCELLED)]
        assert recorder.ends(after.id)[0].state is JobState.SUCCEEDED

    def test_that_a_waiting_job_is_cancelled_without_running(
        self, backend: Backend, recorder: Recorder
    ) -> None:
        first, second = task("wait_for_cancel"), task("count", to=1)

        def queue_and_cancel() -> None:
            backend.submit(second)
            backend.cancel(second.id)
            backend.cancel(first.id)

        recorder.at_first_part(first.id, queue_and_cancel)
        self.ended(backend, recorder, first)
        recorder.wait_for_end(second.id)
        assert recorder.of(second.id) == [JobEnded(JobState.CANCELLED)]

    def test_that_a_job_that_has_ended_or_never_was_is_left_alone(
        self, backend: Backend, recorder: Recorder
    ) -> None:
        job = task("count", to=1)
        self.ended(backend, recorder, job)
        for who in (job.id, "nobody"):
            for act in (
                backend.cancel,
                backend.pause,
                backend.resume,
                backend.finish,
                backend.allow_timing,
            ):
                act(who)
        assert self.ended(backend, recorder, task("count", to=1)).state is JobState.SUCCEEDED
        assert len(recorder.ends(job.id)) == 1

    def test_that_a_paused_job_goes_on_where_it_was(self, backend: Backend, recorder: Recorder) -> None:
        job = task("count", to=30, seconds=0.005)

        def pause() -> None:
            backend.pause(job.id)
            helper.start()

        def resume_when_it_stands_still() -> None:
            recorder.wait_for_silence(job.id)
            still.append(not recorder.ends(job.id))
            backend.resume(job.id)

        still: list[bool] = []
        helper = threading.Thread(target=resume_when_it_stands_still)
        recorder.at_first_part(job.id, pause)
        assert self.ended(backend, recorder, job).state is JobState.SUCCEEDED
        helper.join()
        assert still == [True]
        assert [row.name for row in layers_of(recorder.of(job.id))] == [f"layer{i}" for i in range(30)]

    def test_that_a_job_ends_early_with_what_it_has(self, backend: Backend, recorder: Recorder) -> None:
        job = task("wait_to_finish")
        recorder.at_first_part(job.id, lambda: backend.finish(job.id))
        assert self.ended(backend, recorder, job).state is JobState.SUCCEEDED

    def test_that_cancel_ends_a_pause(self, backend: Backend, recorder: Recorder) -> None:
        job = task("wait_for_cancel")

        def pause_and_cancel() -> None:
            backend.pause(job.id)
            backend.cancel(job.id)

        recorder.at_first_part(job.id, pause_and_cancel)
        assert self.ended(backend, recorder, job).state is JobState.CANCELLED

    # Timing, the quick lane, closing.

    def test_that_a_job_that_asks_to_time_runs_is_answered(
        self, backend: Backend, recorder: Recorder
    ) -> None:
        def answer(job: str, event: Event) -> None:
            if event == Timing(begins=True):
                backend.allow_timing(job)

        recorder.react = answer
        job = replace(task("time_runs"), asks_to_time=True)
        assert self.ended(backend, recorder, job).state is JobState.SUCCEEDED
        assert layers_of(recorder.of(job.id)) == [layer_found("timed")]

    def test_that_a_job_nobody_answers_times_at_once(self, backend: Backend, recorder: Recorder) -> None:
        job = task("time_runs")
        assert self.ended(backend, recorder, job).state is JobState.SUCCEEDED
        assert not any(isinstance(event, Timing) for event in recorder.of(job.id))

    def test_that_close_ends_what_runs_and_waits_and_comes_later(self, recorder: Recorder) -> None:
        running, waiting, late = task("wait_for_cancel"), task("count", to=1), task("count", to=1)
        with self.opened(recorder) as own:
            is_queued = threading.Event()

            def queue() -> None:
                own.submit(waiting)
                is_queued.set()

            def close() -> None:
                is_queued.wait()
                own.close()

            # Not from the callback, where a thread would wait for itself, nor from here: submit may block.
            closer = threading.Thread(target=close)
            closer.start()
            recorder.at_first_part(running.id, queue)
            own.submit(running)
            closer.join()
            own.submit(late)
            for job in (running, waiting, late):
                assert recorder.wait_for_end(job.id) == JobEnded(JobState.CANCELLED)
            own.close()
        assert all(len(recorder.ends(job.id)) == 1 for job in (running, waiting, late))
        assert not layers_of([*recorder.of(waiting.id), *recorder.of(late.id)])


class TestInlineBackend(BackendContract):
    @classmethod
    def make(cls, on_event: EventCallback) -> Backend:
        return InlineBackend(on_event, tasks_under=[PREFIX])


class TestProcessBackend(BackendContract):
    @classmethod
    def make(cls, on_event: EventCallback) -> Backend:
        return ProcessBackend(on_event, tasks_under=[PREFIX], quick_modules=[])


def test_that_an_inline_job_has_ended_when_submit_returns() -> None:
    recorder, job = Recorder(), task("count", to=1)
    InlineBackend(recorder, tasks_under=[PREFIX]).submit(job)
    assert recorder.ends(job.id)


def test_that_ctrl_c_cancels_the_inline_job_and_leaves_the_back_end_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(**_: Any) -> None:
        raise KeyboardInterrupt

    recorder, job, after = Recorder(), task("count", to=1), task("count", to=1)
    backend = InlineBackend(recorder, tasks_under=[PREFIX])
    with monkeypatch.context() as patch:
        patch.setattr("tests.jobs.fake_tasks.count", interrupted)
        backend.submit(job)
    backend.submit(after)
    assert recorder.of(job.id) == [JobEnded(JobState.CANCELLED)]
    assert recorder.ends(after.id)[0].state is JobState.SUCCEEDED


def test_that_ctrl_c_between_inline_jobs_is_not_swallowed() -> None:
    recorder = Recorder()
    backend = InlineBackend(recorder, tasks_under=[PREFIX])

    def interrupt(job: str, event: Event) -> None:
        if isinstance(event, JobEnded):
            raise KeyboardInterrupt

    recorder.react = interrupt
    with pytest.raises(KeyboardInterrupt):
        backend.submit(task("count", to=1))
    recorder.react = lambda _job, _event: None
    after = task("count", to=1)
    backend.submit(after)
    assert recorder.ends(after.id)[0].state is JobState.SUCCEEDED
