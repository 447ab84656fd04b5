"""Every other plot: what it shows, what a click does, how it leaves the window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyqtgraph as pg
import pytest
from PySide6.QtCore import QPoint
from PySide6.QtGui import QColor, QGuiApplication, QImage
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtTest import QTest

from quantstudio.core.predict.losses import PlanLosses
from quantstudio.core.results import ClassAccuracy, Interval, LayerSensitivity
from quantstudio.core.statistics import Histogram
from quantstudio.gui.plots.channel_ranges import ChannelRangesPlot
from quantstudio.gui.plots.class_accuracy import MAX_CLASSES, ClassAccuracyPlot
from quantstudio.gui.plots.distribution import Distribution
from quantstudio.gui.plots.error_bits import ErrorBitsPlot, precision_costs
from quantstudio.gui.plots.histogram import HistogramPlot
from quantstudio.gui.plots.latency import LatencyPlot
from quantstudio.gui.plots.sensitivity_scale import (
    SensitivityScale,
    StripRow,
    scale_for,
    strip_row,
)
from quantstudio.gui.plots.sensitivity_strip import SensitivityStrip
from quantstudio.gui.plots.size_bars import SizeBarsPlot
from quantstudio.gui.plots.trade_off import TradeOffPlot
from quantstudio.gui.plots.trade_off_dots import TradeOffPoint, pareto_front, stack_levels
from quantstudio.gui.theme import DARK, LIGHT, apply_theme
from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.gui.widgets.segmented import Segmented
from tests.gui.plot_mouse import click, place, shown
from tests.gui.settling import settled
from tests.workspace.samples import latency, model_summary, weight_statistics

SCALE = SensitivityScale(
    PlanLosses(1.2, 0.5, {f"layer{i}": (i + 1) / 210 for i in range(20)}, frozenset({"layer19", "layer18"})),
    largest=2.0,
)


def rows(count=20):
    return [StripRow(f"layer{i}", float(i + 1) / 10, i / 10, (i + 2) / 10) for i in range(count)]


# ---------------------------------------------------------------------- sensitivity


def test_that_a_click_on_a_bar_chooses_its_layer(qtbot):
    strip = shown(qtbot, SensitivityStrip(), 700, 260)
    strip.show_rows(rows(), SCALE)
    with qtbot.waitSignal(strip.layer_chosen) as chosen:
        click(strip, *strip.bar_centre("layer7"))
    assert chosen.args == ["layer7"]


def test_that_sorting_puts_the_most_sensitive_first_and_unknown_last(qtbot):
    strip = shown(qtbot, SensitivityStrip(), 700, 260)
    strip.show_rows([*rows(3), StripRow("new", None)], SCALE)
    assert strip.bar_centre("layer0")[0] == 0
    strip.set_sorted(True)
    assert [strip.bar_centre(n)[0] for n in ("layer2", "layer1", "layer0", "new")] == [0, 1, 2, 3]
    with qtbot.waitSignal(strip.layer_chosen) as chosen:
        click(strip, *strip.bar_centre("layer2"))
    assert chosen.args == ["layer2"]


def test_that_the_log_scale_shows_layers_a_thousand_times_smaller(qtbot):
    strip = shown(qtbot, SensitivityStrip(), 700, 260)
    strip.show_rows([StripRow("big", 1.0, 0.9, 1.1), StripRow("small", 0.001, 0.0009, 0.0011)], SCALE)
    strip.set_log(True)
    _, (low, high) = strip.item.getViewBox().viewRange()
    assert low < -3 < 0 < high
    strip.set_selection(["small"])
    strip.grab()


def test_that_the_strip_says_in_words_what_it_shows(qtbot):
    strip = shown(qtbot, SensitivityStrip(), 700, 260)
    strip.show_rows([*rows(12), StripRow("new", None)], SCALE)
    assert "12 of 13 layers analyzed" in strip.summary
    assert "layer11" in strip.summary
    assert "2 break the budget of 0.5 points" in strip.summary
    strip.set_scale(SensitivityScale(PlanLosses(0.2, 0.5), largest=2.0))
    assert "The plan keeps the budget of 0.5 points" in strip.summary
    assert strip.view.accessibleDescription() == strip.summary


def test_that_hovering_a_bar_names_it(qtbot):
    strip = shown(qtbot, SensitivityStrip(), 700, 260)
    strip.show_rows(rows(), SCALE)
    QTest.mouseMove(strip.view.viewport(), place(strip, *strip.bar_centre("layer4")))
    assert strip.view.toolTip().startswith("layer4")


def test_that_red_is_what_breaks_the_budget_of_the_plan_and_amber_a_tenth_of_its_loss():
    kls = {"a": 0.8, "b": 0.15, "c": 0.05}
    losses = PlanLosses(1.0, 0.5, {"a": 0.8, "b": 0.15, "c": 0.05}, frozenset({"a"}))
    scale = scale_for(kls, losses)
    assert scale is not None
    assert [scale.level(name) for name in "abc"] == [2, 1, 0]
    assert [level for _, level in scale.entries] == [2, 1]
    kept = scale_for(kls, replace(losses, total=0.3, breaking=frozenset()))
    assert kept is not None
    assert [kept.level(name) for name in "abc"] == [1, 1, 0]
    assert [level for _, level in kept.entries] == [1]
    assert sum(losses.points(name) for name in "abc") == pytest.approx(losses.total)


def test_that_before_a_prediction_shares_of_the_sum_are_noted_and_nothing_is_red():
    scale = scale_for({"a": 0.5, "b": 9.5}, None)
    assert scale is not None
    assert [scale.level(name) for name in "ab"] == [0, 1]
    assert scale.words("a") == ""
    assert scale_for({}, None) is None


def test_that_the_interval_scales_with_the_precision():
    found = LayerSensitivity("a", 0.2, 0.1, 0.4, 20.0, by_precision={"int8": 0.02})
    row = strip_row("a", found, "int8")
    assert row.kl == 0.02
    assert [row.low, row.high] == pytest.approx([0.01, 0.04])
    assert strip_row("a", found, "int2").kl is None
    assert strip_row("a", None, "int8").kl is None


# ---------------------------------------------------------------------- one layer


def test_that_channel_ranges_name_the_widest_channel(qtbot):
    plot = shown(qtbot, ChannelRangesPlot())
    statistics = weight_statistics(model_summary().layers[0])
    plot.show_statistics(statistics)
    reach = np.maximum(np.abs(statistics.channel_low), np.abs(statistics.channel_high))
    assert f"channel {int(reach.argmax())} with" in plot.summary
    (left, right), _ = plot.item.getViewBox().viewRange()
    assert left <= -0.5
    assert right >= 63.5


def test_that_a_click_on_a_precision_chooses_it(qtbot):
    plot = shown(qtbot, ErrorBitsPlot())
    costs = precision_costs(
        ("fp16", "static-int8", "static-int4"), {"static-int8": 38.0, "static-int4": 17.5}, None
    )
    plot.show_costs("conv1", costs, "static-int8")
    assert [c.name for c in plot.costs] == ["fp32", "fp16", "static-int8", "static-int4"]
    with qtbot.waitSignal(plot.scheme_chosen) as chosen:
        click(plot, *plot.column_centre("static-int4"))
    assert chosen.args == ["static-int4"]
    assert "W4A8 17.5" in plot.summary


def test_that_kl_can_be_chosen_only_once_it_is_known(qtbot):
    plot = shown(qtbot, ErrorBitsPlot())
    sqnr = {"static-int8": 38.0}
    plot.show_costs("conv1", precision_costs(("static-int8",), sqnr, None), "fp32")
    assert not plot.measure.button("kl").isEnabled()
    known = LayerSensitivity(
        "conv1", 0.1, 0.1, 0.1, 20.0, by_precision={"int8": 0.02, "int8-activations": 0.01}
    )
    plot.show_costs("conv1", precision_costs(("static-int8",), sqnr, known), "fp32")
    plot.measure.button("kl").click()
    assert plot.labels[1] == "KL divergence (nats)"
    assert plot.column_centre("static-int8")[1] == pytest.approx(0.015)


# ---------------------------------------------------------------------- variants


def point(key, cost, quality, **more):
    return TradeOffPoint(
        key, key, Interval(cost, cost, cost), Interval(quality, quality - 1, quality + 1), **more
    )


POINTS = [
    point("fp32", 4.0, 92.0, is_base=True),
    point("int8", 1.0, 91.8, is_current=True),
    point("bad", 2.0, 90.0),
    point("what-if", 0.8, 95.0, is_predicted=True),
]


def test_that_the_front_leaves_out_beaten_and_predicted_points():
    assert [p.key for p in pareto_front(POINTS)] == ["int8", "fp32"]


def test_that_a_click_on_a_dot_chooses_the_variant_and_predictions_are_no_variants(qtbot):
    plot = shown(qtbot, TradeOffPlot(), 600, 400)
    plot.show_points(POINTS, "Accuracy against size", "Model size (MB)", "Accuracy (%)")
    chosen: list[str] = []
    plot.variant_chosen.connect(chosen.append)
    plot.grab()
    click(plot, 2.0, 90.0)
    click(plot, 0.8, 95.0)
    assert chosen == ["bad"]
    assert "what-if: 0.800, 95.00 % (predicted)" in plot.summary


def test_that_the_latency_plot_marks_the_medians(qtbot):
    plot = shown(qtbot, LatencyPlot())
    plot.show_models([("FP32", latency(18.0, 1)), ("INT8", latency(7.0, 2))])
    assert "FP32: p50 18.0" in plot.summary
    (left, right), _ = plot.item.getViewBox().viewRange()
    assert left < 7.0 < 18.0 < right
    assert [name for name, _ in plot.legend.entries] == ["FP32", "INT8"]
    plot.show_models([])
    assert plot.is_empty


@pytest.mark.parametrize("height", [220, 300, 420])
def test_that_the_figures_of_latency_stand_above_the_runs(qtbot, height):
    plot = shown(qtbot, LatencyPlot(), 420, height)
    plot.set_narrow(is_narrow=True)
    plot.show_models([(name, latency(7.0, seed)) for seed, name in enumerate(("FP32", "INT8 mixed", "W4A8"))])
    plot.grab()
    view = plot.item.getViewBox()
    peak = max(float(curve.getData()[1].max()) for curve in plot._curves)
    lowest = min(text.mapRectToView(text.boundingRect()).top() for text in plot._texts)
    assert lowest >= peak or view.height() < 100


def test_that_with_many_classes_those_that_lose_most_are_shown(qtbot):
    plot = shown(qtbot, ClassAccuracyPlot(), 600, 300)
    classes = [ClassAccuracy(f"class {i}", 100, 0.9, 0.9 - i / 1000, 0.85, 0.95) for i in range(40)]
    plot.show_classes(classes, "INT8")
    assert len(plot.classes) == MAX_CLASSES
    assert plot.classes[0].label == "class 39"
    assert f"{MAX_CLASSES} of 40" in plot.subtitle.text()


def test_that_weights_that_are_stored_quantized_are_not_called_fp32(qtbot):
    plot = shown(qtbot, HistogramPlot(), 500, 300)
    counts, _ = np.histogram(np.linspace(-1, 1, 500), 64)
    drawn = Distribution("a", "weights", Histogram(counts, -1.0, 1.0, -1.0, 1.0), None, -1.0, 1.0)
    for source in ("FP32", "INT8"):
        plot.show_distribution(replace(drawn, source=source))
        assert [name for name, _ in plot.legend.entries] == [source]


def test_that_a_base_that_is_stored_quantized_is_not_called_fp32(qtbot):
    plot = shown(qtbot, ClassAccuracyPlot(), 600, 300)
    plot.show_classes([ClassAccuracy("a", 100, 0.9, 0.9, 0.85, 0.95)], "W4A8", base="INT8 stored")
    assert [name for name, _ in plot.legend.entries] == ["INT8 stored", "W4A8"]
    assert "FP32" not in plot.summary + plot.subtitle.text()
    dots = TradeOffPlot()
    stored = replace(POINTS[0], is_base=True, name="INT8 stored")
    dots.show_points([stored, *POINTS[1:]], "t", "x", "y")
    assert dots.legend.entries[0][0] == "INT8 stored"


def test_that_sizes_are_written_on_their_bars(qtbot):
    plot = shown(qtbot, SizeBarsPlot())
    plot.show_sizes([("FP32", 4_000_000), ("INT8", 1_000_000)])
    assert "INT8 1.0" in plot.summary
    plot.grab()
    assert [text.toPlainText() for text in plot._texts] == ["4.0\u202fMB", "1.0\u202fMB\n4.0× smaller"]
    plot.resize(190, 200)
    plot.grab()
    assert plot._texts[1].toPlainText() == "1.0\u202fMB\n4.0×"


def test_that_variants_in_one_place_are_rings_around_each_other():
    def point(key, cost, quality):
        return TradeOffPoint(
            key, key, Interval(cost, cost, cost), Interval(quality, quality - 1, quality + 1)
        )

    points = [point("a", 1.0, 90.0), point("b", 4.0, 92.0), point("c", 1.001, 90.0), point("d", 1.0, 90.01)]
    assert stack_levels(points) == [0, 0, 1, 2]
    assert stack_levels([]) == []


def test_that_a_subtitle_uses_the_longest_wording_that_fits(qtbot):
    label = ElidedLabel()
    qtbot.addWidget(label)
    label.set_wordings("a long sentence about this", "short", "")
    label.show()
    label.ensurePolished()
    metrics = label.fontMetrics()
    for text in ("a long sentence about this", "short"):
        label.resize(metrics.horizontalAdvance(text) + 2, 20)
        assert label._shown() == text
    label.resize(4, 20)
    assert label._shown() == ""
    assert label.toolTip() == "a long sentence about this"


# ---------------------------------------------------------------------- export and theme


@pytest.fixture
def latency_plot(qtbot):
    plot = shown(qtbot, LatencyPlot(), 500, 300)
    plot.show_models([("FP32", latency(18.0, 1))])
    plot.grab()
    return plot


def test_that_svg_export_is_readable_and_described(latency_plot, tmp_path):
    target = tmp_path / "plot.svg"
    latency_plot.save(target)
    text = target.read_text()
    assert QSvgRenderer(text.encode()).isValid()
    assert "Latency distribution" in text
    assert "p50" in text


def test_that_png_export_has_twice_the_pixels(latency_plot, tmp_path):
    target = tmp_path / "plot.png"
    latency_plot.save(target)
    image = QImage(str(target))
    assert image.width() == 2 * latency_plot.image().size.width()
    colours = {image.pixel(x, y) for x in range(0, image.width(), 9) for y in range(0, image.height(), 9)}
    assert len(colours) > 3


def test_that_a_folder_that_is_not_there_is_reported(qtbot, latency_plot, tmp_path):
    with qtbot.waitSignal(latency_plot.export_failed) as failed:
        latency_plot.save(tmp_path / "missing" / "plot.svg")
    assert "cannot write" in failed.args[0].one_line


def test_that_the_context_menu_exports_and_copies(latency_plot):
    menu = latency_plot.context_menu()
    texts = [action.text() for action in menu.actions()]
    assert texts[:2] == ["Save as SVG…", "Save as PNG…"]
    menu.actions()[3].trigger()
    assert QGuiApplication.clipboard().text().startswith("Latency distribution: FP32: p50")
    menu.actions()[2].trigger()
    assert not QGuiApplication.clipboard().image().isNull()
    menu.deleteLater()


def test_that_saving_asks_for_a_path_without_blocking(qtbot, latency_plot, tmp_path):
    latency_plot.context_menu().actions()[0].trigger()
    from PySide6.QtWidgets import QFileDialog

    dialog = latency_plot.findChild(QFileDialog, "dialog.save_plot")
    assert dialog is not None
    dialog.fileSelected.emit(str(tmp_path / "chosen.svg"))
    assert (tmp_path / "chosen.svg").exists()
    dialog.close()


def test_that_plots_follow_the_theme(qapp, latency_plot):
    try:
        apply_theme(qapp, DARK)
        dark = latency_plot.view.grab().toImage().pixelColor(3, 3)
        apply_theme(qapp, LIGHT)
        light = latency_plot.view.grab().toImage().pixelColor(3, 3)
    finally:
        apply_theme(qapp, LIGHT)
    assert dark.name() == DARK.surface.lower()
    assert light.name() == LIGHT.surface.lower()


def test_that_the_view_is_where_the_mouse_helper_thinks(latency_plot):
    (left, right), (bottom, top) = latency_plot.item.getViewBox().viewRange()
    corner = place(latency_plot, left, bottom)
    other = place(latency_plot, right, top)
    assert isinstance(corner, QPoint)
    assert corner.x() < other.x()
    assert corner.y() > other.y()


def test_that_classes_are_dots_whose_axis_holds_every_interval(qtbot):
    classes = [ClassAccuracy(f"c{i}", 50, 0.9 - i / 100, 0.88 - i / 50, 0.8 - i / 50, 0.93) for i in range(6)]
    plot = shown(qtbot, ClassAccuracyPlot(), 600, 300)
    plot.show_classes(classes, "INT8")
    low, high = plot.item.getViewBox().viewRange()[1]
    assert low < 100 * min(row.low for row in classes)
    assert high > 100 * max(row.high for row in classes)
    assert not any(isinstance(part, pg.BarGraphItem) for part in plot.item.getViewBox().addedItems)
    for dots, shares in zip(
        plot._dots, ([r.base for r in classes], [r.variant for r in classes]), strict=True
    ):
        assert [100 * share for share in shares] == pytest.approx(list(dots.getData()[1]))


def test_that_a_chart_keeps_its_title_beside_a_control(qtbot):
    plot = ClassAccuracyPlot()
    switch = Segmented((("a", "One"), ("b", "Other")), "Plot shown")
    plot.replace_title(switch)
    shown(qtbot, plot, 600, 300)
    assert plot.title.isVisible()
    assert plot.title.mapTo(plot, QPoint(0, 0)).y() > switch.mapTo(plot, QPoint(0, 0)).y()
    plot.resize(600, 120)
    settled()
    assert not plot.title.isVisible()
    plot.resize(600, 300)
    plot.show_title(is_shown=True)
    settled()
    assert plot.title.isVisible()


def test_that_the_colours_of_fp32_and_current_differ():
    plot_of = TradeOffPoint("a", "FP32", Interval(1, 1, 1), Interval(90, 90, 90), is_base=True)
    now = replace(plot_of, key="b", is_base=False, is_current=True)
    for theme in (LIGHT, DARK):
        apply_to = TradeOffPlot()
        apply_to.show_points([plot_of, now], "t", "x", "y")
        colours = dict(apply_to.legend_entries(theme))
        assert QColor(colours["FP32"]).hslHue() != QColor(colours["current"]).hslHue()
        apply_to.deleteLater()
