"""Progress is held to twenty events per second with a time left; results and messages never wait."""

from __future__ import annotations

import pytest

from quantstudio.core.events import CancelToken, Event, Message, PartFound, Progress, Severity
from quantstudio.jobs.reporters import EventReporter, TimeLeft, working_clock
from tests.parts import layer_found


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_that_steady_work_gives_the_exact_time_left() -> None:
    estimate = TimeLeft()
    left = [estimate.update(done, 100, "batches", 0.25 * done) for done in range(41)]
    assert left[:2] == [None, None]
    # 60 batches of 0.25 s.
    assert left[40] == pytest.approx(15.0)


def test_that_recent_speed_counts_more() -> None:
    estimate = TimeLeft()
    now = 0.0
    for done in range(101):
        estimate.update(done, 200, "batches", now)
        now += 1.0
    for done in range(101, 151):
        now += 0.1
        left = estimate.update(done, 200, "batches", now)
    assert left is not None
    # 50 left: 5 s at the new speed, 50 s at the old one; the mean over everything would say 35 s.
    assert 5.0 < left < 20.0


def test_that_time_left_counts_down_while_a_unit_takes_long() -> None:
    estimate = TimeLeft()
    for done in range(5):
        estimate.update(done, 10, "layers", 2.0 * done)
    assert estimate.update(4, 10, "layers", 9.0) == pytest.approx(12.0 - 1.0)
    # Never below the units that remain after this one.
    assert estimate.update(4, 10, "layers", 60.0) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("done", "total", "unit"),
    [
        pytest.param(1, 20, "layers", id="unit"),
        pytest.param(1, 21, "batches", id="total"),
        pytest.param(1, 20, "batches", id="start again"),
    ],
)
def test_that_a_new_phase_starts_a_new_estimate(done: int, total: int, unit: str) -> None:
    estimate = TimeLeft()
    for step in range(10):
        estimate.update(step, 20, "batches", float(step))
    assert estimate.update(done, total, unit, 10.0) is None


def test_that_unknown_totals_have_no_time_left() -> None:
    estimate = TimeLeft()
    assert [estimate.update(done, 0, "samples", float(done)) for done in range(5)] == [None] * 5


def test_that_progress_is_at_most_twenty_a_second_and_the_newest_survives() -> None:
    clock, events = Clock(), list[Event]()
    reporter = EventReporter(events.append, clock=clock)
    for done in range(1, 1001):
        clock.now += 0.002
        reporter.progress(done, 1000, "batches", "Calibrating")
    # Two seconds.
    assert 35 <= len(events) <= 41
    reporter.flush(final=True)
    assert isinstance(events[-1], Progress)
    assert events[-1].done == 1000
    count = len(events)
    reporter.flush(final=True)
    assert len(events) == count


def test_that_flush_emits_held_back_progress_only_when_due() -> None:
    clock, events = Clock(), list[Event]()
    reporter = EventReporter(events.append, clock=clock)
    reporter.progress(1, 3, "layers", "a")
    clock.now += 0.01
    reporter.progress(2, 3, "layers", "b")
    reporter.flush()
    assert len(events) == 1
    clock.now += 0.05
    reporter.flush()
    assert events[1:] == [Progress(2, 3, "layers", "b", None)]


def test_that_parts_and_messages_are_never_held_back() -> None:
    clock, events = Clock(), list[Event]()
    reporter = EventReporter(events.append, clock=clock)
    for i in range(200):
        reporter.progress(i, 200, "layers", "x")
        reporter.found(layer_found(f"l{i}"))
        reporter.message("careful", Severity.WARNING)
    assert sum(isinstance(event, Progress) for event in events) == 1
    parts = [event for event in events if isinstance(event, PartFound)]
    assert parts == [PartFound(layer_found(f"l{i}")) for i in range(200)]
    assert sum(isinstance(event, Message) for event in events) == 200


def test_that_a_pause_is_no_part_of_the_time_left() -> None:
    clock, events = Clock(), list[Event]()
    token = CancelToken(clock)
    reporter = EventReporter(events.append, clock=working_clock(token, clock))
    for done in range(4):
        reporter.progress(done, 10, "batches", "Counting")
        clock.now += 1
    token.pause()
    clock.now += 500
    assert reporter.quiet_s == pytest.approx(1)
    token.resume()
    reporter.progress(4, 10, "batches", "Counting")
    last = events[-1]
    assert isinstance(last, Progress)
    assert last.seconds_left == pytest.approx(6)


def test_that_silence_is_measured_since_the_last_word() -> None:
    clock, events = Clock(), list[Event]()
    reporter = EventReporter(events.append, clock=clock)
    clock.now += 3
    assert reporter.quiet_s == pytest.approx(3)
    reporter.message("here")
    assert reporter.quiet_s == 0
