"""The table of layers and classes: what a cell shows, where it is, what comes out of it."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from quantstudio.core.codec import from_json, to_json
from quantstudio.core.findings import SENSITIVITY_RUN
from quantstudio.core.results import SensitivityResult
from quantstudio.gui.features.sensitivity.sensitivity_panel import BARS, CLASSES, SensitivityPanel
from quantstudio.gui.plots.sensitivity_classes import ClassSensitivityPlot, colours
from quantstudio.gui.theme import DARK, LIGHT, Theme, apply_theme
from tests.gui.plot_mouse import click, place, shown
from tests.gui.sample_session import analysed_session, with_classes
from tests.workspace.putting import known_of, put_sensitivity_run

KL = {"conv": 0.2, "fc": 0.5, "norm": 0.1}
CLASSES_SHOWN = ("cat", "dog")
TABLE = {"conv": (0.1, 0.3), "fc": (0.4, 0.6)}


@pytest.fixture
def plot(qtbot):
    made = shown(qtbot, ClassSensitivityPlot(), 700, 260)
    made.show_table(KL, TABLE, CLASSES_SHOWN)
    return made


@pytest.fixture
def session(qapp):
    made = analysed_session(24)
    with_classes(made, 10)
    yield made
    made.close()


def luminance(pixel: np.ndarray) -> float:
    """Relative luminance by the WCAG formula."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in pixel[:3].astype(float) / 255
    ]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_that_more_is_always_further_from_the_paper(theme: Theme):
    steps = np.diff([luminance(pixel) for pixel in colours(theme)])
    assert (steps >= 0).all() if theme.is_dark else (steps <= 0).all()


def test_that_a_cell_is_where_its_layer_and_class_are(plot):
    assert plot.kl("fc", "dog") == 0.6
    assert plot.cell_centre("fc", "dog") == (1.0, 1.0)
    assert math.isnan(plot.kl("norm", "cat"))


def test_that_sorting_puts_the_worst_layer_left_and_the_most_hurt_class_on_top(plot):
    plot.set_sorted(True)
    assert plot.layers == ("fc", "conv", "norm")
    assert plot.classes == ("dog", "cat")
    plot.set_sorted(False)
    assert (plot.layers, plot.classes) == (("conv", "fc", "norm"), CLASSES_SHOWN)


def test_that_a_click_on_a_cell_chooses_its_layer(qtbot, plot):
    with qtbot.waitSignal(plot.layer_chosen) as chosen:
        click(plot, *plot.cell_centre("fc", "cat"))
    assert chosen.args == ["fc"]


def test_that_hovering_tells_the_figure_and_how_it_compares(plot):
    QTest.mouseMove(plot.view.viewport(), place(plot, *plot.cell_centre("conv", "dog")))
    assert plot.view.toolTip() == "conv  ·  dog\nKL 0.300 nats  ·  1.50× the mean of its classes"
    QTest.mouseMove(plot.view.viewport(), place(plot, *plot.cell_centre("norm", "dog")))
    assert "not analyzed yet" in plot.view.toolTip()


def test_that_arrow_keys_choose_the_layer_beside(qtbot, plot):
    plot.set_selection(["conv"])
    plot.view.setFocus()
    with qtbot.waitSignal(plot.layer_chosen) as chosen:
        QTest.keyClick(plot.view, Qt.Key.Key_Right)
    assert chosen.args == ["fc"]
    with qtbot.waitSignal(plot.layer_chosen) as chosen:
        QTest.keyClick(plot.view, Qt.Key.Key_Left)
    assert chosen.args == ["conv"]


def test_that_the_words_name_the_worst_cells(plot):
    assert plot.summary.startswith("3 layers, 2 classes; most: fc hurts dog (0.600), fc hurts cat (0.400)")


def test_that_the_log_scale_tells_small_figures_apart(plot):
    assert [name for name, _ in plot.legend.entries] == ["0", "0.30", "0.60 nats"]
    plot.set_log(True)
    assert [name for name, _ in plot.legend.entries] == ["0.10", "0.24", "0.60 nats"]  # sqrt(0.1 * 0.6)


def test_that_the_figures_are_saved_as_csv(plot, tmp_path):
    plot.set_sorted(True)
    plot.save(tmp_path / "classes.csv")
    rows = list(csv.reader((tmp_path / "classes.csv").read_text().splitlines()))
    assert rows == [["layer", "dog", "cat"], ["fc", "0.6", "0.4"], ["conv", "0.3", "0.1"], ["norm", "", ""]]
    texts = [action.text() for action in plot.context_menu().actions()]
    assert "Save figures as CSV…" in texts
    plot.save(tmp_path / "classes.png")
    assert (tmp_path / "classes.png").read_bytes().startswith(b"\x89PNG")


def test_that_a_class_without_samples_says_so(qtbot):
    plot = shown(qtbot, ClassSensitivityPlot(), 500, 200)
    plot.show_table({"a": 0.2}, {"a": (0.2, math.nan)}, ("cat", "dog"))
    assert plot._row_names() == ["cat", "dog (none)"]
    plot.grab()


