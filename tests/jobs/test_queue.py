"""The queue in front of the back ends: lanes, groups, pauses, and what it tells."""

import threading

import pytest

from quantstudio.core.codec import CodecError
from quantstudio.core.errors import DataError
from quantstudio.core.events import (
    ErrorInfo,
    JobEnded,
    JobState,
    Message,
    Part,
    PartFound,
    Progress,
    Severity,
    Timing,
)
from quantstudio.core.hints import Hint
from quantstudio.jobs.pump import Pump
from quantstudio.jobs.queue import JobQueue, Work
from quantstudio.jobs.rows import JobRow, LogLine, NoticeLevel
from quantstudio.jobs.spec import JobSpec, Lane, new_job
from tests.parts import layer_found

DONE = JobEnded(JobState.SUCCEEDED, {"found": 1})


class Backend:
    """Takes jobs and notes what it is told; a test sends the events."""

    def __init__(self, on_event):
        self.on_event = on_event
        self.specs: list[JobSpec] = []
        self.told: list[tuple[str, str]] = []
        self.is_closed = False

    @property
    def submitted(self):
        return [spec.id for spec in self.specs]

    def prepare(self, lane):
        self.told.append(("prepare", lane))

    def submit(self, spec):
        self.specs.append(spec)

    def cancel(self, job_id):
        self.told.append(("cancel", job_id))

    def pause(self, job_id):
        self.told.append(("pause", job_id))

    def resume(self, job_id):
        self.told.append(("resume", job_id))

    def finish(self, job_id):
        self.told.append(("finish", job_id))

    def allow_timing(self, job_id):
        self.told.append(("allow timing", job_id))

    def close(self):
        self.is_closed = True


class Desk:
    """A queue with its back ends and everything it said."""

    def __init__(self):
        self.pump = Pump()
        self.queue = JobQueue(self._made, self.pump.call_soon)
        self.lines: list[LogLine] = []
        self.failures: list[JobRow] = []
        self.found: list[tuple[str, object]] = []
        self.idle: list[int] = []
        self.queue.logged.connect(self.lines.append)
        self.queue.failed.connect(self.failures.append)
        self.queue.idle.connect(lambda: self.idle.append(1))

    def _made(self, on_event):
        self.backend = Backend(on_event)
        return self.backend

    def add(self, key, lane=Lane.WORK, **more):
        def succeeded(result):
            self.found.append((key, result))
            return f"{key} is done"

        more = {"make": lambda: new_job("a.b:c"), "on_success": succeeded, **more}
        return self.queue.add(Work(key, key.title(), lane=lane, **more))

    def send(self, job_id, event):
        """An event as a back end sends it, from a thread of its own."""
        sender = threading.Thread(target=self.backend.on_event, args=(job_id, event))
        sender.start()
        sender.join()
        ran = []
        self.pump.call_soon(lambda: ran.append(1))
        self.pump.run_until(lambda: bool(ran))

    def state(self, job_id):
        row = self.queue.row(job_id)
        assert row is not None
        return row.state


@pytest.fixture
def desk():
    return Desk()


