"""What is said of a job under way: how far it is and how long it will take."""

from __future__ import annotations

import pytest

from quantstudio.core.events import JobState
from quantstudio.gui.facts.job_facts import opening_text, progress_text, time_left
from quantstudio.jobs.rows import JobRow


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "almost done"), (3, "3 s left"), (120, "2 min left"), (9000, "2.5 h left")],
)
def test_that_time_left_is_said_roughly(seconds: float, text: str) -> None:
    assert time_left(seconds) == text


def test_that_progress_says_units_and_state() -> None:
    row = JobRow("1", "Calibrate", JobState.RUNNING, 8, 16, "batches", seconds_left=3.0)
    assert progress_text(row) == "Calibrate  8 / 16 batches, 3 s left"
    for state, text in (
        (JobState.PAUSED, "Calibrate  8 / 16 batches, paused"),
        (JobState.CANCELLING, "Calibrate: stopping"),
    ):
        assert progress_text(JobRow("1", "Calibrate", state, 8, 16, "batches")) == text
    assert progress_text(JobRow("1", "Calibrate", JobState.RUNNING)) == "Calibrate"


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("Reading big.onnx", "Open big.onnx: reading  1 / 4 steps"),
        ("Normalising 2.6 GB, one weight", "Open big.onnx: normalising 2.6 GB, one weight  1 / 4 steps"),
        ("", "Open big.onnx  1 / 4 steps"),
    ],
)
def test_that_progress_in_few_unlike_steps_says_which_one_runs(label: str, text: str) -> None:
    row = JobRow("1", "Open big.onnx", JobState.RUNNING, 1, 4, "steps", label)
    assert progress_text(row) == text


def test_that_a_file_with_spaces_in_its_name_is_said_once() -> None:
    row = JobRow("1", "Open my net.onnx", JobState.RUNNING, 0, 4, "steps", "Reading my net.onnx")
    assert progress_text(row) == "Open my net.onnx: reading  0 / 4 steps"
    assert opening_text(row) == ("Opening my net.onnx", "Reading  ·  step 1 of 4")
