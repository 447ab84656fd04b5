"""The line over the sensitivity bars: what is above it, how it moves, what Apply does."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

from quantstudio.core.precision import FP16, STATIC_INT4, STATIC_INT8, Precision
from quantstudio.core.predict.losses import PlanLosses
from quantstudio.core.recipe import uniform_recipe
from quantstudio.gui.features.sensitivity.sensitivity_panel import SensitivityPanel
from quantstudio.gui.plots.sensitivity_scale import SensitivityScale, StripRow
from quantstudio.gui.plots.sensitivity_threshold import (
    first_level,
    layers_above,
    layers_below,
    level_for,
    next_count,
)
from quantstudio.workspace.recipe_edits import with_threshold
from tests.gui.plot_mouse import move, press, release, shown
from tests.gui.sample_session import analysed_session
from tests.workspace.samples import model_summary

ROWS = [StripRow("a", 0.1), StripRow("b", 0.4), StripRow("c", None), StripRow("d", 0.1), StripRow("e", 0.9)]


@pytest.fixture
def session(qapp):
    made = analysed_session(24)
    yield made
    made.close()


@pytest.fixture
def panel(qtbot, session):
    made = shown(qtbot, SensitivityPanel(session), 900, 320)
    made.threshold.click()
    return made


# ---------------------------------------------------------------------- where the line is


def test_that_only_bars_that_reach_above_the_line_are_above():
    assert layers_above(ROWS, 0.4) == ("e",)
    assert layers_below(ROWS, 0.4) == ("a", "b", "d")


@pytest.mark.parametrize(("count", "above"), [(0, 0), (1, 1), (2, 2), (4, 4), (9, 4)])
def test_that_the_line_goes_where_so_many_bars_are_above(count, above):
    assert len(layers_above(ROWS, level_for(ROWS, count))) == above


def test_that_the_line_lies_between_two_bars_on_a_log_scale():
    assert level_for(ROWS, 1) == pytest.approx((0.9 * 0.4) ** 0.5)


@pytest.mark.parametrize(
    ("kl", "step", "count"), [(0.5, 1, 0), (0.5, -1, 2), (0.2, -1, 4), (2.0, 1, 0), (0.01, -1, 4)]
)
def test_that_a_step_passes_one_height_of_bars(kl, step, count):
    assert next_count(ROWS, kl, step) == count


def test_that_without_layers_there_is_nowhere_to_go():
    assert level_for([StripRow("a", None)], 1) == 0.0
    assert next_count([], 0.0, 1) == 0


def test_that_as_many_layers_are_above_at_first_as_break_the_budget_or_a_tenth_of_them():
    losses = PlanLosses(1.2, 0.5, breaking=frozenset({"a", "b"}))
    assert len(layers_above(ROWS, first_level(ROWS, SensitivityScale(losses)))) == 2
    kept = SensitivityScale(PlanLosses(0.2, 0.5))
    assert len(layers_above(ROWS, first_level(ROWS, kept))) == 1


# ---------------------------------------------------------------------- the edit


def test_that_the_edit_sets_both_sides_and_says_which_layers_cannot():
    layers = model_summary(24).layers
    norm = next(layer for layer in layers if not layer.schemes)
    conv, other = layers[:2]
    edit = with_threshold(
        uniform_recipe("static-int8"),
        layers,
        [conv.name, norm.name],
        [other.name],
        keep=Precision.FP16,
        rest=Precision.INT4,
    )
    assert edit.recipe.scheme_for(conv) == FP16
    assert edit.recipe.scheme_for(other) == STATIC_INT4
    assert edit.recipe.scheme_for(layers[2]) == STATIC_INT8
    assert edit.skipped == ((norm.name, norm.reason),)
    assert edit.label == f"Keep 2 layers above the line at FP16, {other.name} below at INT4"


def test_that_the_rest_stays_as_it_is_unless_asked():
    layers = model_summary(6).layers
    edit = with_threshold(
        uniform_recipe("static-int8"),
        layers,
        [layers[0].name],
        [layers[1].name],
        keep=Precision.INT4,
        rest=None,
    )
    assert edit.recipe.scheme_for(layers[1]) == STATIC_INT8
    assert edit.label == f"Put {layers[0].name} above the line at INT4"


# ---------------------------------------------------------------------- in the window


def test_that_the_threshold_shows_its_line_and_says_what_is_above(panel, session):
    bar = panel.threshold_bar
    assert bar.isVisible()
    assert panel.strip.threshold_line.isVisible()
    bar.count.setValue(5)
    assert len(bar.above) == 5
    unable = sum(not session.workspace.model.layer(name).schemes for name in bar.above)
    assert bar.words.text().startswith(
        f"5 layers above: {5 - unable} stay FP16, {unable} cannot" if unable else "5 layers above: stay FP16"
    )
    ranked = sorted(panel.strip.rows, key=lambda row: -(row.kl or 0))
    assert set(bar.above) == {row.layer for row in ranked[:5]}


@pytest.mark.parametrize("is_log", [False, True], ids=["linear", "log"])
@pytest.mark.parametrize("is_sorted", [False, True], ids=["in order", "sorted"])
def test_that_dragging_the_line_changes_what_is_above(panel, is_log, is_sorted):
    panel.log.setChecked(is_log)
    panel.sorted.setChecked(is_sorted)
    strip, bar = panel.strip, panel.threshold_bar
    bar.count.setValue(12)
    start = strip.threshold_line.value()
    wanted = sorted((row.kl for row in strip.rows), reverse=True)[3]
    target = math.log10(wanted * 0.999) if is_log else wanted * 0.999
    press(strip, 12, start)
    move(strip, 12, target)
    during = len(bar.above)
    release(strip, 12, target)
    assert len(bar.above) == during
    assert abs(len(bar.above) - 4) <= 1  # a pixel may hold two bars
    assert bar.count.value() == len(bar.above)


def test_that_arrow_keys_move_the_line_layer_by_layer(panel):
    bar, view = panel.threshold_bar, panel.strip.view
    bar.count.setValue(4)
    view.setFocus()
    QTest.keyClick(view, Qt.Key.Key_Down)
    assert len(bar.above) == 5
    QTest.keyClick(view, Qt.Key.Key_Up)
    QTest.keyClick(view, Qt.Key.Key_Up)
    assert len(bar.above) == 3


def test_that_bars_wear_the_colour_of_the_precision_they_will_have(panel, session):
    bar = panel.threshold_bar
    bar.count.setValue(6)
    conv = next(n for n in bar.above if session.workspace.model.layer(n).op_type == "Conv")
    below = next(n for n in bar.below if session.workspace.model.layer(n).op_type == "Conv")
    assert panel.strip.colour_role(conv) == "ok"
    assert panel.strip.colour_role(below) == "fp"
    bar.rest.setCurrentIndex(bar.rest.findData("int4"))
    bar.rest.activated.emit(bar.rest.currentIndex())
    assert panel.strip.colour_role(below) == "q"
    panel.threshold.click()
    assert not bar.isVisible()
    assert panel.strip.colour_role(conv) in ("fp", "warn", "bad")


def test_that_apply_is_one_undo_step_with_a_name(panel, session):
    bar, before = panel.threshold_bar, session.workspace.recipe
    bar.count.setValue(7)
    able = [n for n in bar.above if session.workspace.model.layer(n).schemes]
    bar.apply.click()
    assert all(session.workspace.recipe.scheme_for(session.workspace.model.layer(n)) == FP16 for n in able)
    assert session.workspace.edits.undo_text == "Keep 7 layers above the line at FP16"
    assert not bar.apply.isEnabled()
    session.workspace.edits.undo()
    assert session.workspace.recipe == before
    assert bar.apply.isEnabled()


def test_that_layers_that_cannot_have_the_precision_are_said(panel, session):
    bar = panel.threshold_bar
    bar.count.setValue(24)
    norms = sum(not layer.schemes for layer in session.workspace.layers)
    assert f"24 layers above: {24 - norms} stay FP16, {norms} cannot" in bar.words.text()
    assert "the scale of a norm" in bar.words.accessibleDescription()
    assert session.workspace.layers[5].name in bar.words.toolTip()


def test_that_another_precision_keeps_the_number_above(panel):
    bar = panel.threshold_bar
    bar.count.setValue(8)
    level = panel.strip.threshold
    panel.precision.setCurrentIndex(panel.precision.findData("int8"))
    panel.precision.activated.emit(panel.precision.currentIndex())
    assert len(bar.above) == 8
    assert panel.strip.threshold == pytest.approx(level / 200)  # sample_session: int8 costs a 200th


def test_that_the_line_says_what_the_plan_would_be(qtbot, panel, session):
    bar = panel.threshold_bar
    bar.count.setValue(3)
    qtbot.waitUntil(lambda: "predicted" in bar.words.text())
    few = bar.words.text()
    bar.count.setValue(20)
    qtbot.waitUntil(lambda: bar.words.text().split("predicted")[1] != few.split("predicted")[1])


def test_that_another_model_takes_the_line_away(qtbot, panel, session):
    assert panel.threshold_bar.is_on
    session.workspace.opening.set_model(replace(model_summary(9), digest="another", layers=renamed(9)))
    qtbot.waitUntil(lambda: not panel.threshold_bar.is_on)
    assert not panel.threshold_bar.isVisible()


def renamed(count):
    return tuple(replace(layer, name=f"other.{layer.name}") for layer in model_summary(count).layers)


def test_that_the_legend_is_back_where_it_was(panel):
    panel.threshold.click()
    header, legend = panel.strip.header, panel.strip.legend
    at = header.indexOf(legend)
    assert at > header.indexOf(panel.switches["bars"])
    panel.threshold.click()
    panel.threshold.click()
    assert header.indexOf(legend) == at
