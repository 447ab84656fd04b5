"""Figures of a plan with steps: true, or not shown; what they leave out stands at them."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QCoreApplication

from quantstudio.core import figures
from quantstudio.gui.facts.plan_facts import plan_lines
from quantstudio.gui.features.plans.key_figures_panel import KeyFiguresPanel
from quantstudio.gui.features.plans.plans_panel import PlansPanel
from quantstudio.gui.features.tradeoff.tradeoff_points import Cost, TradeoffPoints
from tests.gui.plot_mouse import shown
from tests.gui.sample_session import analysed_session, measured_session
from tests.gui.search_samples import plan
from tests.workspace.canned import STEPS


def turn():
    for _ in range(8):
        QCoreApplication.processEvents()


@pytest.fixture
def session():
    made = analysed_session(6)
    made.workspace.set_steps(STEPS.steps)
    return made


def card_texts(panel):
    cards = (panel.size_card, panel.quality_card, panel.latency_card)
    return [(card.value.text(), card.tag.text, card.note.text()) for card in cards]


def test_that_a_step_takes_predicted_figures_away_and_undo_brings_them_back_in_the_same_turn(qtbot, session):
    panel = shown(qtbot, KeyFiguresPanel(session), 900, 90)
    before = card_texts(panel)
    assert [tag for _, tag, _ in before] == ["predicted"] * 3
    session.workspace.edits.add_step("equalize")
    qtbot.waitUntil(lambda: panel.quality_card.value.text() == figures.NOTHING)
    assert panel.quality_card.toolTip() == "Run Sensitivity to predict it, Measure to know it"
    assert panel.latency_card.value.text() == figures.NOTHING
    session.workspace.edits.undo()
    panel.refresh()  # no turn of the event loop, no job
    assert card_texts(panel) == before
    turn()
    assert card_texts(panel) == before


def test_that_what_a_prediction_leaves_out_stands_at_the_figure(qtbot, session):
    panel = shown(qtbot, KeyFiguresPanel(session), 900, 90)
    (size, *_), (quality, *_), (latency, *_) = card_texts(panel)
    session.workspace.edits.add_step("bias")
    # FP32 was measured on no test data yet, which stands there, too.
    qtbot.waitUntil(lambda: panel.quality_card.note.text().startswith("without Correct biases"))
    assert [value for value, *_ in card_texts(panel)] == [size, quality, latency]
    for card in (panel.size_card, panel.quality_card, panel.latency_card):
        assert "without Correct biases: measure to know what that does" in card.toolTip()
    assert "without Correct biases" in panel.quality_card.accessibleName()
    session.workspace.edits.switch_step(0, is_on=False)
    qtbot.waitUntil(lambda: "without" not in panel.quality_card.note.text())


def test_that_lists_of_plans_say_it_too(qtbot, session):
    session.workspace.edits.add_step("bias")
    plans = shown(qtbot, PlansPanel(session), 700, 300)
    turn()
    row = [plans.table.item(0, column).text() for column in range(plans.table.columnCount())]
    assert "predicted without Correct biases" in row
    measured = measured_session()
    measured.workspace.set_steps(STEPS.steps)
    measured.workspace.edits.add_step("bias")
    (point,) = [one for one in TradeoffPoints(measured, Cost.SIZE, {}).all() if one.is_predicted]
    assert "predicted without Correct biases\nmeasure to know" in point.detail


def test_that_the_tip_of_a_plan_of_a_search_says_it(session):
    workspace = session.workspace
    workspace.edits.add_step("bias")
    point = plan(workspace.layers, workspace.recipe, 0.4)
    (anew,) = workspace.predicted_plans([point])
    assert anew.predicted.left_out == ("bias",)
    assert plan_lines(anew, workspace.steps)[0].endswith("against FP32, predicted without Correct biases")
    assert plan_lines(anew)[0].endswith("against FP32, predicted without bias")
