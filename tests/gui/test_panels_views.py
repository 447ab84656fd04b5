"""The panels on a filled session: one selection, real clicks, honest empty states."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QAbstractItemView, QComboBox, QLineEdit

from quantstudio.core import figures
from quantstudio.core.findings import COSTS, CURVE, SENSITIVITY
from quantstudio.core.precision import STATIC_INT4, STATIC_INT8
from quantstudio.core.predict.check import Figure
from quantstudio.core.recipe import RangeOverride
from quantstudio.core.results import Headline, Interval
from quantstudio.gui.facts.variant_facts import busy_text, timing_text
from quantstudio.gui.features.compare.compare_panel import ComparePanel
from quantstudio.gui.features.compare.compare_table import CompareTableModel
from quantstudio.gui.features.inspect.inspect_panel import ACTIVATIONS, WEIGHTS, InspectPanel
from quantstudio.gui.features.layers.layer_table import LayerColumn
from quantstudio.gui.features.layers.layers_panel import LayersPanel
from quantstudio.gui.features.plans.key_figures_panel import KeyFiguresPanel
from quantstudio.gui.features.search.search_panel import SearchPanel
from quantstudio.gui.features.sensitivity.sensitivity_panel import SensitivityPanel
from quantstudio.gui.features.tradeoff.tradeoff_panel import TradeoffPanel
from quantstudio.gui.features.tradeoff.tradeoff_points import Cost
from quantstudio.gui.session import Session
from quantstudio.gui.theme import DARK, LIGHT, apply_theme
from quantstudio.report.html import cards
from quantstudio.workspace.report_data import report_of
from tests.gui.plot_mouse import click, double_click, move, press, release, shown
from tests.gui.readings import numbers
from tests.gui.sample_session import analysed_session, measured_session, with_classes
from tests.workspace.putting import forget, put_comparison, put_costs, put_measurement, put_sensitivity
from tests.workspace.samples import IdleRunner, model_summary, sensitivity, variant_result

LEFT = Qt.MouseButton.LeftButton
NONE = Qt.KeyboardModifier.NoModifier


def settle(qtbot, session) -> None:
    """Let the throttled signals of a fresh session arrive."""
    qtbot.waitUntil(
        lambda: session.workspace.prediction is not None and session.workspace.prediction.kl is not None
    )


def turn() -> None:
    """Let the event loop turn: views redraw once for all changes before."""
    for _ in range(8):
        QCoreApplication.processEvents()


@pytest.fixture
def session(qtbot):
    made = analysed_session()
    settle(qtbot, made)
    return made


@pytest.fixture
def measured(qtbot):
    made = measured_session()
    settle(qtbot, made)
    return made


@pytest.fixture
def empty(qapp):
    made = Session(IdleRunner)
    yield made
    made.close()


def click_row(table, row, column=LayerColumn.NAME, modifier=NONE) -> None:
    rect = table.visualRect(table.model().index(row, column))
    QTest.mouseClick(table.viewport(), LEFT, modifier, rect.center())


# ---------------------------------------------------------------------- layers


def test_that_clicked_rows_are_the_selection_of_the_session(qtbot, session):
    panel = shown(qtbot, LayersPanel(session), 700, 500)
    click_row(panel.table, 2)
    assert session.selection == (session.workspace.layers[2].name,)
    click_row(panel.table, 4, modifier=Qt.KeyboardModifier.ControlModifier)
    assert set(session.selection) == {session.workspace.layers[2].name, session.workspace.layers[4].name}
    assert session.current_layer == session.workspace.layers[4].name


def test_that_a_selection_made_elsewhere_shows_in_the_table(qtbot, session):
    panel = shown(qtbot, LayersPanel(session), 700, 300)
    names = [session.workspace.layers[i].name for i in (20, 21)]
    session.select(names)
    rows = sorted(index.row() for index in panel.table.selectionModel().selectedRows())
    assert rows == [20, 21]
    assert panel.table.visualRect(panel.filter.index(21, 0)).intersects(panel.table.viewport().rect())


def test_that_keys_set_the_precision_of_the_selection(qtbot, session):
    panel = shown(qtbot, LayersPanel(session), 700, 500)
    session.select([session.workspace.layers[i].name for i in (0, 1)])
    panel.table.setFocus()
    QTest.keyClick(panel.table, Qt.Key.Key_4)
    assert session.workspace.recipe.scheme_for(session.workspace.layers[1]) == STATIC_INT4
    QTest.keyClick(panel.table, Qt.Key.Key_3)
    assert session.workspace.recipe.scheme_for(session.workspace.layers[1]).label == "FP32"
    QTest.keyClick(panel.table, Qt.Key.Key_8)
    assert session.workspace.recipe.scheme_for(session.workspace.layers[1]) == STATIC_INT8
    session.workspace.edits.undo()
    session.workspace.edits.undo()
    assert session.workspace.recipe.scheme_for(session.workspace.layers[0]) == STATIC_INT4


def test_that_typing_filters_and_counts(qtbot, session):
    panel = shown(qtbot, LayersPanel(session), 700, 500)
    assert panel.count.text() == "24"
    QTest.keyClicks(panel.search, "qkv")
    assert panel.filter.rowCount() == 4
    assert panel.count.text() == "4 of 24"


def test_that_hiding_the_selected_row_does_not_lose_the_selection(qtbot, session):
    panel = shown(qtbot, LayersPanel(session), 700, 500)
    session.select([session.workspace.layers[0].name])
    panel.search.setText("qkv")
    assert session.selection == (session.workspace.layers[0].name,)
    panel.search.clear()
    assert [i.row() for i in panel.table.selectionModel().selectedRows()] == [0]


def test_that_the_type_list_filters(qtbot, session):
    panel = shown(qtbot, LayersPanel(session), 700, 500)
    panel.types.setCurrentIndex(panel.types.findData("MatMul"))
    panel.types.activated.emit(panel.types.currentIndex())
    assert panel.filter.rowCount() == 4


def test_that_the_context_menu_sets_selects_and_copies(qtbot, session):
    panel = shown(qtbot, LayersPanel(session), 700, 500)
    session.select([session.workspace.layers[0].name])
    menu = panel.context_menu()
    by_text = {action.text(): action for action in menu.actions()}
    by_text["Select every Conv"].trigger()
    assert len(session.selection) == sum(layer.op_type == "Conv" for layer in session.workspace.layers)
    menu = panel.context_menu()
    submenu = menu.findChild(type(menu), "layers.menu.selection")
    four = submenu.findChild(type(menu), "layers.menu.selection.4 bits")
    next(a for a in four.actions() if a.data()[1] == "static-int4").trigger()
    assert session.workspace.recipe.scheme_for(session.workspace.layers[1]) == STATIC_INT4
    submenu = menu.findChild(type(menu), "layers.menu.type")
    next(a for a in submenu.actions() if a.data() and a.data()[1] == "fp32").trigger()
    assert session.workspace.recipe.scheme_for(session.workspace.layers[0]).label == "FP32"
    {action.text(): action for action in menu.actions()}["Copy names"].trigger()
    assert session.workspace.layers[0].name in QGuiApplication.clipboard().text()
    exact = {action.text(): action for action in menu.actions()}["Exact sensitivity of selection"]
    assert exact.isEnabled()
    exact.trigger()
    assert len(session.workspace.jobs.rows) == 1


def test_that_rows_sorted_by_sensitivity_follow_the_stream_after_a_while(qtbot, session):
    panel = shown(qtbot, LayersPanel(session), 800, 500)
    panel.table.sortByColumn(LayerColumn.SENSITIVITY, Qt.SortOrder.DescendingOrder)
    worst = session.workspace.layers[7]
    found = sensitivity(worst, 1)

    put_sensitivity(session.workspace, [replace(found, kl=5.0)])
    qtbot.waitUntil(lambda: panel.filter.index(0, LayerColumn.NAME).data() == worst.name)


def test_that_an_empty_trade_off_has_the_button_for_what_it_says(qtbot, empty):
    panel = shown(qtbot, TradeoffPanel(empty, SearchPanel(empty)), 760, 640)
    with qtbot.waitSignal(panel.model_asked):
        panel.plot.empty.button.click()
    empty.workspace.opening.set_model(model_summary(6))
    qtbot.waitUntil(lambda: panel.plot.empty.button.text() == "Choose data…")
    with qtbot.waitSignal(panel.data_asked):
        panel.plot.empty.button.click()


def test_that_without_a_model_the_table_says_what_to_do(qtbot, empty):
    panel = shown(qtbot, LayersPanel(empty), 500, 400)
    assert panel.stack.currentWidget() is panel.empty
    with qtbot.waitSignal(panel.open_asked):
        panel.empty.button.click()
    empty.workspace.opening.set_model(model_summary(6))
    assert panel.stack.currentWidget() is panel.table
    panel.focus_search()


# ---------------------------------------------------------------------- inspector


def test_that_the_inspector_follows_the_selection(qtbot, session):
    panel = shown(qtbot, InspectPanel(session), 760, 620)
    session.select([session.workspace.layers[4].name])
    turn()
    assert panel.histogram.distribution is not None
    assert panel.histogram.distribution.key == session.workspace.layers[4].name
    assert session.workspace.layers[4].name in panel.channels.summary
    panel.show_right("bits")
    assert session.workspace.layers[4].name in panel.bits.summary


def test_that_a_dragged_clip_line_is_one_undo_step(qtbot, session):
    panel = shown(qtbot, InspectPanel(session), 900, 640)
    layer = session.workspace.layers[0]
    session.select([layer.name])
    turn()
    panel.grab()
    before = session.workspace.edits.undo_text
    reach = panel.histogram.clip_range[1]
    press(panel.histogram, reach, 0.5)
    move(panel.histogram, reach * 0.75, 0.5)
    move(panel.histogram, reach * 0.5, 0.5)
    release(panel.histogram, reach * 0.5, 0.5)
    override = session.workspace.recipe.weight_ranges[0]
    assert override.tensor == layer.name
    assert override.high == pytest.approx(reach * 0.5, rel=0.05)
    assert override.low == -override.high
    session.workspace.edits.undo()
    turn()
    assert session.workspace.recipe.weight_ranges == ()
    assert session.workspace.edits.undo_text == before
    assert panel.histogram.clip_range[1] == pytest.approx(reach)


def test_that_a_double_click_takes_the_range_back(qtbot, session):
    panel = shown(qtbot, InspectPanel(session), 900, 640)
    layer = session.workspace.layers[0]
    session.select([layer.name])
    session.workspace.edits.set_weight_range(layer.name, -0.02, 0.02)
    turn()
    assert panel.histogram.reset_button.isVisible()
    double_click(panel.histogram, 0.0, 0.5)
    assert session.workspace.recipe.weight_ranges == ()


def test_that_activations_have_their_own_range(qtbot, session):
    panel = shown(qtbot, InspectPanel(session), 900, 640)
    layer = session.workspace.layers[1]
    session.select([layer.name])
    turn()
    panel.kind.button(ACTIVATIONS).click()
    shown_now = panel.histogram.distribution
    assert shown_now is not None
    assert shown_now.key == layer.inputs[0]
    assert len(shown_now.histogram.counts) == 4096
    panel.histogram.range_edited.emit(layer.inputs[0], 0.0, 2.0)
    assert session.workspace.recipe.activation_ranges == (RangeOverride(layer.inputs[0], 0.0, 2.0),)
    panel.histogram.range_reset.emit(layer.inputs[0])
    assert session.workspace.recipe.activation_ranges == ()
    panel.show_kind(WEIGHTS)
    assert panel.histogram.distribution is not None
    assert panel.histogram.distribution.kind == "weights"


def test_that_a_click_on_a_bit_width_sets_the_layer(qtbot, session):
    panel = shown(qtbot, InspectPanel(session), 760, 640)
    session.select([session.workspace.layers[0].name])
    turn()
    panel.show_right("bits")
    panel.grab()
    click(panel.bits, *panel.bits.column_centre("static-int4"))
    assert session.workspace.recipe.scheme_for(session.workspace.layers[0]) == STATIC_INT4


def test_that_a_wide_inspector_shows_both_right_plots(qtbot, session):
    panel = shown(qtbot, InspectPanel(session), 1200, 640)
    assert panel.bits.isVisible()
    assert panel.channels.isVisible()
    panel.resize(760, 640)
    panel.grab()
    qtbot.waitUntil(lambda: not panel.bits.isVisible())
    panel._switches[0].button("bits").click()
    assert panel.bits.isVisible()


def test_that_growing_places_every_plot_at_once_even_while_the_theme_changes(qtbot, session):
    panel = shown(qtbot, InspectPanel(session), 760, 640)
    plots = (panel.histogram, panel.channels, panel.bits)
    panel.show_right("bits")
    for width in (1200, 800, 1500):
        panel.ensurePolished()
        panel.setStyleSheet(f"QLabel {{ margin: {width % 7}px }}")  # every layout has a request waiting
        panel.resize(width, 640)  # and nothing below turns the event loop
        places = [plot.geometry() for plot in plots if plot.isVisible()]
        assert len(places) == (2 if width < 1080 else 3)
        assert sum(place.width() + 8 for place in places) == width + 8
        assert max(p.width() for p in places) - min(p.width() for p in places) <= 1
        for plot in plots:
            parts = [one.geometry() for one in (plot.title, plot.legend) if one.isVisible()]
            assert not any(a.intersects(b) for i, a in enumerate(parts) for b in parts[i + 1 :])


def test_that_the_inspector_says_what_is_missing(qtbot, empty):
    panel = shown(qtbot, InspectPanel(empty), 760, 640)
    assert "Open a model" in panel.histogram.summary
    empty.workspace.opening.set_model(model_summary(6))
    turn()
    assert panel.histogram.empty.button.text() == "Analyze"
    panel.show_kind(ACTIVATIONS)
    assert "Choose calibration data" in panel.histogram.summary
    empty.workspace.opening.set_model(model_summary(7))
    empty.select([empty.workspace.layers[5].name])
    panel.show_right("bits")
    turn()
    assert "norm is too small" in panel.bits.summary


def test_that_the_button_of_an_empty_histogram_starts_the_analysis(qtbot, empty):
    from quantstudio.core.data_spec import DataSpec

    empty.workspace.opening.set_model(model_summary(6))
    empty.workspace.opening.set_data(DataSpec("train.npz"), None)
    panel = shown(qtbot, InspectPanel(empty), 760, 640)
    panel.histogram.empty.button.click()
    assert empty.workspace.jobs.rows


# ---------------------------------------------------------------------- sensitivity


def test_that_a_click_on_the_strip_selects_the_layer(qtbot, session):
    panel = shown(qtbot, SensitivityPanel(session), 900, 280)
    click(panel.strip, *panel.strip.bar_centre(session.workspace.layers[9].name))
    assert session.selection == (session.workspace.layers[9].name,)


def test_that_the_precision_list_changes_the_bars(qtbot, session):
    panel = shown(qtbot, SensitivityPanel(session), 900, 280)
    reference = panel.strip.rows[0].kl
    panel.precision.setCurrentIndex(panel.precision.findData("int8"))
    panel.precision.activated.emit(panel.precision.currentIndex())
    assert panel.strip.rows[0].kl == pytest.approx(reference / 200)
    panel.sorted.click()
    assert panel.strip.labels[0].startswith("Layers, most sensitive")
    panel.log.click()
    assert panel.tag.text == "predicted"


def test_that_exact_results_are_tagged_measured(qtbot, session):
    panel = shown(qtbot, SensitivityPanel(session), 900, 280)
    put_sensitivity(
        session.workspace, [replace(s, method="exact") for s in session.workspace.layer_sensitivity.values()]
    )
    qtbot.waitUntil(lambda: panel.tag.text == "measured")


# ---------------------------------------------------------------------- key figures


def test_that_figures_are_predicted_until_they_are_measured(qtbot, session):
    panel = shown(qtbot, KeyFiguresPanel(session), 900, 70)
    assert panel.size_card.tag.text == "predicted"
    assert "smaller" in panel.size_card.accessibleName()
    assert panel.quality_card.tag.text == "predicted"
    assert panel.quality_card.value.text().endswith("%")
    assert panel.latency_card.tag.text == "predicted"
    before = panel.size_card.value.text()
    session.workspace.edits.set_scheme([layer.name for layer in session.workspace.layers], "static-int4")
    qtbot.waitUntil(
        lambda: panel.quality_card.delta.property("role") == "bad" or panel.size_card.value.text() != ""
    )
    turn()
    assert panel.layers_card.delta.text() in ("at W4A8", "4 at W8", "4 W8")
    # The file is packed, so half the bits make it smaller.
    assert 0.5 < numbers(panel.size_card.value.text())[0][0] / numbers(before)[0][0] < 1


def test_that_measured_figures_carry_sign_tone_and_interval(qtbot, measured):
    panel = shown(qtbot, KeyFiguresPanel(measured), 900, 70)
    assert panel.quality_card.tag.text == "measured"
    assert panel.quality_card.delta.text() == "−0.25\u202fpp"
    assert panel.quality_card.delta.property("role") == "warn"
    assert "95 % interval" in panel.quality_card.toolTip()
    assert "2.7× faster" in panel.latency_card.accessibleName()
    assert panel.size_card.delta.property("role") == "good"


def test_that_a_time_taken_on_a_busy_machine_says_so(qtbot):
    session = measured_session(6)
    current = session.workspace.current_variant
    assert current is not None
    assert current.result is not None
    assert current.result.latency_ms is not None
    assert busy_text(current) == ""
    for share, said in ((0.05, ""), (0.6, "60\u202f% other load")):
        latency = replace(current.result.latency_ms, other_load=share)
        assert busy_text(replace(current, result=replace(current.result, latency_ms=latency))) == said
    moved = replace(current.result.latency_ms, other_load=0.6, scale=1.5)
    told = timing_text(replace(current, result=replace(current.result, latency_ms=moved)))
    assert "other programs used 60 % of the processors meanwhile" in told
    assert "shown on the scale of FP32" in told


def test_that_a_prediction_tells_its_interval_the_class_at_risk_and_memory(qtbot, session):
    with_classes(session, 10)
    names = session.workspace.sensitivity_run.classes
    curve = replace(session.workspace.sensitivity_curve, by_class=(0.9,) * len(names), samples=512)
    put_sensitivity(session.workspace, [], curve)
    costs = session.workspace.costs
    rows = {
        name: replace(row, memory_bytes={one: 2 * size for one, size in row.weight_bytes.items()})
        for name, row in costs.layers.items()
    }
    put_costs(session.workspace, replace(costs, layers=rows, fp32_memory_bytes=160_000_000))
    panel = shown(qtbot, KeyFiguresPanel(session), 900, 90)
    qtbot.waitUntil(lambda: session.workspace.prediction.worst_class is not None)
    turn()
    prediction = session.workspace.prediction
    worst = prediction.worst_class
    assert worst.name in names
    assert f"class {worst.name} is most at risk" in panel.quality_card.toolTip()
    assert "90 % interval" in panel.quality_card.toolTip().replace("\u202f", " ")
    assert "not yet checked against a measured variant" in panel.quality_card.toolTip()
    assert worst.name in panel.quality_card.more.text()
    assert panel.size_card.more.text() == f"{figures.size(prediction.memory_bytes)} peak memory"
    assert "predicted" in panel.size_card.toolTip()
    assert panel.latency_card.more.isHidden()


def test_that_a_class_with_a_number_is_said_to_be_a_class_and_one_that_loses_nothing_is_left_out(
    qtbot, measured
):
    built = measured.workspace.variants[-1]
    numbered = tuple(
        replace(row, label=str(place), variant=row.base - 0.021 * (place == 4))
        for place, row in enumerate(built.result.per_class)
    )
    even = tuple(replace(row, variant=row.base - 0.0004) for row in numbered)
    for per_class, shows in ((numbered, True), (even, False)):
        put_measurement(measured.workspace, built.key, replace(built.result, per_class=per_class))
        panel = shown(qtbot, KeyFiguresPanel(measured), 900, 90)
        assert panel.quality_card.more.text().endswith("class 4 −2.1") is shows
        assert ("class" in panel.quality_card.more.text()) is shows


def test_that_layers_kept_in_float_are_not_counted_among_all(qtbot, session):
    panel = shown(qtbot, KeyFiguresPanel(session), 900, 90)
    assert {layer.op_type for layer in session.workspace.layers if layer.quantizable} > {"Gather"}
    # The tables of embeddings could be integers too, and are not.
    assert panel.layers_card.delta.text() == "at INT8"


def test_that_measured_classes_and_memory_replace_the_predicted_ones(qtbot, measured):
    panel = shown(qtbot, KeyFiguresPanel(measured), 900, 90)
    result = measured.workspace.current_variant.result
    worst = min(result.per_class, key=lambda row: row.variant - row.base)
    assert worst.label in panel.quality_card.more.text()
    assert panel.size_card.more.text() == f"{figures.size(result.peak_memory_bytes)} peak memory"
    assert "peak memory of a process that runs one sample" in panel.size_card.toolTip()


def test_that_measured_variants_correct_the_prediction(qtbot, measured):
    panel = shown(qtbot, KeyFiguresPanel(measured), 900, 90)
    measured.workspace.edits.set_scheme([measured.workspace.layers[0].name], "fp32")
    qtbot.waitUntil(lambda: panel.quality_card.tag.text == "predicted")
    turn()
    built = [one for one in measured.workspace.variants if one.result is not None and not one.is_base]
    assert measured.workspace.prediction.plans == len(built)
    assert f"corrected by {len(built)} measured variants" in panel.quality_card.toolTip()
    points = measured.workspace.prediction_points()
    assert [point.name for point in points] == [one.name for one in built]
    assert all(point.low <= point.predicted <= point.high for point in points)
    sizes = measured.workspace.prediction_points(Figure.SIZE)
    assert [point.measured for point in sizes] == [one.result.size_bytes for one in built]


def test_that_a_changed_recipe_never_shows_a_stale_figure_as_current(qtbot, measured):
    panel = shown(qtbot, KeyFiguresPanel(measured), 900, 70)
    forget(measured.workspace, CURVE)
    forget(measured.workspace, COSTS)
    measured.workspace.edits.set_scheme([measured.workspace.layers[0].name], "fp32")
    qtbot.waitUntil(lambda: panel.quality_card.tag.text == "out of date")
    assert panel.latency_card.tag.text == "out of date"
    assert panel.size_card.delta.text() == "FP32"
    measured.workspace.edits.undo()
    qtbot.waitUntil(lambda: panel.quality_card.tag.text == "measured")


def test_that_without_a_model_no_figure_is_invented(qtbot, empty):
    panel = shown(qtbot, KeyFiguresPanel(empty), 900, 70)
    cards = (panel.size_card, panel.quality_card, panel.latency_card, panel.layers_card)
    assert {card.value.text() for card in cards} == {"—"}
    assert {card.tag.text for card in cards} == {""}


def test_that_a_slower_variant_says_slower(qtbot, measured):
    panel = shown(qtbot, KeyFiguresPanel(measured), 900, 70)
    base = measured.workspace.base.result
    slow = variant_result("INT8", "INT8.onnx", 0.93, measured.workspace.model.file_bytes // 4, 40.0)
    put_comparison(measured.workspace, base, {"INT8.onnx": slow})
    turn()
    assert "slower" in panel.latency_card.accessibleName()
    assert panel.quality_card.delta.property("role") == "good"


def test_that_what_a_figure_leaves_out_stands_at_it(qtbot, measured):
    def with_caveat(result):
        loss = Interval(0.0, 0.0, 0.0)
        return replace(
            result, headline=Headline("r2", "Values explained", 1.0, 0.99, loss, "%", 1.0, "no boxes")
        )

    base = with_caveat(measured.workspace.base.result)
    put_comparison(
        measured.workspace, base, {"INT8.onnx": with_caveat(measured.workspace.variants[-1].result)}
    )
    panel = shown(qtbot, KeyFiguresPanel(measured), 900, 90)
    assert panel.quality_card.note.text().startswith("no boxes")
    assert panel.quality_card.toolTip().count("no boxes") == 1
    table = CompareTableModel()
    table.set_variants([one for one in measured.workspace.variants if one.result], measured.workspace.layers)
    assert table.index(0, 0).data(Qt.ItemDataRole.ToolTipRole) == "Values explained\nno boxes"
    quality = cards(report_of(measured.workspace))[1]
    assert quality.detail.endswith("no boxes")


# ---------------------------------------------------------------------- trade-off


def test_that_a_click_on_a_dot_loads_the_recipe_of_the_variant(qtbot, measured):
    panel = shown(qtbot, TradeoffPanel(measured, SearchPanel(measured)), 760, 640)
    mixed = measured.workspace.variants[1]
    dot = next(p for p in panel.plot.points if p.name == mixed.name)
    click(panel.plot, dot.cost.value, dot.quality.value)
    assert measured.workspace.recipe == mixed.recipe
    assert measured.workspace.edits.undo_text == "Load INT4 mixed"


def test_that_the_table_loads_a_recipe_too(qtbot, measured):
    panel = shown(qtbot, TradeoffPanel(measured, SearchPanel(measured)), 1000, 640)
    rect = panel.table.visualRect(panel.table.model().index(2, 0))
    QTest.mouseClick(panel.table.viewport(), LEFT, NONE, rect.center())
    assert panel.load.isEnabled()
    QTest.mouseClick(panel.load, LEFT)
    assert measured.workspace.recipe == measured.workspace.variants[2].recipe
    qtbot.waitUntil(lambda: not panel.load.isEnabled())


def test_that_the_cost_axis_can_be_latency_with_its_interval(qtbot, measured):
    panel = shown(qtbot, TradeoffPanel(measured, SearchPanel(measured)), 760, 640)
    panel.cost.button(Cost.LATENCY.value).click()
    dot = next(p for p in panel.plot.points if p.name == "INT8")
    assert dot.cost.value == pytest.approx(6.9)
    assert dot.cost.low < 6.9 < dot.cost.high
    assert panel.plot.title.text() == "Top-1 accuracy against latency"


def test_that_an_unmeasured_recipe_is_a_hollow_prediction(qtbot, measured):
    panel = shown(qtbot, TradeoffPanel(measured, SearchPanel(measured)), 760, 640)
    assert not any(p.is_predicted for p in panel.plot.points)
    measured.workspace.edits.set_scheme([measured.workspace.layers[0].name], "fp32")
    qtbot.waitUntil(lambda: any(p.is_predicted for p in panel.plot.points))


def test_that_nothing_measured_offers_to_measure(qtbot, session):
    panel = shown(qtbot, TradeoffPanel(session, SearchPanel(session)), 760, 640)
    assert panel.plot.is_empty
    assert panel.plot.empty.button.text() == "Measure"
    panel.plot.empty.button.click()
    assert session.workspace.jobs.rows


# ---------------------------------------------------------------------- compare


def test_that_the_comparison_shows_base_then_current(qtbot, measured):
    panel = shown(qtbot, ComparePanel(measured), 1100, 700)
    assert [v.name for v in panel.shown] == ["FP32", "INT8", "Dynamic", "INT4 mixed"]
    assert panel.classes.classes
    assert "INT8" in panel.latency.summary
    assert not panel.sizes.is_empty
    panel.show_lower("flips")
    assert panel.flip_table.model().rowCount() == 4
    assert panel.flip_table.model().index(0, 1).data() == "Dress (3)"


def test_that_variants_can_be_left_out(qtbot, measured):
    panel = shown(qtbot, ComparePanel(measured), 1100, 700)
    next(a for a in panel.menu.actions() if a.text() == "Dynamic").trigger()
    assert [v.name for v in panel.shown] == ["FP32", "INT8", "INT4 mixed"]
    assert "Dynamic" not in panel.latency.summary


def test_that_the_class_plot_can_show_another_variant(qtbot, measured):
    panel = shown(qtbot, ComparePanel(measured), 1100, 700)
    panel.variant.setCurrentIndex(0)
    panel.variant.activated.emit(0)
    assert "INT4 mixed" in panel.classes.summary


def test_that_nothing_to_compare_offers_to_measure(qtbot, session):
    panel = shown(qtbot, ComparePanel(session), 1100, 700)
    assert panel.stack.currentWidget() is panel.empty
    panel.empty.button.click()
    assert session.workspace.jobs.rows


# ---------------------------------------------------------------------- every panel


def tradeoff_panel(session: Session) -> TradeoffPanel:
    return TradeoffPanel(session, SearchPanel(session))


PANELS = (LayersPanel, InspectPanel, SensitivityPanel, KeyFiguresPanel, tradeoff_panel, ComparePanel)


@pytest.mark.parametrize("kind", PANELS, ids=lambda k: k.__name__)
def test_that_every_control_has_a_name_for_people_and_for_tests(qtbot, measured, kind):
    panel = shown(qtbot, kind(measured), 900, 600)
    assert panel.objectName()
    for control_type in (QAbstractButton, QLineEdit, QComboBox, QAbstractItemView):
        for control in panel.findChildren(control_type):
            if not control.isVisible() or control.objectName().startswith("qt_"):
                continue
            assert control.objectName() or control.parent().objectName().startswith("qt_"), control
            text = control.text() if isinstance(control, QAbstractButton) else ""
            inside = isinstance(control.parent(), QLineEdit | QAbstractItemView)
            assert control.accessibleName() or text or inside, control.objectName()


@pytest.mark.parametrize("kind", PANELS, ids=lambda k: k.__name__)
def test_that_every_panel_paints_in_both_themes_narrow_and_wide(qapp, qtbot, measured, kind):
    panel = shown(qtbot, kind(measured), 520, 600)
    try:
        for theme, width in ((DARK, 520), (LIGHT, 1200)):
            panel.resize(width, 600)
            apply_theme(qapp, theme)
            image = panel.grab().toImage()
            assert not image.isNull()
    finally:
        apply_theme(qapp, LIGHT)


def test_that_results_that_stream_in_do_not_move_a_held_line(qtbot, session):
    panel = shown(qtbot, InspectPanel(session), 900, 640)
    layer = session.workspace.layers[0]
    session.select([layer.name])
    turn()
    panel.grab()
    reach = panel.histogram.clip_range[1]
    press(panel.histogram, reach, 0.5)
    move(panel.histogram, reach * 0.6, 0.5)
    held = panel.histogram.clip_range
    session.weights_changed.emit()
    turn()
    assert panel.histogram.clip_range == held
    release(panel.histogram, reach * 0.6, 0.5)
    assert len(session.workspace.recipe.weight_ranges) == 1


def test_that_a_hidden_panel_catches_up_when_it_is_shown(qtbot, measured):
    panel = ComparePanel(measured)
    qtbot.addWidget(panel)
    assert panel.model.rowCount() == 0
    panel.resize(900, 600)
    panel.show()
    qtbot.waitExposed(panel)
    assert panel.model.rowCount() > 5


def test_that_sensitivity_without_data_offers_to_choose_some(qtbot, session):
    session.workspace.opening.set_data(None, session.workspace.test_data)
    forget(session.workspace, SENSITIVITY)
    panel = shown(qtbot, SensitivityPanel(session), 900, 260)
    button = panel.strip.empty.button
    assert button.text() == "Choose data…"
    with qtbot.waitSignal(session.data_offered) as asked:
        button.click()
    assert asked.args == [""]


def test_that_tab_goes_through_the_header_before_the_plot(qtbot, session, qtlog):
    panel = shown(qtbot, SensitivityPanel(session), 900, 260)
    first = panel.switches["bars"].button("bars")
    order, stop = [first], first.nextInFocusChain()
    while stop is not first:
        order.append(stop)
        stop = stop.nextInFocusChain()
    places = [order.index(w) for w in (panel.precision, panel.sorted, panel.log, panel.threshold, panel.more)]
    assert places == sorted(places)
    assert places[-1] < order.index(panel.strip.view)
    assert not [one for one in qtlog.records if "setTabOrder" in one.message]