def test_that_a_thousand_classes_are_scrolled(qtbot):
    plot = shown(qtbot, ClassSensitivityPlot(), 700, 300)
    rng = np.random.default_rng(1)
    names = [f"layer{i}" for i in range(20)]
    table = {name: tuple(rng.lognormal(-6, 1, 1000).tolist()) for name in names}
    plot.show_table(dict.fromkeys(names, 0.1), table, [f"class {i}" for i in range(1000)])
    assert plot.scroll_bar.isVisible()
    _, (low, high) = plot.item.getViewBox().viewRange()
    assert high - low < 40  # rows stay readable
    wheel(plot, -120)
    _, (moved, _) = plot.item.getViewBox().viewRange()
    assert moved == pytest.approx(low + 3)
    with qtbot.waitSignal(plot.layer_chosen) as chosen:
        click(plot, 4, moved + 3)
    assert chosen.args == ["layer4"]


def wheel(plot: ClassSensitivityPlot, angle: int) -> None:
    """Turn the wheel over the middle of the plot."""
    at = QPointF(plot.view.viewport().rect().center())
    event = QWheelEvent(
        at,
        plot.view.viewport().mapToGlobal(at),
        QPoint(),
        QPoint(0, angle),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(plot.view.viewport(), event)


# ---------------------------------------------------------------------- in the window


def test_that_the_panel_switches_between_bars_and_classes(qapp, qtbot, session):
    panel = shown(qtbot, SensitivityPanel(session), 900, 320)
    panel.switches[BARS].button(CLASSES).click()
    assert panel.kind == CLASSES
    assert panel.classes.classes[0] == "T-shirt"
    assert not panel.precision.isVisible()
    assert panel.more.isVisible()
    panel.sorted.click()
    worst = max(session.workspace.layer_sensitivity.values(), key=lambda row: row.kl).name
    assert panel.classes.layers[0] == worst
    click(panel.classes, *panel.classes.cell_centre(worst, "Bag"))
    assert session.selection == (worst,)
    try:
        apply_theme(qapp, DARK)
        panel.grab()
    finally:
        apply_theme(qapp, LIGHT)
    panel.switches[CLASSES].button(BARS).click()
    assert panel.kind == BARS
    assert panel.precision.isVisible()


def test_that_older_results_without_classes_offer_to_analyse(qtbot):
    old = analysed_session(6)
    panel = shown(qtbot, SensitivityPanel(old), 900, 320)
    panel.show_kind(CLASSES)
    assert panel.classes.is_empty
    assert "come with Sensitivity" in panel.classes.summary
    panel.classes.empty.button.click()
    assert old.workspace.jobs.rows
    old.close()


def test_that_classes_without_names_are_numbered(qtbot, session):
    run = session.workspace.sensitivity_run
    session.workspace.findings.put(
        SENSITIVITY_RUN,
        session.workspace.subject.sensitivity_key(SENSITIVITY_RUN, session.workspace.ground.graph),
        SensitivityResult(run.method, run.samples, 1.0, "int4", ()),
    )
    panel = shown(qtbot, SensitivityPanel(session), 900, 320)
    panel.show_kind(CLASSES)
    assert panel.classes.classes == tuple(f"class {i}" for i in range(10))


def test_that_an_exact_run_keeps_the_classes_and_adds_the_whole(session):
    rows = tuple(session.workspace.layer_sensitivity.values())[:2]
    put_sensitivity_run(session.workspace, SensitivityResult("exact", 512, 1.0, "int4", rows, kl_all=0.7))
    assert session.workspace.sensitivity_classes[0] == "T-shirt"
    assert session.workspace.kl_of_all_layers == 0.7
    assert session.workspace.sensitivity_run.method == "fisher"


def test_that_a_project_of_before_opens(session):
    stored = to_json(session.workspace.sensitivity_run)
    for name in ("classes", "kl_all"):
        stored.pop(name)
    found = from_json(SensitivityResult, stored)
    assert (found.classes, found.kl_all) == ((), None)


def test_that_classes_and_directions_are_there_after_reopening(session):
    row = replace(
        session.workspace.layer_sensitivity[session.workspace.layers[0].name],
        by_class=(0.25, math.nan, *[0.5] * 8),
        method="exact",
        kl_all_but=0.6,
        accumulated_sqnr_db=21.5,
    )
    put_sensitivity_run(session.workspace, SensitivityResult("exact", 512, 1.0, "int4", (row,), kl_all=0.7))
    session.workspace.findings.flush()
    found = known_of(session.workspace.project)
    assert found.sensitivity_run is not None
    assert (found.sensitivity_run.classes[0], found.sensitivity_run.kl_all) == ("T-shirt", 0.7)
    kept = found.layer_sensitivity[row.name]
    assert (kept.by_class[0], kept.kl_all_but, kept.accumulated_sqnr_db) == (0.25, 0.6, 21.5)
    assert math.isnan(kept.by_class[1])
    assert kept.measured == ("int4", "int8", "int8-activations")
