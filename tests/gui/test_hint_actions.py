"""What the window offers to do about an error: a button in the notification, the list of jobs, the dialog."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QLineEdit, QPushButton

from quantstudio.core.events import ErrorInfo, JobEnded, JobState
from quantstudio.core.hints import Hint, HintAction
from quantstudio.gui.features.data.data_dialog import DataDialog
from quantstudio.gui.features.data.trust_dialog import TrustDialog
from quantstudio.gui.features.jobs.jobs_panel import JobLine, JobsPanel
from quantstudio.gui.shell.hint_actions import OFFERS
from quantstudio.gui.shell.main_window import MainWindow
from tests.gui.conftest import find, settle
from tests.workspace.canned import OUTLINE

NO_DATA = Hint("Choose data", HintAction.CHOOSE_DATA)


def fails(hint: Hint, what: str = "it cannot be done"):
    """An engine that gives this hint."""
    return lambda _params: [JobEnded(JobState.FAILED, error=ErrorInfo("DataError", what, hint=hint))]


def newest_line(window: MainWindow) -> JobLine:
    window.show_view("jobs")
    return find(window, JobsPanel).line(window.session.workspace.jobs.rows[-1].job_id)


def remedy_of_toast(window: MainWindow) -> QPushButton:
    return find(window.toasts.toasts[-1], QPushButton, "toast.remedy")


@contextmanager
def something_missing(window: MainWindow) -> Iterator[None]:
    """The data is not where the project says."""
    data = window.session.workspace.calibration_data
    assert data is not None
    path = Path(data.path)
    away = path.rename(path.with_name("away.npz"))
    yield
    away.rename(path)


@contextmanager
def something_earlier(window: MainWindow) -> Iterator[None]:
    """The model has another session, which is gone by the time it is asked for."""
    documents = window.session.workspace.documents
    documents._earlier = Path("gone.qstudio")
    yield
    documents._earlier = None


def press(qtbot, button: QPushButton) -> None:
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_that_every_action_has_words_and_an_action_of_the_window(full):
    assert set(OFFERS) == set(HintAction)
    for words, action in OFFERS.values():
        assert words
        assert action in full.actions_list.described


@pytest.mark.parametrize("action", HintAction)
def test_that_a_press_does_the_action(qtbot, full, action):
    words, name = OFFERS[action]
    present = {HintAction.LOCATE_FILES: something_missing, HintAction.OPEN_SESSION: something_earlier}
    with present.get(action, nullcontext)(full):
        full.context.tell("error", "It failed", Hint("Do something", action))
        toast, button = full.toasts.toasts[-1], remedy_of_toast(full)
        assert button.text() == words
        with qtbot.waitSignal(full.actions_list[name].triggered):
            press(qtbot, button)
    assert toast not in full.toasts.toasts


def test_that_missing_files_can_be_located_only_where_some_are(full):
    locate = full.actions_list["file.locate"]
    full.actions_list.refresh()
    assert not locate.isEnabled()
    assert "Every file is where it was" in locate.toolTip()
    with something_missing(full):
        full.actions_list.refresh()
        assert locate.isEnabled()


def test_that_no_two_notifications_have_the_same_button(qtbot, full):
    for toast in full.toasts.toasts:
        toast.closed.emit(toast)
    for what in ("Sensitivity failed", "Measure failed"):
        full.context.tell("error", what, Hint("Choose data", HintAction.CHOOSE_DATA))
    full.context.tell("warning", "Nothing was found", Hint("See them", HintAction.LIST_LAYERS))
    texts = [find(toast, QLabel, "toast.text").text() for toast in full.toasts.toasts]
    assert texts == ["Sensitivity failed\nMeasure failed", "Nothing was found"]
    buttons = [find(toast, QPushButton, "toast.remedy").text() for toast in full.toasts.toasts]
    assert buttons == ["Choose data…", "Show the layers"]


class TestJob:
    def test_that_the_line_of_a_failed_job_offers_what_helps(self, qtbot, full, runner):
        runner.answers["devices"] = fails(NO_DATA)
        full.session.workspace.runs.devices(lambda _found: None)
        settle(full)
        line = newest_line(full)
        assert "Choose data" in line.detail.text()
        assert line.remedy.isVisible()
        assert line.remedy.text() == "Choose data…"
        press(qtbot, line.remedy)
        assert find(full, DataDialog).isVisible()

    def test_that_the_notification_of_a_failed_job_offers_it_too(self, qtbot, full, runner):
        runner.answers["devices"] = fails(NO_DATA)
        full.session.workspace.runs.devices(lambda _found: None)
        settle(full)
        assert full.toasts.toasts[-1].key[1].endswith("it cannot be done")
        press(qtbot, remedy_of_toast(full))
        assert find(full, DataDialog).isVisible()

    def test_that_a_job_whose_error_needs_no_action_has_no_button(self, full, runner):
        runner.answers["devices"] = fails(Hint("Repair the model"))
        full.session.workspace.runs.devices(lambda _found: None)
        settle(full)
        assert newest_line(full).remedy.isHidden()

    def test_that_the_button_can_be_pressed_when_the_action_can_be_done(self, full, runner):
        runner.answers["devices"] = fails(NO_DATA)
        full.session.workspace.runs.devices(lambda _found: None)
        settle(full)
        line, action = newest_line(full), full.actions_list["model.data"]
        action.setEnabled(False)
        assert not line.remedy.isEnabled()
        action.setEnabled(True)
        assert line.remedy.isEnabled()
        assert line.remedy.toolTip() == action.toolTip()


def test_that_a_notification_offers_nothing_that_cannot_be_done(full):
    full.session.workspace.subject = None
    full.context.tell("error", "There is no model", Hint("Quantize first", HintAction.QUANTIZE))
    assert full.toasts.toasts[-1].findChild(QPushButton, "toast.remedy") is None


def test_that_the_layers_are_shown_where_their_names_help(qtbot, full):
    full.views.left_dock.hide()
    full.context.tell("error", "There is no such layer", Hint("See them", HintAction.LIST_LAYERS))
    press(qtbot, remedy_of_toast(full))
    assert full.views.left_dock.isVisible()


class TestOpeningAgain:
    def test_that_a_model_that_could_not_be_opened_is_opened_again(self, full, runner, tmp_path):
        path = tmp_path / "later.onnx"
        path.write_bytes(b"cut off")
        documents = full.session.workspace.documents
        documents.open_path(str(path))
        assert full.actions_list["file.reopen"].text() == "Open later.onnx a&gain"
        path.write_bytes(OUTLINE)
        before = len(runner.submitted)
        remedy_of_toast(full).click()
        settle(full)
        assert "open_model" in runner.tasks[before:]
        assert documents.to_reopen == full.session.workspace.model.source_path

    @pytest.mark.parametrize(
        ("action", "words"),
        [
            (HintAction.GIVE_FACTORY, "Give a function…"),
            (HintAction.LEAVE_OUT_FACTORY, "Open it again…"),
        ],
    )
    def test_that_a_function_can_be_given_to_weights_alone(self, full, runner, tmp_path, action, words):
        path = tmp_path / "net.pt"
        path.write_bytes(b"weights")
        runner.answers["open_model"] = fails(Hint("Give the function that makes the network", action))
        full.session.workspace.documents.open_model(str(path), trust=True, factory="nets:make")
        settle(full)
        line = newest_line(full)
        assert line.remedy.text() == words
        line.remedy.click()
        dialog = find(full, TrustDialog)
        assert find(dialog, QLineEdit, "trust.file").text() == str(path)
        assert dialog.factory.text() == "nets:make"
        assert not dialog.agree.isChecked()

    def test_that_a_program_without_a_telling_name_is_asked_about_then(self, full, runner, tmp_path):
        path = tmp_path / "net"
        path.write_bytes(b"a program")
        hint = Hint("If you know where it comes from, agree to run it", HintAction.TRUST_MODEL)
        runner.answers["open_model"] = fails(hint, "this is a TorchScript program")
        full.session.workspace.documents.open_path(str(path))
        settle(full)
        remedy_of_toast(full).click()
        dialog = find(full, TrustDialog)
        assert find(dialog, QLineEdit, "trust.file").text() == str(path)

    def test_that_nothing_is_opened_again_before_anything_was(self, full):
        full.session.workspace.subject = None
        full.actions_list.refresh()
        assert not full.actions_list["file.reopen"].isEnabled()


class TestDataDialog:
    @pytest.mark.parametrize(
        ("action", "is_offered"), [(HintAction.OPEN_MODEL_AGAIN, True), (HintAction.CHECK_DATA, False)]
    )
    def test_that_it_offers_what_it_is_not_there_for_itself(self, full, runner, tmp_path, action, is_offered):
        runner.answers["examine_data"] = fails(Hint("Do something", action))
        dialog = DataDialog(full.context)
        dialog.open()
        settle(full)
        assert "Do something" in dialog.doctor.status.text()
        assert dialog.remedy.isVisible() == is_offered
        if is_offered:
            dialog.remedy.click()
            assert not dialog.isVisible()
