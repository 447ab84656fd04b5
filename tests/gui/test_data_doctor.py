"""The data dialog with the doctor: a transform is proposed before anything is pressed; faults are mended."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QFileDialog

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.diagnosis import Caution, Diagnosis, ShownSample, Trial, Trouble
from quantstudio.core.events import ErrorInfo, JobEnded, JobState, PartFound
from quantstudio.core.hints import Hint
from quantstudio.gui.features.data.data_dialog import DataDialog
from quantstudio.gui.features.data.doctor_card import DoctorCard
from tests.gui.conftest import find, settle, wait_until
from tests.workspace.canned import diagnosis, succeeded

PROPOSED = "scale=1/255"


@pytest.fixture
def train(tmp_path):
    path = tmp_path / "shoes_train.npz"
    np.savez(path, x=np.zeros((2, 3), np.float32))
    return str(path)


@pytest.fixture
def fresh(full, runner):
    """The window with a model and no data."""
    runner.submitted.clear()
    full.session.workspace.opening.set_data(None, None)
    settle(full)
    return full


def says(**more):
    """A doctor who says the same of everything."""
    return lambda params: [succeeded(diagnosis(params["data"]["path"], **more))]


def opened(window, **offered) -> DataDialog:
    dialog = DataDialog(window.context, **offered)
    dialog.open()
    settle(window)
    return dialog


def questions(runner):
    return [job.params for job in runner.submitted if job.task.endswith(":examine_data")]


def picture() -> str:
    memory = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(memory, "PNG")
    return base64.b64encode(memory.getvalue()).decode()


class TestProposal:
    def test_that_it_is_in_the_fields_before_anything_is_pressed(self, fresh, runner, train):
        dialog = opened(fresh, offered=train)
        assert questions(runner)[-1]["is_asked"] is False
        assert dialog.calibration.transform.text() == PROPOSED
        assert dialog.doctor.figure.text().startswith("92.00")
        assert "512 of 1" in dialog.doctor.figure_note.text()
        assert dialog.doctor.tag.text == "measured"
        assert "89.00" in dialog.doctor.interval.text()
        assert dialog.doctor.apply.isHidden()
        assert "in use" in dialog.doctor.proposal_caption.text()

    def test_that_putting_it_there_is_no_new_question(self, fresh, runner, train):
        dialog = opened(fresh, offered=train)
        assert len(questions(runner)) == 1
        assert not dialog.examination.is_waiting

    def test_that_test_data_beside_the_training_data_is_found_and_said_to_be(self, fresh, train, tmp_path):
        np.savez(tmp_path / "shoes_test.npz", x=np.zeros((2, 3), np.float32))
        dialog = opened(fresh, offered=train)
        assert dialog.test.path.text() == str(tmp_path / "shoes_test.npz")
        assert dialog.test.transform.text() == PROPOSED
        assert "Found beside" in dialog.test.problem.text()
        dialog.test.path.clear()
        assert "Found beside" not in dialog.test.problem.text()

    def test_that_a_first_answer_shows_before_the_last(self, fresh, runner, train):
        runner.is_holding = True
        dialog = DataDialog(fresh.context, offered=train)
        dialog.open()
        job = runner.submitted[-1].id
        first = replace(diagnosis(train), is_final=False, figure=None, inputs=())
        runner.emit(job, PartFound(first))
        wait_until(lambda: dialog.calibration.transform.text() == PROPOSED)
        assert "first" in dialog.doctor.status.text()
        assert dialog.doctor.figure.text().startswith("92.00")
        runner.is_holding = False
        runner.release()
        settle(fresh)
        assert dialog.doctor.status.text() == ""

    def test_that_what_was_typed_stays(self, fresh, runner, train):
        dialog = opened(fresh)
        QTest.keyClicks(dialog.calibration.transform, "scale=1/2")
        dialog.calibration.path.setText(train)
        wait_until(lambda: questions(runner) and questions(runner)[-1]["is_asked"])
        settle(fresh)
        assert dialog.calibration.transform.text() == "scale=1/2"
        assert not dialog.doctor.apply.isHidden()
        dialog.doctor.apply.click()
        settle(fresh)
        assert dialog.calibration.transform.text() == PROPOSED
        assert dialog.doctor.apply.isHidden()

    def test_that_data_in_use_keeps_its_transform(self, full, runner):
        dialog = opened(full)
        assert questions(runner)[-1]["is_asked"] is True
        assert dialog.calibration.transform.text() == ""


class TestRemembered:
    def test_that_networks_with_such_inputs_get_what_they_got_last(self, fresh, runner, train):
        workspace = fresh.session.workspace
        workspace.opening.set_data(DataSpec(train, parse_transform("scale=1/16")), None)
        workspace.opening.set_data(None, None)
        settle(fresh)
        assert workspace.doctor.remembered == "scale=1/16"
        dialog = opened(fresh, offered=train)
        assert dialog.calibration.transform.text() == "scale=1/16"
        assert questions(runner)[-1]["is_asked"] is True

    def test_that_it_gives_way_where_it_is_wrong(self, fresh, runner, train):
        workspace = fresh.session.workspace
        workspace.opening.set_data(DataSpec(train, parse_transform("scale=1/16")), None)
        workspace.opening.set_data(None, None)
        settle(fresh)
        wrong = Caution(
            Trouble.WRONG_TRANSFORM, "It gives 8 %.", Hint("Use the other"), parse_transform(PROPOSED)
        )

        def answer(params):
            return says(cautions=(wrong,) if params["is_asked"] else ())(params)

        runner.answers["examine_data"] = answer
        dialog = opened(fresh, offered=train)
        assert dialog.calibration.transform.text() == PROPOSED
        assert dialog.doctor.caution_lines == ()


class TestCautions:
    def test_that_the_button_of_a_wrong_transform_puts_the_right_one_in_place(self, fresh, runner, train):
        wrong = Caution(
            Trouble.WRONG_TRANSFORM, "It gives 8 %.", Hint("Use the other"), parse_transform(PROPOSED)
        )
        typed = Trial(parse_transform("scale=1/2"), "as typed", 0.08, 512)

        def answer(params):
            more = {"cautions": (wrong,), "asked": typed} if params["is_asked"] else {}
            return says(**more)(params)

        runner.answers["examine_data"] = answer
        dialog = opened(fresh, offered=train)
        dialog.calibration.transform.clear()
        QTest.keyClicks(dialog.calibration.transform, "scale=1/2")
        wait_until(lambda: bool(dialog.doctor.caution_lines))
        (line,) = dialog.doctor.caution_lines
        assert line.label.text() == "It gives 8 %."
        assert dialog.doctor.apply.isHidden()  # one button is enough
        line.button.click()
        settle(fresh)
        assert dialog.calibration.transform.text() == PROPOSED
        assert dialog.doctor.caution_lines == ()

    @pytest.mark.parametrize(
        ("trouble", "field"), [(Trouble.OVERLAP, "test"), (Trouble.MISSING_CLASSES, "calibration")]
    )
    def test_that_other_data_can_be_chosen_from_its_line(self, fresh, runner, train, trouble, field):
        runner.answers["examine_data"] = says(cautions=(Caution(trouble, "Something."),))
        dialog = opened(fresh, offered=train)
        asked: list[str] = []
        dialog.doctor.asked.connect(asked.append)
        dialog.doctor.caution_lines[0].button.click()
        assert asked == [field]
        find(dialog, QFileDialog, "data.file_dialog").reject()

    def test_that_what_cannot_be_mended_here_has_no_button(self, fresh, runner, train):
        runner.answers["examine_data"] = says(cautions=(Caution(Trouble.NEAR_CHANCE, "Like a coin."),))
        dialog = opened(fresh, offered=train)
        assert not hasattr(dialog.doctor.caution_lines[0], "button")

    def test_that_data_that_cannot_be_read_is_told_without_a_toast(self, fresh, runner, train):
        error = ErrorInfo("DataError", "the file is cut off", train, Hint("Copy it again"))
        runner.answers["examine_data"] = lambda _: [JobEnded(JobState.FAILED, error=error)]
        told: list = []
        fresh.session.notified.connect(told.append)
        dialog = opened(fresh, offered=train)
        assert dialog.doctor.status.text() == "The file is cut off. Copy it again."
        assert told == []


class TestQuestions:
    def test_that_only_the_last_one_counts_while_somebody_types(self, fresh, runner, train):
        dialog = opened(fresh, offered=train)
        before = len(questions(runner))
        dialog.calibration.transform.clear()
        QTest.keyClicks(dialog.calibration.transform, "scale=1/255 mean=0.5")
        wait_until(lambda: len(questions(runner)) > before)
        settle(fresh)
        assert len(questions(runner)) == before + 1
        assert questions(runner)[-1]["data"]["transform"] == to_json(parse_transform("scale=1/255 mean=0.5"))

    def test_that_an_older_question_is_stopped(self, fresh, runner, train):
        runner.is_holding = True
        dialog = DataDialog(fresh.context, offered=train)
        dialog.open()
        old = runner.submitted[-1].id
        dialog.calibration.samples.setValue(10)
        assert old in runner.cancelled
        runner.is_holding = False
        runner.release()
        settle(fresh)

    def test_that_code_is_not_run_to_look_at_it(self, fresh, runner):
        before = len(questions(runner))
        dialog = opened(fresh)
        dialog.calibration.path.setText("mydata:train")
        settle(fresh)
        assert "agreed" in dialog.doctor.status.text()
        assert len(questions(runner)) == before


class TestCard:
    def shown(self, window, found: Diagnosis) -> DoctorCard:
        card = DoctorCard(window)
        card.resize(740, 300)
        card.show_diagnosis(found, PROPOSED)
        return card

    def test_that_pictures_say_what_they_are_and_what_they_are_taken_for(self, full):
        samples = (
            ShownSample(3, picture(), "", "coat", "coat", True),
            ShownSample(9, picture(), "", "shirt", "coat", False),
        )
        card = self.shown(full, replace(diagnosis(), shown=samples))
        assert card.strip.has_pictures
        assert "sample 9, is shirt, the network says coat" in card.strip.accessibleDescription()
        assert not card.strip.grab().isNull()
        card.deleteLater()

    def test_that_rows_of_numbers_stand_as_text(self, full):
        card = self.shown(full, diagnosis())
        assert not card.strip.has_pictures
        assert "0.1 0.2 0.3" in card.strip.accessibleDescription()
        assert not card.strip.grab().isNull()
        card.deleteLater()

    def test_that_without_labels_there_is_no_figure(self, full):
        found = replace(diagnosis(), figure=None, labelled=False, classes=())
        card = self.shown(full, found)
        assert card._figure_box.isHidden()
        assert "no labels" in card.classes.text()
        card.deleteLater()
