"""The curve of a training on the page Improve: as it comes, and kept with the variant."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quantstudio.core import figures
from quantstudio.core.events import JobEnded, PartFound
from quantstudio.core.recovered import StepBegun
from quantstudio.core.trained import TrainingPoint
from quantstudio.gui.features.improve import improve_panel as page
from quantstudio.gui.plots.training_curve import TrainingCurvePlot
from tests.gui.conftest import find
from tests.gui.plot_mouse import shown
from tests.gui.test_improve_page import settle, with_steps
from tests.workspace.canned import ANSWERS


def points(step=0, right=0.9):
    losses = [0.5, 0.3, 0.35, 0.2]
    return [
        TrainingPoint(
            done=10 * i,
            steps=60,
            epochs=0.5 * i,
            loss=losses[i] - 0.05 if i else None,
            held_loss=losses[i],
            right=None if right is None else right + 0.01 * i,
            float_right=None if right is None else 0.92,
            is_best=losses[i] == min(losses[: i + 1]),
            step=step,
        )
        for i in range(4)
    ]


@pytest.fixture
def plot(qtbot):
    return shown(qtbot, TrainingCurvePlot(), 420, 280)


def test_that_right_answers_are_drawn_with_the_line_of_fp32(plot):
    plot.show_curve("Train through the rounding", points())
    assert plot.shows_answers
    assert plot._held.yData.tolist() == pytest.approx([90.0, 91.0, 92.0, 93.0])
    assert plot._float.isVisible()
    assert plot._float.value() == pytest.approx(92.0)
    assert [point.pos().x() for point in plot._best.points()] == [1.5]
    # Three of six epochs are done: the rest of the axis is still to come.
    assert plot.item.getViewBox().viewRange()[0][1] >= 3.0


def test_that_without_labels_answers_are_those_of_fp32(plot):
    plot.show_curve("Learn from the original", [replace(one, is_labelled=False) for one in points()])
    assert plot.item.getAxis("left").labelText == "Answers as FP32's (%)"
    assert not plot._float.isVisible()
    assert "93.00 % as FP32" in plot.accessibleDescription().replace(figures.THIN_SPACE, " ")


def test_that_losses_are_drawn_where_answers_are_no_classes(plot):
    plot.show_curve("Learn from the original", points(right=None))
    assert not plot.shows_answers
    assert plot._held.yData.tolist() == [0.5, 0.3, 0.35, 0.2]
    assert plot._trained.yData.tolist() == pytest.approx([0.25, 0.3, 0.15])
    assert not plot._float.isVisible()
    assert plot.figures_table()[1] == ("0", "0", "", "0.5", "", "")


def test_that_the_page_shows_a_training_as_it_comes(full, runner):
    full.show_view("improve")
    with_steps(full, "bias")
    panel = find(full, page.ImprovePanel)
    panel.steps.list.setCurrentRow(0)
    settle(full)
    assert panel.right.currentWidget() is panel.layers
    told = [PartFound(part) for part in (StepBegun(0, "bias"), *points())]
    runner.answers["quantize"] = lambda params: [*told, *ANSWERS["quantize"](params)]
    full.session.workspace.runs.quantize()
    settle(full)
    assert panel.right.currentWidget() is panel.curve
    assert panel.curve.points == tuple(points())
    full.session.workspace.edits.remove_step(0)
    settle(full)
    assert panel.right.currentWidget() is panel.layers


def test_that_a_training_is_ended_with_the_best_it_has_and_the_recipe_says_where(full, runner, qtbot):
    workspace = full.session.workspace
    full.show_view("improve")
    with_steps(full, "bias")
    panel = find(full, page.ImprovePanel)
    panel.steps.list.setCurrentRow(0)
    settle(full)
    assert panel.keep.isHidden()
    runner.is_holding = True
    workspace.runs.quantize()
    job = runner.submitted[-1]
    for part in (StepBegun(0, "bias"), *points()):
        runner.emit(job.id, PartFound(part))
    qtbot.waitUntil(lambda: not panel.keep.isHidden())
    panel.keep.click()
    assert runner.pauses == [("finish", job.id)]
    before = workspace.recipe
    (answer,) = ANSWERS["quantize"](dict(job.params))
    assert isinstance(answer, JobEnded)
    assert answer.result is not None
    answer.result["build"]["steps"][0]["settings"]["samples"] = 96
    runner.answers["quantize"] = lambda params: [answer]
    runner.is_holding = False
    runner.release()
    settle(full)
    assert panel.keep.isHidden()
    assert workspace.recipe.steps[0].settings["samples"] == 96
    assert workspace.current_variant is not None
    workspace.edits.undo()
    assert workspace.recipe == before
