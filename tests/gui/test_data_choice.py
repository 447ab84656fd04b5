"""Choosing data: it is opened against the model first, and what cannot be used replaces nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.events import ErrorInfo, JobEnded, JobState, Timing
from quantstudio.core.hints import Hint
from quantstudio.gui.features.data.data_dialog import DataDialog
from quantstudio.gui.features.data.trust_dialog import TrustDialog
from quantstudio.jobs.spec import Lane
from tests.gui.conftest import find, settle, wait_until
from tests.workspace.canned import ANSWERS


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, x=np.zeros((2, 3), np.float32))
    return str(path)


def refuses(path):
    """An engine that cannot use one file."""

    def answer(params):
        if params["data"]["path"] != path:
            return ANSWERS["data_summary"](params)
        error = ErrorInfo(
            "DataError", "samples are 1x28x28, the model takes 3x32x32", path, Hint("Add resize=32")
        )
        return [JobEnded(JobState.FAILED, error=error)]

    return answer


@pytest.mark.parametrize("which", ["calibration", "test"])
def test_that_data_that_cannot_be_used_replaces_nothing(full, runner, npz, which):
    session = full.session
    before, measured = session.workspace.calibration_data, session.workspace.current_variant.result
    runner.answers["data_summary"] = refuses(npz)
    dialog = DataDialog(full.context)
    dialog.open()
    getattr(dialog, which).path.setText(npz)
    dialog.use.click()
    settle(full)
    assert (session.workspace.calibration_data, session.workspace.test_data) == (before, None)
    assert session.workspace.current_variant.result is measured
    assert session.workspace.sensitivity_curve is not None
    assert dialog.isVisible()
    assert "the model takes 3x32x32" in dialog.found.text()
    assert "Nothing was changed" in dialog.found.text()
    assert dialog.use.isEnabled()


def test_that_the_dialog_closes_once_the_data_is_in_use(full, npz):
    dialog = DataDialog(full.context)
    dialog.open()
    dialog.test.path.setText(npz)
    closed: list[int] = []
    dialog.finished.connect(closed.append)
    dialog.use.click()
    settle(full)
    assert closed == [1]
    assert full.session.workspace.test_data == DataSpec(npz)


def test_that_cancelling_while_data_is_checked_changes_nothing(full, runner, npz):
    before = full.session.workspace.calibration_data
    dialog = DataDialog(full.context)
    dialog.open()
    dialog.calibration.path.setText(npz)
    runner.is_holding = True
    dialog.use.click()
    assert not dialog.use.isEnabled()
    assert not dialog.calibration.isEnabled()
    QTest.keyClick(dialog, Qt.Key.Key_Escape)
    runner.is_holding = False
    runner.release()
    settle(full)
    assert full.session.workspace.calibration_data == before


def test_that_stopping_the_check_gives_the_dialog_back(full, runner, npz):
    dialog = DataDialog(full.context)
    dialog.open()
    dialog.calibration.path.setText(npz)
    runner.is_holding = True
    dialog.use.click()
    full.session.workspace.jobs.cancel()
    runner.is_holding = False
    settle(full)
    assert "Nothing was changed" in dialog.found.text()
    assert dialog.use.isEnabled()


def test_that_data_is_checked_while_other_work_runs(full, runner, npz):
    runner.is_holding = True
    full.session.workspace.runs.calibrate()
    dialog = DataDialog(full.context)
    dialog.open()
    dialog.calibration.path.setText(npz)
    wait_until(lambda: runner.tasks[-1] == "examine_data")
    assert "Looking" in dialog.doctor.status.text()
    assert full.session.workspace.jobs.running.title == "Calibrate"


def test_that_data_is_checked_while_other_work_times_runs(full, runner, npz):
    runner.is_holding = True
    full.session.workspace.runs.calibrate()
    work = runner.submitted[-1].id
    runner.emit(work, Timing(begins=True))
    wait_until(lambda: ("allow timing", work) in runner.pauses)
    dialog = DataDialog(full.context)
    dialog.open()
    dialog.calibration.path.setText(npz)
    wait_until(lambda: runner.tasks[-2:] == ["examine_data", "examine_data"])
    assert runner.pauses[-1] == ("pause", work)


def test_that_the_worker_of_checks_gets_ready_with_the_dialog_and_stays_while_one_types(full, runner, npz):
    runner.prepared.clear()
    dialog = DataDialog(full.context)
    assert runner.prepared == [Lane.QUICK]
    dialog.calibration.path.setText(npz)
    assert runner.prepared[1:] == [Lane.QUICK]


def test_that_new_test_data_alone_does_not_analyse_again(full, runner, npz):
    count = len(runner.submitted)
    full.session.workspace.documents.choose_data(full.session.workspace.calibration_data, DataSpec(npz))
    settle(full)
    assert runner.tasks[count:] == ["data_summary"]
    assert full.session.workspace.current_variant.result is None  # measured on other samples


def test_that_figures_measured_on_old_calibration_data_are_forgotten(full, npz):
    assert full.session.workspace.is_measured_on_calibration
    full.session.workspace.documents.choose_data(DataSpec(npz), None)
    settle(full)
    assert full.session.workspace.base.result is None


def test_that_the_same_file_may_be_checked_with_two_transforms(full, runner, npz):
    count = len(runner.submitted)
    full.session.workspace.documents.choose_data(DataSpec(npz), DataSpec(npz, parse_transform("layout=NCHW")))
    settle(full)
    checked = [job for job in runner.submitted[count:] if job.task.endswith(":data_summary")]
    assert [job.params["data"]["transform"]["layout"] for job in checked] == ["keep", "NCHW"]


def test_that_each_function_is_asked_about(qtbot, full):
    first, second = DataSpec("mydata:train"), DataSpec("mydata:test")
    full.session.workspace.documents.choose_data(first, second)
    dialog = find(full, TrustDialog)
    assert dialog.file.text() == "mydata:train"
    dialog.agree.click()
    dialog.run_button.click()
    qtbot.waitUntil(lambda: any(d.file.text() == "mydata:test" for d in full.findChildren(TrustDialog)))
    other = next(d for d in full.findChildren(TrustDialog) if d.file.text() == "mydata:test")
    other.reject()
    settle(full)
    assert full.session.workspace.test_data is None


def test_that_the_tab_key_goes_through_the_fields_as_they_stand(qtbot, full):
    dialog = DataDialog(full.context)
    dialog.open()
    assert QTest.qWaitForWindowActive(dialog, 5000)
    dialog.calibration.path.setFocus()
    names = []
    for _ in range(6):
        focused = dialog.focusWidget()
        assert focused is not None
        names.append(focused.objectName().removeprefix("data.").replace("qt_spinbox_lineedit", "samples"))
        QTest.keyClick(focused, Qt.Key.Key_Tab)
    assert names == [
        "calibration.path",
        "calibration.browse",
        "calibration.folder",
        "calibration.transform",
        "calibration.samples",
        "test.path",
    ]


def test_that_test_data_is_transformed_alike_until_told_otherwise(full):
    dialog = DataDialog(full.context)
    dialog.open()
    for field in (dialog.calibration.transform, dialog.test.transform):
        field.clear()
    QTest.keyClicks(dialog.calibration.transform, "layout=NCHW")
    assert dialog.test.transform.text() == "layout=NCHW"
    dialog.test.transform.setText("layout=NHWC")
    QTest.keyClicks(dialog.calibration.transform, " scale=2")
    assert dialog.test.transform.text() == "layout=NHWC"


def test_that_a_failed_check_is_told_once_and_the_button_says_what_is_missing(qtbot, full, runner, npz):
    said = "samples are 1x28x28, the model takes 3x32x32"
    runner.answers["data_summary"] = runner.answers["examine_data"] = refuses(npz)
    dialog = DataDialog(full.context)
    dialog.open()
    dialog.calibration.path.setText(npz)
    qtbot.waitUntil(lambda: said in dialog.doctor.status.text().lower())
    dialog.use.click()
    settle(full)
    assert dialog.found.text() == "Nothing was changed."
    dialog.calibration.path.setText("")
    assert not dialog.use.isEnabled()
    assert dialog.use.toolTip() == "Choose calibration data first"
    dialog.calibration.path.setText("/nowhere.npz")
    assert "There is no such file" in dialog.use.toolTip()
