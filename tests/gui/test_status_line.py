"""What the line at the bottom says, and what stopping stops."""

from __future__ import annotations

from importlib.metadata import version

from PySide6.QtCore import Qt

from quantstudio.core.events import JobState
from quantstudio.jobs.worker_setup import thread_limit
from quantstudio.workspace.values import EngineOptions
from tests.gui.conftest import settle


def test_that_it_says_what_judges_on_how_many_threads_in_how_much_memory(full):
    full.session.workspace.options = EngineOptions(threads=3)
    full.status_line.show_machine()
    runtime, threads, memory = full.status_line.machine.text().split("  ·  ")
    assert runtime == f"ONNX Runtime {version('onnxruntime')}"
    assert threads == "3 threads"
    assert memory.endswith(("MB", "GB"))
    full.session.workspace.options = EngineOptions()
    full.status_line.show_machine()
    assert f"  {thread_limit()} thread" in full.status_line.machine.text()


def test_that_what_the_program_asks_for_itself_is_not_news(full):
    full.session.workspace.runs.quantize_preset("static-int8")
    settle(full)
    before = full.status_line.job.text()
    full.session.workspace.runs.devices(lambda _found: None)
    settle(full)
    assert full.session.workspace.jobs.rows[-1].title == "List devices"
    assert full.status_line.job.text() == before


def test_that_escape_stops_what_runs_and_leaves_what_waits(qtbot, runner, full):
    jobs = full.session.workspace.jobs
    runner.is_holding = True
    full.session.workspace.runs.calibrate()
    full.session.workspace.runs.exact_sensitivity(full.session.selection)
    qtbot.waitUntil(lambda: jobs.running is not None)
    first = jobs.running.job_id
    waiting = [row.job_id for row in jobs.rows if row.state is JobState.QUEUED]
    assert waiting
    qtbot.waitUntil(full.actions_list["run.stop"].isEnabled)
    qtbot.keyClick(full, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: jobs.row(first).state is JobState.CANCELLED)
    assert all(jobs.row(one).state is not JobState.CANCELLED for one in waiting)
    full.actions_list["run.stop_all"].trigger()
    runner.is_holding = False
    settle(full)
    assert all(jobs.row(one).state is JobState.CANCELLED for one in waiting)
