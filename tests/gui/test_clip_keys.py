"""Clip lines by keyboard."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

from quantstudio.gui.features.inspect.inspect_panel import InspectPanel
from quantstudio.gui.plots.clip_keys import LONG_STEPS, STEP
from quantstudio.gui.shell.help_dialogs import ShortcutsDialog
from tests.gui.conftest import find
from tests.gui.plot_mouse import shown
from tests.gui.sample_session import analysed_session
from tests.gui.settling import settled

SHIFT = Qt.KeyboardModifier.ShiftModifier


@pytest.fixture
def panel(qtbot):
    session = analysed_session(6)
    panel = shown(qtbot, InspectPanel(session), 1100, 700)
    session.select([session.workspace.layers[0].name])
    qtbot.waitUntil(lambda: panel.histogram.distribution is not None)
    panel.activateWindow()
    assert QTest.qWaitForWindowActive(panel, 5000)
    panel.histogram.view.setFocus()
    qtbot.waitUntil(panel.histogram.view.hasFocus)
    panel.session = session
    return panel


def width(panel) -> float:
    (left, right), _ = panel.histogram.item.getViewBox().viewRange()
    return float(right - left)


def test_that_an_arrow_moves_the_upper_line_and_is_one_undo_step(panel):
    plot, session = panel.histogram, panel.session
    before = plot.clip_range[1]
    step = width(panel) * STEP
    QTest.keyPress(plot.view, Qt.Key.Key_Left)
    assert plot.clip_range[1] == pytest.approx(before - step)
    assert session.workspace.recipe.weight_ranges == ()  # while the key is held, nothing is written
    QTest.keyPress(plot.view, Qt.Key.Key_Left)
    QTest.keyRelease(plot.view, Qt.Key.Key_Left)
    assert session.workspace.recipe.weight_ranges[0].high == pytest.approx(before - 2 * step)
    session.workspace.edits.undo()
    assert session.workspace.recipe.weight_ranges == ()


def test_that_shift_moves_further_and_home_takes_the_lower_line(panel):
    plot = panel.histogram
    before, step = plot.clip_range[0], width(panel) * STEP
    QTest.keyClick(plot.view, Qt.Key.Key_Home)
    QTest.keyClick(plot.view, Qt.Key.Key_Right, SHIFT)
    assert plot.clip_range[0] == pytest.approx(before + LONG_STEPS * step)
    QTest.keyClick(plot.view, Qt.Key.Key_End)
    QTest.keyClick(plot.view, Qt.Key.Key_Left)
    assert plot.clip_range[1] == pytest.approx(-before - LONG_STEPS * step - step)  # symmetric grid


def test_that_delete_forgets_the_range(panel):
    QTest.keyClick(panel.histogram.view, Qt.Key.Key_Left)
    assert panel.session.workspace.recipe.weight_ranges
    QTest.keyClick(panel.histogram.view, Qt.Key.Key_Delete)
    assert panel.session.workspace.recipe.weight_ranges == ()


def test_that_the_line_keys_move_stands_out_only_with_the_focus(panel):
    plot = panel.histogram
    assert plot.clip_line("high").pen.widthF() == 2
    assert plot.clip_line("low").pen.widthF() == 1
    plot.log_button.setFocus()
    assert plot.clip_line("high").pen.widthF() == 1


def test_that_losing_the_focus_keeps_what_was_moved(panel):
    plot = panel.histogram
    QTest.keyPress(plot.view, Qt.Key.Key_Left)
    plot.log_button.setFocus()
    assert len(panel.session.workspace.recipe.weight_ranges) == 1


def test_that_a_layer_in_floating_point_has_no_lines_to_move(panel):
    panel.session.workspace.edits.set_scheme([panel.session.workspace.layers[0].name], "fp32")
    settled()
    QTest.keyClick(panel.histogram.view, Qt.Key.Key_Left)
    assert panel.session.workspace.recipe.weight_ranges == ()


def test_that_other_keys_pass_through(panel):
    QTest.keyClick(panel.histogram.view, Qt.Key.Key_Left, Qt.KeyboardModifier.ControlModifier)
    assert panel.session.workspace.recipe.weight_ranges == ()


def test_that_the_list_of_keys_names_them(full):
    full.actions_list["help.shortcuts"].trigger()
    dialog = find(full, ShortcutsDialog)
    cells = [[dialog.table.item(r, c) for c in (1, 2)] for r in range(dialog.table.rowCount())]
    listed = {what.text(): keys.text() for what, keys in cells if what is not None and keys is not None}
    assert listed["Move the clip line"] == "Left, Right"
    assert listed["Choose a precision from the list"] == "Enter"