class TestLanes:
    def test_that_work_runs_one_at_a_time_in_order(self, desk):
        first, second = desk.add("first"), desk.add("second")
        assert desk.backend.submitted == [first]
        assert desk.state(second) is JobState.QUEUED
        desk.send(first, DONE)
        assert desk.backend.submitted == [first, second]

    def test_that_a_quick_job_ends_while_work_runs(self, desk):
        work, quick = desk.add("search"), desk.add("check", Lane.QUICK)
        desk.send(quick, DONE)
        assert desk.found == [("check", {"found": 1})]
        assert desk.state(quick) is JobState.SUCCEEDED
        assert desk.state(work) is JobState.RUNNING
        assert desk.queue.running.job_id == work

    def test_that_the_back_end_is_told_the_lane(self, desk):
        desk.add("search")
        desk.add("check", Lane.QUICK)
        desk.add("check another", Lane.QUICK)
        assert [spec.lane for spec in desk.backend.specs] == [Lane.WORK, Lane.QUICK]

    def test_that_timing_starts_when_nothing_else_runs(self, desk):
        quick, timing = desk.add("check", Lane.QUICK), desk.add("latency", Lane.TIMING)
        assert desk.state(timing) is JobState.QUEUED
        desk.send(quick, DONE)
        assert desk.state(timing) is JobState.RUNNING

    def test_that_no_work_starts_beside_timing(self, desk):
        timing, work = desk.add("latency", Lane.TIMING), desk.add("search")
        assert desk.state(work) is JobState.QUEUED
        desk.send(timing, DONE)
        assert desk.state(work) is JobState.RUNNING

    def test_that_timing_stands_still_for_a_quick_job_and_goes_on_behind_it(self, desk):
        timing, work = desk.add("latency", Lane.TIMING), desk.add("search")
        desk.send(timing, Progress(3, 9, "rounds", "Timing"))
        quick = desk.add("check", Lane.QUICK)
        assert desk.state(quick) is JobState.RUNNING
        assert desk.backend.told == [("pause", timing)]
        assert desk.queue.row(timing).label == "waiting for Check"
        desk.send(quick, DONE)
        assert desk.backend.told == [("pause", timing), ("resume", timing)]
        assert desk.queue.row(timing).label == "Timing"
        assert desk.state(work) is JobState.QUEUED
        assert desk.state(desk.add("check another", Lane.QUICK)) is JobState.RUNNING
        assert desk.backend.told[2:] == [("pause", timing)]

    def test_that_timing_starts_behind_every_quick_job_and_keeps_its_turn_among_the_work(self, desk):
        quick, timing, work = desk.add("check", Lane.QUICK), desk.add("latency", Lane.TIMING), desk.add("x")
        more = desk.add("check another", Lane.QUICK)
        desk.send(quick, DONE)
        assert desk.state(more) is JobState.RUNNING
        assert desk.state(timing) is JobState.QUEUED
        desk.send(more, DONE)
        assert desk.state(timing) is JobState.RUNNING
        assert desk.state(work) is JobState.QUEUED

    def test_that_the_back_end_hears_what_is_expected(self, desk):
        desk.queue.prepare(Lane.QUICK)
        assert desk.backend.told == [("prepare", Lane.QUICK)]

    def test_that_what_waits_for_timing_starts_when_that_is_cancelled_before_its_turn(self, desk):
        desk.add("check", Lane.QUICK)
        timing, work = desk.add("latency", Lane.TIMING), desk.add("search")
        desk.queue.cancel(timing)
        assert desk.state(work) is JobState.RUNNING

    def test_that_closing_closes_every_back_end(self, desk):
        quick = desk.add("check", Lane.QUICK)
        desk.queue.close()
        assert desk.backend.is_closed
        desk.send(quick, DONE)
        assert desk.found == []


