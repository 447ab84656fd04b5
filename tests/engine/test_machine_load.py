"""The load that other programs put on the machine while runs are timed."""

from types import SimpleNamespace

import psutil
import pytest

from quantstudio.core.codec import from_json, to_json
from quantstudio.core.results import LatencyResult
from quantstudio.engine.evaluation.machine_load import LoadMeter, processor_mhz

TIMES = LatencyResult(1.0, 1.0, 1.0, 1.0, 1.0, 1, 1, 1, "cpu")


def seconds(monkeypatch, *, user, idle, own):
    monkeypatch.setattr(psutil, "cpu_times", lambda: CpuTimes(user, idle))
    monkeypatch.setattr(psutil.Process, "cpu_times", lambda _self: SimpleNamespace(user=own, system=0.0))


class CpuTimes(tuple):
    """As psutil gives them where a system knows only two kinds of time."""

    def __new__(cls, user, idle):
        return super().__new__(cls, (user, idle))

    @property
    def idle(self):
        return self[1]


def test_that_own_time_is_no_load_of_others(monkeypatch):
    seconds(monkeypatch, user=10.0, idle=10.0, own=2.0)
    meter = LoadMeter()
    # Of 10 seconds on all processors 7 were busy, 4 of them ours.
    seconds(monkeypatch, user=17.0, idle=13.0, own=6.0)
    assert meter.other_share() == pytest.approx(0.3)


def test_that_time_in_which_nothing_was_timed_is_left_out(monkeypatch):
    seconds(monkeypatch, user=10.0, idle=10.0, own=2.0)
    meter = LoadMeter()
    seconds(monkeypatch, user=11.0, idle=11.0, own=3.0)
    meter.keep()
    seconds(monkeypatch, user=91.0, idle=11.0, own=3.0)  # another of our processes, in a pause
    meter.leave_out()
    seconds(monkeypatch, user=92.0, idle=12.0, own=3.0)
    assert meter.other_share() == pytest.approx(0.25)


def test_that_clocks_of_different_steps_give_no_negative_load(monkeypatch):
    seconds(monkeypatch, user=0.0, idle=0.0, own=0.0)
    meter = LoadMeter()
    assert meter.other_share() is None
    seconds(monkeypatch, user=1.0, idle=1.0, own=1.01)
    assert meter.other_share() == 0.0


def test_that_a_machine_that_does_not_tell_its_frequency_is_fine(monkeypatch):
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None, raising=False)
    assert processor_mhz() is None


def test_that_latency_of_older_projects_still_reads():
    values = to_json(TIMES)
    del values["other_load"], values["processor_mhz"]
    assert from_json(LatencyResult, values) == TIMES
    assert TIMES.load_text == ""


def test_that_the_load_is_said_in_words():
    values = to_json(TIMES) | {"other_load": 0.634}
    assert from_json(LatencyResult, values).load_text == (
        "other programs used 63 % of the processors meanwhile"
    )
