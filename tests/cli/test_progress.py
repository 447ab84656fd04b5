"""Progress on a terminal: one bar at a time."""

from __future__ import annotations

import sys

import pytest

from quantstudio.cli.progress import TerminalReporter


def test_that_only_the_work_in_progress_has_a_bar() -> None:
    reporter = TerminalReporter()
    steps = (("Building", 1, "plans"), ("Pricing", 2, "schemes"), ("Building", 3, "plans"), ("Timing", 1, ""))
    for label, done, unit in steps:
        reporter.progress(done, 5, unit, label)
        shown = [task for task in reporter._progress.tasks if task.visible]
        assert [(task.description, task.completed) for task in shown] == [
            (f"{label} ({unit})" if unit else label, done)
        ]


def test_that_nothing_is_drawn_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert not sys.stderr.isatty()
    with TerminalReporter() as reporter:
        reporter.progress(1, 2, "samples", "Measuring")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