class TestTimingPhases:
    """A job of the work lane that times runs in the middle."""

    def test_that_a_job_times_at_once_when_it_is_alone(self, desk):
        job = desk.add("measure")
        desk.send(job, Timing(True))
        assert desk.backend.told == [("allow timing", job)]

    def test_that_it_waits_for_a_quick_job_and_says_so(self, desk):
        job, quick = desk.add("measure"), desk.add("check", Lane.QUICK)
        desk.send(job, Timing(True))
        assert desk.backend.told == []
        assert desk.queue.row(job).label == "waiting for Check"
        desk.send(quick, DONE)
        assert desk.backend.told == [("allow timing", job)]

    def test_that_it_stands_still_for_a_quick_job_and_times_on_behind_it(self, desk):
        job = desk.add("measure")
        desk.send(job, Timing(True))
        quick, second = desk.add("check", Lane.QUICK), desk.add("check another", Lane.QUICK)
        assert desk.state(quick) is JobState.RUNNING
        desk.send(quick, DONE)
        assert desk.state(second) is JobState.RUNNING
        assert desk.backend.told == [("allow timing", job), ("pause", job)]
        desk.send(second, DONE)
        assert desk.backend.told[2:] == [("resume", job)]
        assert desk.state(job) is JobState.RUNNING

    def test_that_it_goes_on_at_once_when_it_had_timed_its_last_run_before_it_stood_still(self, desk):
        job = desk.add("measure")
        desk.send(job, Timing(True))
        quick = desk.add("check", Lane.QUICK)
        desk.send(job, Timing(False))
        assert desk.backend.told[1:] == [("pause", job), ("resume", job)]
        assert desk.state(quick) is JobState.RUNNING

    def test_that_a_job_that_waits_to_time_waits_for_every_quick_job(self, desk):
        job, quick = desk.add("measure"), desk.add("check", Lane.QUICK)
        desk.send(job, Timing(True))
        second = desk.add("check another", Lane.QUICK)
        desk.send(quick, DONE)
        assert desk.state(second) is JobState.RUNNING
        assert desk.backend.told == []
        desk.send(second, DONE)
        assert desk.backend.told == [("allow timing", job)]

    def test_that_a_job_paused_while_it_stands_still_waits_for_the_user(self, desk):
        job = desk.add("measure")
        desk.send(job, Timing(True))
        quick = desk.add("check", Lane.QUICK)
        desk.queue.pause(job)
        desk.send(quick, DONE)
        assert ("resume", job) not in desk.backend.told
        desk.queue.resume(job)
        assert desk.backend.told[-1] == ("resume", job)

    def test_that_two_jobs_that_wait_to_time_take_turns(self, desk):
        job, quick = desk.add("measure"), desk.add("check", Lane.QUICK)
        desk.send(job, Timing(True))
        desk.send(quick, Timing(True))
        assert desk.backend.told == [("allow timing", job)]
        desk.send(job, Timing(False))
        desk.send(job, DONE)
        assert desk.backend.told[1:] == [("allow timing", quick)]

    def test_that_a_paused_job_holds_nobody_back_and_times_on_in_its_turn(self, desk):
        job = desk.add("measure")
        desk.send(job, Timing(True))
        quick = desk.add("check", Lane.QUICK)
        desk.queue.pause(job)
        assert desk.state(quick) is JobState.RUNNING
        desk.queue.resume(job)
        assert ("resume", job) not in desk.backend.told
        desk.send(quick, DONE)
        assert desk.backend.told[-1] == ("resume", job)

    def test_that_a_job_paused_while_it_waits_to_time_is_not_let_before_it_goes_on(self, desk):
        job, quick = desk.add("measure"), desk.add("check", Lane.QUICK)
        desk.send(job, Timing(True))
        desk.queue.pause(job)
        desk.send(quick, DONE)
        assert ("allow timing", job) not in desk.backend.told
        desk.queue.resume(job)
        assert desk.backend.told[-2:] == [("resume", job), ("allow timing", job)]

    def test_that_a_job_that_had_timed_its_last_run_when_paused_goes_on_at_once(self, desk):
        job = desk.add("measure")
        desk.send(job, Timing(True))
        desk.add("check", Lane.QUICK)
        desk.queue.pause(job)
        desk.queue.resume(job)
        desk.send(job, Timing(False))
        assert desk.backend.told[-1] == ("resume", job)

    def test_that_a_job_of_the_timing_lane_does_not_ask(self, desk):
        desk.add("latency", Lane.TIMING)
        assert [spec.asks_to_time for spec in desk.backend.specs] == [False]


class TestWork:
    def test_that_queued_work_of_a_key_is_queued_once(self, desk):
        desk.add("search")
        assert desk.add("calibrate") == desk.add("calibrate")

    @pytest.mark.parametrize("lane", list(Lane))
    def test_that_stopping_everything_begins_nothing_of_what_waited(self, desk, lane):
        desk.add("first", lane=lane)
        waiting = [desk.add(f"next {i}", lane=one) for i, one in enumerate((*Lane, *Lane))]
        begun = list(desk.backend.submitted)
        desk.backend.cancel = lambda job_id: desk.queue._on_event(
            job_id, JobEnded(JobState.CANCELLED)
        )  # at once, as work in this process ends
        desk.queue.cancel()
        assert desk.backend.submitted == begun
        assert {desk.state(one) for one in waiting} == {JobState.CANCELLED}
        assert not desk.queue.is_busy

    def test_that_work_that_waits_already_is_said(self, desk):
        desk.add("search")
        desk.add("calibrate")
        desk.add("calibrate")
        assert desk.lines[-1].text == "Calibrate waits already"

    def test_that_nothing_to_do_leaves_no_row(self, desk):
        desk.add("weights", make=lambda: None)
        assert desk.queue.rows == ()
        assert desk.idle

    def test_that_work_which_cannot_be_made_fails_with_the_reason(self, desk):
        def make():
            raise DataError("there is no data", where="net.onnx", hint="Choose data")

        desk.add("calibrate", make=make)
        [row] = desk.failures
        assert (row.state, row.outcome, row.hint) == (
            JobState.FAILED,
            "net.onnx: there is no data",
            Hint("Choose data"),
        )
        assert desk.lines[-1].severity is NoticeLevel.ERROR

    def test_that_work_added_while_other_work_is_made_takes_its_turn_behind_it(self, desk):
        order = []

        def make():
            order.append(desk.add("measure"))
            return new_job("a.b:c")

        first = desk.add("quantize", make=make)
        assert desk.backend.submitted == [first]
        desk.send(first, DONE)
        assert desk.backend.submitted == [first, *order]

    def test_that_a_failure_drops_the_rest_of_its_group(self, desk):
        first = desk.add("calibrate", group="all")
        desk.add("measure", group="all")
        other = desk.add("costs")
        desk.send(
            first, JobEnded(JobState.FAILED, error=ErrorInfo("DataError", "no samples", "d.npz", Hint("Add")))
        )
        assert [row.job_id for row in desk.queue.rows] == [first, other]
        assert desk.state(other) is JobState.RUNNING
        assert [row.outcome for row in desk.failures] == ["d.npz: no samples"]

    def test_that_a_failure_the_work_has_told_is_not_told_again(self, desk):
        job = desk.add("search", on_failure=lambda error: True)
        desk.send(job, JobEnded(JobState.FAILED, error=ErrorInfo("BudgetError", "no plan")))
        assert desk.state(job) is JobState.FAILED
        assert desk.failures == []

    def test_that_an_answer_which_cannot_be_read_fails(self, desk):
        def reads(values):
            raise CodecError("$.found: expected a list")

        job = desk.add("search", reads=reads)
        desk.send(job, DONE)
        assert desk.state(job) is JobState.FAILED
        assert desk.found == []

    def test_that_a_result_is_read_on_the_thread_it_comes_from(self, desk):
        threads = []

        def reads(values):
            threads.append(threading.get_ident())
            return "read"

        desk.send(desk.add("search", reads=reads), DONE)
        assert desk.found == [("search", "read")]
        assert threads != [threading.get_ident()]


