"""The data dialog names what is judged and why; another task is chosen there and kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.judgement import Judging, Task
from quantstudio.gui.features.data.data_dialog import DataDialog
from tests.gui.conftest import settle, wait_until


@pytest.fixture
def train(tmp_path):
    path = tmp_path / "train.npz"
    np.savez(path, x=np.zeros((2, 3), np.float32))
    return str(path)


def opened(window) -> DataDialog:
    dialog = DataDialog(window.context)
    dialog.open()
    settle(window)
    return dialog


def asked(runner):
    return [job.params["data"]["judging"] for job in runner.submitted if job.task.endswith(":judge_outputs")]


def test_that_the_task_is_named_with_its_reason(full) -> None:
    dialog = opened(full)
    wait_until(lambda: bool(dialog.judged.reason.text()))
    assert dialog.judged.task.itemText(0) == "As inferred: Classification"
    assert dialog.judged.reason.text() == "Labels are classes."


def test_that_another_task_is_chosen_and_kept_in_the_project(full, runner) -> None:
    dialog = opened(full)
    wait_until(lambda: bool(asked(runner)))
    box = dialog.judged.task
    box.setCurrentIndex(box.findData(Task.DETECT.value))
    box.activated.emit(box.currentIndex())
    wait_until(lambda: asked(runner)[-1]["task"] == "detect")
    dialog.use.click()
    settle(full)
    workspace = full.session.workspace
    assert workspace.calibration_data.judging == Judging(Task.DETECT)
    assert opened(full).judged.judging.task is Task.DETECT


def test_that_what_no_field_shows_stays(full, train) -> None:
    workspace = full.session.workspace
    said = DataSpec(train, batch_axes=(("x", 0),), judging=Judging(output="logits"))
    workspace.opening.set_data(said, None)
    settle(full)
    dialog = opened(full)
    assert dialog.calibration.spec == said
    dialog.test.path.setText(train)
    test = dialog.test.spec
    assert test is not None
    assert test == replace(said, transform=test.transform)


def test_that_the_axis_of_the_samples_is_named_beside_the_data(full) -> None:
    dialog = opened(full)
    dialog.axes.axes.setText("input")
    assert not dialog.use.isEnabled()
    assert "not NAME=K" in dialog.use.toolTip()
    dialog.axes.axes.setText("input=0 logits=1")
    assert dialog.use.isEnabled()
    for fields in (dialog.calibration, dialog.test):
        assert fields.batch_axes == (("input", 0), ("logits", 1))
    dialog.use.click()
    settle(full)
    assert full.session.workspace.calibration_data.batch_axes == (("input", 0), ("logits", 1))
    assert opened(full).axes.axes.text() == "input=0 logits=1"
