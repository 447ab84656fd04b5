"""The menu of the sensitivity strip: what it measures and analyses, and what it says of a layer then."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAction
from PySide6.QtTest import QTest

from quantstudio.core import findings
from quantstudio.core.results import LayerSensitivity, SensitivityResult
from quantstudio.core.sensitivity_rows import EXACT
from quantstudio.gui.features.sensitivity.sensitivity_menu import SensitivityMenu
from quantstudio.gui.features.sensitivity.sensitivity_panel import SensitivityPanel
from quantstudio.gui.plots.sensitivity_scale import direction_words, precision_text, strip_row
from quantstudio.gui.widgets.check_menu import CheckMenu
from tests.gui.conftest import find, settle
from tests.gui.plot_mouse import shown
from tests.gui.sample_session import analysed_session
from tests.workspace.putting import forget, put_sensitivity, put_sensitivity_run
from tests.workspace.samples import CURVE, model_summary, sensitivity

ROW = LayerSensitivity(
    "conv",
    0.012,
    0.01,
    0.014,
    31.0,
    by_precision={"int4": 0.012, "int8": 0.001},
    error_by_precision={"int8": 0.0002},
)


@pytest.fixture
def session(qapp):
    made = analysed_session(24)
    yield made
    made.close()


@pytest.fixture
def panel(qtbot, session):
    return shown(qtbot, SensitivityPanel(session), 900, 320)


def action(menu: SensitivityMenu, name: str) -> QAction:
    return find(menu, QAction, f"sensitivity.{name}")


# ---------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("int4", "INT4 weights"),
        ("int4/tensor", "INT4 weights, one scale per tensor"),
        ("int4/group32", "INT4 weights, groups of 32"),
        ("int4+int8-activations", "INT4 weights, INT8 activations"),
        ("int6-activations", "INT6 activations"),
    ],
)
def test_that_precisions_are_named_for_people(name, text):
    assert precision_text(name) == text


def test_that_a_precision_has_the_interval_of_its_own_error():
    row = strip_row("conv", ROW, "int8")
    assert [row.low, row.high] == pytest.approx([0.001 - 1.96 * 0.0002, 0.001 + 1.96 * 0.0002])
    assert row.method == "fisher"
    assert strip_row("conv", replace(ROW, method="exact", measured=("int8",)), "int8").method == "exact"


def test_that_both_directions_and_both_errors_are_told_in_one_line():
    row = replace(ROW, kl_all_but=0.2, accumulated_sqnr_db=22.0)
    assert direction_words(row, 0.25).replace("\u202f", " ") == (
        "alone 0.012 nats  ·  all but this 0.20 nats, 0.050 less than all  ·  "
        "local 31.0 dB, accumulated 22.0 dB"
    )
    assert "less" not in direction_words(row, None)
    assert "0.050 more than all" in direction_words(row, 0.15)
    assert direction_words(ROW, 0.25) == ""


# ---------------------------------------------------------------------- measuring


def test_that_the_most_sensitive_layers_are_measured_at_what_is_shown(qtbot, full, runner):
    panel = full.findChild(SensitivityPanel)
    qtbot.waitUntil(lambda: panel.precision.findData("int8") >= 0)
    panel.precision.setCurrentIndex(panel.precision.findData("int8"))
    panel.precision.activated.emit(panel.precision.currentIndex())
    ranked = sorted(
        full.session.workspace.layer_sensitivity.values(), key=lambda row: -row.by_precision["int8"]
    )
    menu = panel.menu()
    action(menu, "all_but").setChecked(True)
    action(menu, "measure.top5").trigger()
    settle(full)
    params = runner.submitted[-1].params
    assert params["layers"] == [row.name for row in ranked[:5]]
    assert params["precisions"] == ["int8"]
    assert params["all_but"] is True
    assert "accumulated" not in params
    assert action(panel.menu(), "all_but").isChecked()
    panel.menu().findChild(QAction, "sensitivity.all_but").setChecked(False)
    panel.precision.setCurrentIndex(0)
    panel.precision.activated.emit(0)


def test_that_the_selection_and_what_is_above_the_line_can_be_measured(panel, session):
    names = [layer.name for layer in session.workspace.layers[2:5]]
    session.select(names)
    panel.threshold.click()
    panel.threshold_bar.count.setValue(4)
    menu = panel.menu()
    assert set(action(menu, "measure.selection").data()) == set(names)
    assert action(menu, "measure.selection").text() == "The selection (3 layers)"
    assert len(action(menu, "measure.above").data()) == 4
    assert len(action(menu, "measure.all").data()) == 24


def test_that_what_was_measured_of_the_layer_looked_at_is_said(qtbot, panel, session):
    row = session.workspace.layer_sensitivity[session.workspace.layers[3].name]
    assert not panel.reading.isVisible()
    put_sensitivity(
        session.workspace, [replace(row, method="exact", kl_all_but=0.2, accumulated_sqnr_db=22.0)]
    )
    session.select([row.name])
    qtbot.waitUntil(panel.reading.isVisible)
    assert panel.reading.text().startswith(f"{row.name}:  alone ")
    assert "accumulated 22.0" in panel.reading.text()
    session.select([session.workspace.layers[0].name])
    assert not panel.reading.isVisible()


def test_that_measured_bars_among_estimates_are_marked(qtbot, panel, session):
    row = session.workspace.layer_sensitivity[session.workspace.layers[3].name]
    put_sensitivity(session.workspace, [replace(row, method="exact")])
    qtbot.waitUntil(lambda: len(panel.strip._marks.data) == 1)
    assert panel.tag.text == "predicted"
    assert "1 of 24 layers measured" in panel.tag.accessibleDescription()


# ---------------------------------------------------------------------- more precisions


def test_that_only_unknown_precisions_are_analyzed(full, runner):
    menu = full.findChild(SensitivityPanel).menu()
    known = action(menu, "analyze.int4")
    assert known.isChecked()
    assert not known.isEnabled()
    run = action(menu, "analyze.run")
    assert not run.isEnabled()
    action(menu, "analyze.int2").trigger()
    action(menu, "analyze.binary").trigger()
    assert run.text() == "Analyze 2 more"
    run.trigger()
    settle(full)
    assert runner.submitted[-1].params["precisions"] == ["int2", "binary"]
    assert runner.submitted[-1].params["method"] == "fisher"


def test_that_one_measured_layer_does_not_pass_for_an_estimate_of_all(panel, session):
    name = session.workspace.layers[0].name
    measured = replace(session.workspace.layer_sensitivity[name], method=EXACT, by_precision={"int2": 0.4})
    put_sensitivity_run(
        session.workspace, SensitivityResult(EXACT, 512, 1.0, "int4", (measured,), precisions=("int2",))
    )
    assert action(panel.menu(), "analyze.int2").isEnabled()
    rows = tuple(
        replace(row, by_precision={"int2": 0.5}) for row in session.workspace.layer_sensitivity.values()
    )
    put_sensitivity_run(
        session.workspace, SensitivityResult("fisher", 512, 1.0, "int4", rows, precisions=("int2",))
    )
    assert not action(panel.menu(), "analyze.int2").isEnabled()
    assert action(panel.menu(), "analyze.int3").isEnabled()


def test_that_bars_of_another_precision_end_with_the_model_that_knows_it(qtbot, panel, session):
    panel.precision.setCurrentIndex(panel.precision.findData("int8"))
    panel.precision.activated.emit(panel.precision.currentIndex())
    session.workspace.opening.set_model(model_summary(7))
    rows = [replace(sensitivity(one, 0), by_precision={"int2": 0.5}) for one in session.workspace.layers]
    put_sensitivity(session.workspace, rows, CURVE)
    qtbot.waitUntil(lambda: panel.precision.findData("int2") >= 0)
    assert panel.precision.currentText() == "Reference"
    assert [row.kl for row in panel.strip.rows] == [row.kl for row in rows]


def test_that_precisions_that_come_later_are_offered_and_shown(qtbot, panel, session):
    rows = session.workspace.layer_sensitivity.values()
    found = [
        replace(row, by_precision={"int2": 0.5, "int4+int8-activations": 0.1}, error_by_precision={})
        for row in rows
    ]
    put_sensitivity(session.workspace, found)
    qtbot.waitUntil(lambda: panel.precision.findData("int2") >= 0)
    texts = [panel.precision.itemText(i) for i in range(panel.precision.count())]
    assert texts == [
        "Reference",
        "INT8 weights",
        "INT4 weights",
        "INT2 weights",
        "INT8 activations",
        "INT4 weights, INT8 activations",
        "",
        "More…",
    ]
    panel.precision.setCurrentIndex(panel.precision.findData("int2"))
    panel.precision.activated.emit(panel.precision.currentIndex())
    assert panel.strip.rows[0].kl == 0.5


def test_that_the_precision_list_leads_to_more_of_them(qtbot, panel, session):
    panel.precision.setCurrentIndex(panel.precision.findData("int8"))
    panel.precision.activated.emit(panel.precision.currentIndex())
    panel.precision.setCurrentIndex(panel.precision.findData("more"))
    panel.precision.activated.emit(panel.precision.currentIndex())
    assert panel.precision.currentData() == "int8"
    menu = find(panel, CheckMenu, "sensitivity.analyze")
    assert menu.isVisible()
    find(menu, QAction, "sensitivity.analyze.int3").trigger()
    find(menu, QAction, "sensitivity.analyze.run").trigger()
    menu.close()
    assert session.workspace.jobs.rows[-1].title == "Sensitivity at int3"
    qtbot.waitUntil(lambda: panel.findChild(CheckMenu) is None)


def test_that_check_marks_leave_the_menu_open(qtbot):
    menu = CheckMenu()
    qtbot.addWidget(menu)
    mark, plain = menu.addAction("mark"), menu.addAction("plain")
    mark.setCheckable(True)
    menu.popup(menu.pos())
    QTest.mouseClick(
        menu, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, menu.actionGeometry(mark).center()
    )
    assert mark.isChecked()
    assert menu.isVisible()
    menu.setActiveAction(mark)
    QTest.keyClick(menu, Qt.Key.Key_Space)
    assert not mark.isChecked()
    assert menu.isVisible()
    menu.setActiveAction(plain)
    QTest.keyClick(menu, Qt.Key.Key_Return)
    assert not menu.isVisible()


def test_that_the_menu_opens_below_its_button(qtbot, panel):
    panel.more.click()
    menu = find(panel, SensitivityMenu)
    assert menu.isVisible()
    menu.close()
    qtbot.waitUntil(lambda: panel.findChild(SensitivityMenu) is None)


# ---------------------------------------------------------------------- the bars


def test_that_bars_come_after_the_first_batch_and_whiskers_shrink(qtbot, session):
    panel = shown(qtbot, SensitivityPanel(session), 900, 320)
    row = session.workspace.layer_sensitivity[session.workspace.layers[0].name]
    forget(session.workspace, findings.SENSITIVITY)
    forget(session.workspace, findings.CURVE)
    put_sensitivity(session.workspace, [replace(row, kl_low=row.kl * 0.2, kl_high=row.kl * 2)])
    qtbot.waitUntil(lambda: sum(r.kl is not None for r in panel.strip.rows) == 1)
    assert panel.strip.subtitle.text().startswith("1 of ")
    wide = panel.strip.rows[0].high
    put_sensitivity(session.workspace, [replace(row, kl_low=row.kl * 0.9, kl_high=row.kl * 1.1)])
    qtbot.waitUntil(lambda: panel.strip.rows[0].high < wide)
    put_sensitivity(session.workspace, [row], CURVE)
    qtbot.waitUntil(lambda: panel.strip.subtitle.text().startswith("KL of the output"))


def test_that_arrow_keys_choose_the_bar_beside(qtbot, panel, session):
    session.select([session.workspace.layers[4].name])
    panel.strip.view.setFocus()
    QTest.keyClick(panel.strip.view, Qt.Key.Key_Right)
    assert session.selection == (session.workspace.layers[5].name,)
    QTest.keyClick(panel.strip.view, Qt.Key.Key_Left)
    assert session.selection == (session.workspace.layers[4].name,)


def test_that_whiskers_return_when_few_enough_bars_are_seen(qtbot, qapp):
    many = analysed_session(300)
    panel = shown(qtbot, SensitivityPanel(many), 900, 320)
    assert not panel.strip._whiskers.isVisible()
    panel.strip.item.getViewBox().setXRange(0, 50)
    assert panel.strip._whiskers.isVisible()
    many.close()


def test_that_the_figures_of_the_bars_are_saved_as_csv(panel, tmp_path):
    panel.strip.save(tmp_path / "bars.csv")
    lines = (tmp_path / "bars.csv").read_text().splitlines()
    assert lines[0] == "layer,kl_nats,low_nats,high_nats,method"
    assert len(lines) == 25


def test_that_the_line_and_the_classes_are_commands(qtbot, full):
    panel = full.findChild(SensitivityPanel)
    full.views.tabs.setCurrentIndex(2)
    full.actions_list["edit.threshold"].trigger()
    assert full.views.tabs.currentIndex() == 0
    assert panel.threshold_bar.isVisible()
    assert full.focusWidget() is panel.strip.view
    full.actions_list["view.classes"].trigger()
    assert panel.kind == "classes"
    panel.show_kind("bars")
    panel.threshold.setChecked(False)


def test_that_a_run_at_many_precisions_says_how_many(session):
    session.workspace.runs.analyze_at(("int8", "int6", "int4", "int3"))
    assert session.workspace.jobs.rows[-1].title == "Sensitivity at 4 precisions"