class TestEvents:
    def test_that_progress_parts_and_messages_arrive(self, desk):
        parts: list[Part] = []
        job = desk.add("weights", on_part=parts.append)
        desk.send(job, Progress(3, 12, "layers", "Reading", 4.0))
        desk.send(job, PartFound(layer_found("conv1")))
        desk.send(job, Message(Severity.WARNING, "one is odd"))
        row = desk.queue.row(job)
        assert (row.done, row.total, row.fraction, row.seconds_left) == (3, 12, 0.25, 4.0)
        assert parts == [layer_found("conv1")]
        assert (desk.lines[-1].severity, desk.lines[-1].text) == (
            NoticeLevel.WARNING,
            "Weights: one is odd",
        )

    def test_that_an_abandoned_job_tells_nobody_what_it_found(self, desk):
        parts: list[Part] = []
        job = desk.add("weights", on_part=parts.append)
        desk.queue.abandon()
        desk.send(job, PartFound(layer_found("conv1")))
        desk.send(job, DONE)
        assert (parts, desk.found) == ([], [])
        assert not desk.queue.is_busy

    def test_that_cancelling_all_stops_both_lanes_and_what_waits(self, desk):
        work, waiting, quick = desk.add("search"), desk.add("costs"), desk.add("check", Lane.QUICK)
        desk.queue.cancel()
        assert desk.backend.told == [("cancel", work), ("cancel", quick)]
        assert desk.state(waiting) is JobState.CANCELLED
        desk.send(work, Progress(1, 2, "layers", "late"))
        assert desk.queue.row(work).label == "stopping"
        desk.send(work, JobEnded(JobState.CANCELLED))
        assert not desk.idle
        desk.send(quick, JobEnded(JobState.CANCELLED))
        assert desk.idle

    def test_that_a_paused_job_tells_its_back_end_once(self, desk):
        job = desk.add("search")
        for act in (desk.queue.pause, desk.queue.pause, desk.queue.resume, desk.queue.resume):
            act(job)
        assert desk.backend.told == [("pause", job), ("resume", job)]

    def test_that_a_paused_job_that_is_to_end_early_goes_on(self, desk):
        job = desk.add("train")
        desk.queue.pause(job)
        desk.queue.finish(job)
        desk.queue.finish("nobody")
        assert desk.backend.told == [("pause", job), ("resume", job), ("finish", job)]
        assert desk.queue.row(job).state is JobState.RUNNING

    def test_that_only_old_rows_of_jobs_that_ended_are_forgotten(self, desk):
        running = desk.add("search")
        for number in range(120):
            job = desk.add(f"check {number}", Lane.QUICK)
            desk.send(job, DONE)
        assert len(desk.queue.rows) == 100
        assert desk.queue.row(running) is not None
        assert desk.queue.row(job) is not None


def test_that_a_pump_gives_up_after_its_time():
    assert not Pump().run_until(lambda: False, timeout_s=0.0)
