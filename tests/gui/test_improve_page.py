"""The page Improve: what steps gained, measured and never guessed, and what they do to layers as they run."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QPushButton, QSpinBox

from quantstudio.core import figures
from quantstudio.core.events import Part, PartFound
from quantstudio.core.recovered import LayerRecovered, StepBegun, StepTried
from quantstudio.gui.features.improve import improve_panel as page
from quantstudio.gui.features.improve.step_delegate import (
    GAIN_ROLE,
    block_place,
    switch_place,
)
from quantstudio.gui.features.improve.step_gains import OFF, UNKNOWN
from quantstudio.gui.plots.layer_recovery import LayerRecoveryPlot
from quantstudio.gui.plots.waterfall import Level, WaterfallPlot
from tests.gui.conftest import find
from tests.gui.conftest import settle as settle_session
from tests.gui.plot_mouse import shown
from tests.gui.settling import settled
from tests.workspace.canned import ANSWERS

MEASURE = "shift"


def settle(window):
    """Wait for what runs, and redraw the page at once."""
    settle_session(window)
    panel = window.findChild(page.ImprovePanel)
    if panel is not None:
        panel._refresher.request()
        panel._refresher.flush()
        panel.steps.list.doItemsLayout()


@pytest.fixture
def panel(full):
    full.show_view("improve")
    settle(full)
    return find(full, page.ImprovePanel)


def with_steps(full, *names):
    for name in names:
        full.session.workspace.edits.add_step(name)
    settle(full)


def gain(panel, row, role=GAIN_ROLE):
    return panel.steps.list.item(row).data(role)


def telling(params):
    parts: list[Part] = [StepBegun(0, "equalize"), StepBegun(1, "bias")]
    parts += [LayerRecovered(f"conv{i}", 0.2 * (i + 1), 0.05, MEASURE, 1) for i in range(2)]
    return [*map(PartFound, parts), *ANSWERS["quantize"](params)]


def test_that_without_a_model_the_page_says_what_to_do_first(window):
    window.show_view("improve")
    settle(window)
    panel = find(window, page.ImprovePanel)
    assert panel.waterfall.empty.text.text() == page.NO_MODEL
    for name in ("add", "recover", "measure"):
        button = find(window, QPushButton, f"improve.{name}")
        assert not button.isEnabled()
        assert button.accessibleDescription()


def test_that_without_steps_the_page_offers_to_add_one(full, panel):
    labels = [level.label for level in panel.waterfall.levels]
    assert labels == ["FP32", "as rounded"]
    full.session.workspace.edits.set_scheme([full.session.workspace.layers[1].name], "static-int4")
    settle(full)
    assert panel.waterfall.empty.text.text() == page.NO_STEPS
    assert panel.waterfall.empty.button.text() == "Add a step"
    assert not panel.measure.isEnabled()
    assert panel.recover.isEnabled()


def test_that_gains_are_measured_behind_each_step_and_drawn(full, panel):
    with_steps(full, "equalize", "bias")
    assert [gain(panel, row) for row in (0, 1)] == [UNKNOWN, UNKNOWN]
    assert [span is None for span in panel.waterfall.spans()] == [False, False, True, True]
    panel.measure.click()
    settle(full)
    labels = [level.label for level in panel.waterfall.levels]
    assert labels == ["FP32", "as rounded", "Equalize layers", "Correct biases"]
    assert None not in panel.waterfall.spans()
    assert panel.waterfall.levels[0].value == 0
    gained = panel.waterfall.levels[2].value - panel.waterfall.levels[1].value
    assert gain(panel, 0).startswith("+" if gained > 0 else "−")
    assert panel.story.text().startswith("As rounded ")
    full.session.workspace.edits.switch_step(0, is_on=False)
    settle(full)
    assert gain(panel, 0) == OFF
    assert [level.label for level in panel.waterfall.levels] == ["FP32", "as rounded", "Correct biases"]
    assert panel.waterfall.levels[2].value is None
    full.session.workspace.edits.undo()
    settle(full)
    assert None not in panel.waterfall.spans()


def test_that_layers_are_drawn_before_and_behind_the_chosen_step(full, panel, runner):
    with_steps(full, "equalize", "bias")
    panel.steps.list.setCurrentRow(1)
    settle(full)
    assert panel.layers.empty.text.text() == page.NOT_RUN
    runner.answers["quantize"] = telling
    panel.layers.empty.button.click()
    settle(full)
    assert [row.layer for row in panel.layers.rows] == ["conv0", "conv1"]
    assert (
        panel.layers.tip(1)
        .replace(figures.THIN_SPACE, " ")
        .endswith("before 40.00 %\nbehind the step 5.00 %")
    )
    assert panel.layers.figures_table()[1][1:3] == ("0.2", "0.05")
    panel.steps.list.setCurrentRow(0)
    settle(full)
    assert panel.layers.empty.text.text() == page.NOT_TOLD


def test_that_a_click_on_the_switch_switches_the_step_and_space_does_so_too(full, panel):
    with_steps(full, "equalize", "bias")
    strip, recipe = panel.steps.list, lambda: full.session.workspace.recipe
    cell = strip.visualItemRect(strip.item(0))
    at = switch_place(block_place(cell)).center()
    QTest.mouseClick(strip.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(at))
    assert [step.is_on for step in recipe().steps] == [False, True]
    strip.setCurrentRow(1)
    QTest.keyClick(strip, Qt.Key.Key_Space)
    assert [step.is_on for step in recipe().steps] == [False, False]


def test_that_steps_are_moved_and_removed_with_keys(full, panel):
    with_steps(full, "equalize", "bias")
    strip = panel.steps.list
    strip.setCurrentRow(0)
    QTest.keyClick(strip, Qt.Key.Key_Right, Qt.KeyboardModifier.AltModifier)
    assert [step.name for step in full.session.workspace.recipe.steps] == ["bias", "equalize"]
    QTest.keyClick(strip, Qt.Key.Key_Right, Qt.KeyboardModifier.AltModifier)
    assert full.session.workspace.edits.undo_text == "Move step Equalize layers"
    QTest.keyClick(strip, Qt.Key.Key_Delete)
    assert [step.name for step in full.session.workspace.recipe.steps] == ["bias"]


def test_that_recovering_is_sent_off_with_the_time_that_is_set(full, panel, runner):
    find(full, QSpinBox, "improve.seconds").setValue(12)
    panel.recover.click()
    settle(full)
    (job,) = [one for one in runner.submitted if "candidates" in one.params]
    assert job.params["seconds"] == 12
    assert [one["name"] for one in job.params["candidates"]] == ["equalize", "bias"]


def test_that_steps_that_were_tried_are_drawn_and_how_it_ended_is_said(full, panel, runner):
    lost = "answers unlike FP32's, 512 calibration samples"
    parts: list[Part] = [StepTried("", 0.9, 0.9, lost, is_kept=True)]
    parts += [StepTried("equalize", 0.9, 0.8, lost, is_kept=False)]
    runner.answers["quantize"] = lambda params: [*map(PartFound, parts), *ANSWERS["quantize"](params)]
    full.session.workspace.edits.set_scheme([full.session.workspace.layers[1].name], "static-int4")
    panel.recover.click()
    settle(full)
    assert panel.layers.title.text() == page.TRIED
    assert [panel.layers.tip(i).splitlines()[0] for i in range(len(panel.layers.rows))] == ["equalize"]
    assert "none of 1 step tried" in panel.said.toolTip().lower() + panel.said.text().lower()
    full.session.workspace.edits.add_step("bias")
    settle(full)
    assert panel.layers.title.text() != page.TRIED, "of another recipe"


def test_that_every_control_of_the_page_has_a_name(panel):
    for button in panel.findChildren(QPushButton):
        assert button.accessibleName() or button.text() or not button.isVisible()
    assert panel.seconds.accessibleName()


def test_that_names_at_the_ends_of_an_axis_are_cut_rather_than_left_out(qtbot):
    plot = shown(qtbot, WaterfallPlot(), 340, 260)
    names = ("FP32", "as rounded", "Choose weights together")
    plot.show_levels([Level(name, -float(i), str(i)) for i, name in enumerate(names)], "points")
    settled()
    plot.grab()
    drawn = [text.strip() for _, _, text in plot.item.getAxis("bottom").picture[2]]
    assert drawn[:2] == ["FP32", "as rounded"]
    assert drawn[2].startswith("Choose")


def test_that_layers_that_begin_alike_differ_at_the_axis(qtbot):
    plot = shown(qtbot, LayerRecoveryPlot(), 340, 260)
    names = ["stem", *(f"blocks.{i}.conv1" for i in range(9))]
    plot.show_layers("step", [LayerRecovered(name, 0.1, 0.05, "m") for name in names], names)
    settled()
    plot.grab()
    drawn = [text.strip() for _, _, text in plot.item.getAxis("bottom").picture[2]]
    assert len(set(drawn)) == len(names)


def test_that_figures_of_many_steps_do_not_run_into_each_other(qtbot):
    plot = shown(qtbot, WaterfallPlot(), 340, 260)
    values = [0.0, -89.83, -0.5, None, -0.4, None, None]
    levels = [Level(f"Stage {i}", v, "" if v is None else f"{v:+.2f}") for i, v in enumerate(values)]
    plot.show_levels(levels, "Accuracy against FP32 (points)")
    settled()
    # Four pixels around the letters are empty.
    rects = [text.mapRectToScene(text.boundingRect()) for text in plot._texts if text.isVisible()]
    assert len(rects) == len(values)
    for i, one in enumerate(rects):
        assert not any(one.adjusted(4, 4, -4, -4).intersects(other) for other in rects[i + 1 :]), i
    assert [text.textItem.toPlainText() for text in plot._texts][3] == "—"
    plot.resize(1200, 260)
    settled()
    assert [text.textItem.toPlainText() for text in plot._texts][3] == "not measured"
