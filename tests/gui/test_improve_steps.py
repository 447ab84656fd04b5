"""The steps of a recipe by mouse, keys and menus; every edit is one undo step."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QCheckBox, QComboBox, QLineEdit, QPushButton, QSpinBox

from quantstudio.core.recipe import Recipe
from quantstudio.core.results import AppliedStep
from quantstudio.core.steps import SettingInfo, SettingType, SettingValue, Step, StepInfo
from quantstudio.gui.features.improve.settings_form import SettingsForm
from quantstudio.gui.features.improve.step_dialog import StepDialog
from quantstudio.gui.features.improve.step_lines import NOT_INSTALLED, step_lines
from quantstudio.gui.features.improve.steps_panel import NO_MODEL, NOTHING, StepsPanel
from tests.gui.conftest import find, settle
from tests.workspace.canned import STEPS

EQUALIZE, BIAS = STEPS.steps
INFOS = {info.name: info for info in STEPS.steps}


@pytest.fixture
def panel(full) -> StepsPanel:
    full.show_view("improve")
    settle(full)
    return find(full, StepsPanel)


def add(panel, name):
    panel.menu.aboutToShow.emit()
    action = next(one for one in panel.menu.actions() if one.objectName() == f"steps.menu.{name}")
    action.trigger()


def names(panel):
    return [step.name for step in panel._session.workspace.recipe.steps]


def texts(panel):
    return [panel.list.item(row).text() for row in range(panel.list.count())]


def test_that_the_worker_is_asked_for_steps_once(full, panel, runner):
    full.show_view("plans")
    full.show_view("improve")
    settle(full)
    assert runner.tasks.count("steps") == 1
    assert full.session.workspace.steps == STEPS.steps


def test_that_an_empty_list_says_what_steps_are_for(full, panel):
    assert panel.empty.text.text() == NOTHING
    assert not panel.empty.button.isVisible(), "the buttons below do it"
    assert not panel.list.isVisible()
    add(panel, "bias")
    assert panel.list.isVisible()


def test_that_without_a_model_there_is_nothing_to_add(window):
    window.show_view("improve")
    settle(window)
    panel = find(window, StepsPanel)
    assert panel.empty.text.text() == NO_MODEL
    assert not find(window, QPushButton, "improve.add").isEnabled()
    assert not panel.empty.button.isVisible()


def test_that_the_menu_lists_what_the_worker_knows(panel):
    panel.menu.aboutToShow.emit()
    titles = ["Prepare the network", "Equalize layers", "", "Correct what rounding did", "Correct biases"]
    assert [action.text() for action in panel.menu.actions()] == titles
    assert not panel.menu.actions()[0].isEnabled()
    assert "Nagel et al. 2019, eq. 11" in panel.menu.actions()[1].toolTip()


def test_that_adding_moving_switching_and_removing_are_one_undo_step_each(full, panel):
    edits = full.session.workspace.edits
    add(panel, "bias")
    add(panel, "equalize")
    assert names(panel) == ["bias", "equalize"]
    assert edits.undo_text == "Add step Equalize layers"
    panel.buttons["up"].click()
    assert names(panel) == ["equalize", "bias"]
    assert panel.list.currentRow() == 0
    panel.list.item(1).setCheckState(Qt.CheckState.Unchecked)
    assert [step.is_on for step in full.session.workspace.recipe.steps] == [True, False]
    assert edits.undo_text == "Switch off step Correct biases"
    panel.buttons["remove"].click()
    assert names(panel) == ["bias"]
    for expected in (["equalize", "bias"], ["equalize", "bias"], ["bias", "equalize"], ["bias"], []):
        edits.undo()
        assert names(panel) == expected
    assert panel.empty.isVisible()


def test_that_a_dragged_row_lands_where_it_is_dropped(panel):
    for name in ("equalize", "bias", "bias"):
        add(panel, name)
    panel.list.row_dropped.emit(0, 2)
    assert names(panel) == ["bias", "bias", "equalize"]
    assert panel.list.currentRow() == 2


def test_that_a_step_says_what_it_did_after_a_build(full, panel):
    workspace = full.session.workspace
    add(panel, "equalize")
    add(panel, "bias")
    assert texts(panel)[0] == "1.  Equalize layers\nRuns before the model is quantized"
    workspace.runs.quantize()
    settle(full)
    assert texts(panel) == ["1.  Equalize layers\nDid equalize.", "2.  Correct biases\nDid bias."]
    panel.list.item(0).setCheckState(Qt.CheckState.Unchecked)
    assert texts(panel)[0] == "1.  Equalize layers\nOff"
    assert texts(panel)[1] == "2.  Correct biases\nRuns before the model is quantized"
    workspace.edits.undo()
    assert texts(panel) == ["1.  Equalize layers\nDid equalize.", "2.  Correct biases\nDid bias."]


def test_that_the_settings_of_a_step_are_changed_in_a_form(full, panel):
    add(panel, "equalize")
    panel.list.setFocus()
    panel.buttons["edit"].click()
    dialog = find(full, StepDialog)
    assert find(dialog, QSpinBox, "step.setting.rounds").suffix() == " rounds"
    find(dialog, QSpinBox, "step.setting.rounds").setValue(20)
    find(dialog, QLineEdit, "step.setting.tolerance").setText("0.5")
    find(dialog, QCheckBox, "step.setting.exact_limits").setChecked(True)
    dialog.ok.click()
    step = full.session.workspace.recipe.steps[0]
    assert dict(step.settings) == {"rounds": 20, "tolerance": 0.5, "exact_limits": True}
    assert full.session.workspace.edits.undo_text == "Change step Equalize layers"
    changed = "Rounds: 20, Tolerance: 0.5, Exact limits: on"
    assert texts(panel) == [f"1.  Equalize layers\nRuns before the model is quantized · {changed}"]


def test_that_the_form_says_what_does_not_fit_and_waits(full, panel):
    add(panel, "equalize")
    panel.buttons["edit"].click()
    dialog = find(full, StepDialog)
    field = find(dialog, QLineEdit, "step.setting.tolerance")
    field.setText("many")
    assert dialog.fault.text() == "Tolerance: 'many' is not a number from 1e-06 to 1"
    assert not dialog.ok.isEnabled()
    field.setText("1e-2")
    assert not dialog.fault.isVisible()
    assert dialog.ok.isEnabled()
    dialog.form.defaults()
    assert field.text() == "0.001"
    dialog.reject()
    assert dict(full.session.workspace.recipe.steps[0].settings)["tolerance"] == 0.001


def test_that_settings_are_not_put_on_another_step(full, panel):
    add(panel, "equalize")
    panel.buttons["edit"].click()
    dialog = find(full, StepDialog)
    full.session.workspace.edits.undo()
    add(panel, "bias")
    dialog.ok.click()
    assert names(panel) == ["bias"]
    assert dict(full.session.workspace.recipe.steps[0].settings) == {"samples": 512, "inputs": "quantized"}


def test_that_return_opens_the_settings(full, panel):
    add(panel, "bias")
    panel.list.setFocus()
    QTest.keyClick(panel.list, Qt.Key.Key_Return)
    dialog = find(full, StepDialog)
    assert find(dialog, QComboBox, "step.setting.inputs").currentText() == "quantized"
    dialog.reject()


def test_that_the_edit_menu_adds_a_step(full, panel):
    entries = {choice.words: choice for choice in _entries(full)}
    entries["Add step: Correct biases"].run()
    assert names(panel) == ["bias"]


def _entries(window):
    from quantstudio.gui.action import Choices
    from quantstudio.gui.features.improve.actions import commands

    (choices,) = [command for command in commands() if isinstance(command, Choices)]
    return choices.entries(window.context)


def test_that_an_unknown_step_is_shown_as_such():
    recipe = Recipe(steps=(Step("melt", {"heat": 2}), Step("bias", is_on=False)))
    melt, bias = step_lines(recipe, INFOS)
    assert (melt.label, melt.text, melt.is_known) == ("melt", NOT_INSTALLED, False)
    assert (bias.label, bias.text, bias.is_on) == ("Correct biases", "Off", False)
    assert step_lines(recipe, {})[0].is_known


def test_that_what_another_step_did_is_not_told_of_this_one():
    applied = (AppliedStep("equalize", "Equalize layers", {}, "Evened out.", 0.1, "g"),)
    (line,) = step_lines(Recipe(steps=(Step("bias"),)), INFOS, applied)
    assert not line.is_done


def test_that_a_form_changes_no_digit_and_marks_what_does_not_fit(qtbot):
    rate = SettingInfo("rate", "Learning rate", SettingType.FLOAT, 1e-3, 0.0, 1.0)
    augment = SettingInfo("augment", "Augmentation", SettingType.TEXT, "")
    info = StepInfo("train", "Train", "Trains.", settings=(rate, augment))
    given: dict[str, SettingValue] = {
        "rate": 0.00012345678,
        "augment": "my_package.augmentations:random_crop_and_flip",
    }
    form = SettingsForm(info, given)
    form.resize(480, 300)
    qtbot.addWidget(form)
    form.show()
    assert form.values() == given
    line, text = form.fields["rate"], form.fields["augment"]
    assert isinstance(line, QLineEdit)
    assert isinstance(text, QLineEdit)
    assert text.fontMetrics().horizontalAdvance(text.text()) < text.width()
    line.setText("5")
    assert form.mark_fault() == "Learning rate: 5 is not a number from 0 to 1"
    assert line.property("invalid")
    line.setText("3e-4")
    assert not form.mark_fault()
    assert not line.property("invalid")


def test_that_every_field_of_the_form_has_a_name_and_says_what_fits(qtbot):
    form = SettingsForm(EQUALIZE, {})
    qtbot.addWidget(form)
    assert {field.accessibleName() for field in form.fields.values()} == {
        "Rounds",
        "Tolerance",
        "Exact limits",
    }
    assert form.fields["rounds"].toolTip() == "A whole number from 1 to 1000"
    assert form.values() == {"rounds": 100, "tolerance": 0.001, "exact_limits": False}
