"""What gives way where there is little room."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import QLabel, QToolButton, QWidget

from quantstudio.core.results import Agreement
from quantstudio.gui.facts.variant_facts import quality_of
from quantstudio.gui.features.compare.compare_panel import ComparePanel
from quantstudio.gui.features.compare.compare_table import CompareTableModel
from quantstudio.gui.features.layers.layer_names import short_names
from quantstudio.gui.plots.channel_ranges import ChannelRangesPlot
from quantstudio.gui.plots.error_bits import PrecisionCost
from quantstudio.gui.shell.page_scroll import PAGE_MINIMUM_PX, PageScroll
from quantstudio.gui.theme import ui_font
from quantstudio.gui.widgets.elided_combo import ElidedComboBox
from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.gui.widgets.empty_state import EmptyState
from quantstudio.gui.widgets.enabling import allow
from quantstudio.gui.widgets.key_figure import KeyFigure
from quantstudio.gui.widgets.legend import Legend
from quantstudio.gui.widgets.small_button import SmallButton
from tests.gui.conftest import find
from tests.gui.plot_mouse import shown
from tests.gui.sample_session import measured_session
from tests.gui.settling import settled


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["conv1", "conv2"], []),
        (["a/" * 20 + "x"], []),
        (
            [f"model/backbone/with_a_long_name/block.{i}/MatMul" for i in (0, 10)],
            ["…/block.0/…", "…/block.10/…"],
        ),
        (["a/a/" + "long" * 9 + "/b", "a/c"], ["…/a/" + "long" * 9 + "/b", "…/c"]),
        (["same" * 9 + "/a", "same" * 9 + "/a"], ["…/a", "…/a"]),
        (["x" * 40, "y" * 40], []),
        (
            [*(f"model.layers.{i}.self_attn.{kind}_proj" for i in (0, 1) for kind in "qk"), "lm_head"],
            [f"…{i}.self_attn.{kind}_proj" for i in (0, 1) for kind in "qk"],
        ),
    ],
    ids=["short", "alone", "both ends", "few parts", "alike", "nothing shared", "blocks and a head"],
)
def test_that_long_names_keep_what_tells_them_apart(names, short):
    assert list(short_names(names).values()) == short[: len(short_names(names))]
    assert bool(short_names(names)) == bool(short)


def test_that_a_low_plot_leaves_out_the_names_of_its_axes(qtbot):
    plot = shown(qtbot, ChannelRangesPlot(), 400, 300)
    assert plot.item.getAxis("left").label.isVisible() == bool(plot.labels[1])
    plot.resize(400, 120)
    settled()
    assert not plot.item.getAxis("left").label.isVisible()
    plot.retheme()
    assert not plot.item.getAxis("bottom").label.isVisible()
    plot.resize(400, 300)
    settled()
    assert plot.item.getAxis("bottom").label.isVisible()


def test_that_the_latencies_name_their_models_where_no_legend_fits(qtbot):
    panel = shown(qtbot, ComparePanel(measured_session(6)), 640, 480)
    qtbot.waitUntil(lambda: panel.model.columnCount() == 5)
    settled()
    assert panel.latency.legend.entries == ()
    assert panel.latency._texts[0].toPlainText().startswith("FP32  p50")
    panel.resize(1500, 640)
    settled()
    assert panel.latency._texts[0].toPlainText().startswith("p50")
    assert len(panel.latency.legend.entries) == 4


def test_that_a_model_of_numbers_has_no_agreement_to_show(qapp):
    session = measured_session(6)
    numbers = []
    for variant in session.workspace.variants:
        assert variant.result is not None
        agreement = Agreement(math.nan, math.nan, 37.0)
        result = replace(variant.result, metrics={}, per_class=(), agreement=agreement)
        numbers.append(replace(variant, result=result))
    assert all(quality_of(variant) is None for variant in numbers)
    model = CompareTableModel()
    model.set_variants(numbers)
    rows = [model.headerData(r, Qt.Orientation.Vertical) for r in range(model.rowCount())]
    assert not any(row.startswith("Same answers") for row in rows)
    assert "Output SQNR" in rows


def test_that_a_narrow_class_plot_leaves_the_name_of_the_variant_to_its_choice(qtbot):
    panel = shown(qtbot, ComparePanel(measured_session(2)), 640, 480)
    qtbot.waitUntil(lambda: bool(panel.classes.classes))
    settled()
    assert [name for name, _ in panel.classes.legend.entries] == ["FP32", "variant"]
    assert panel.classes.title.text() == "By class"
    panel.resize(1800, 640)
    settled()
    assert [name for name, _ in panel.classes.legend.entries] == ["FP32", panel.variant.currentText()]
    assert panel.classes.title.text() == "Accuracy by class"


def test_that_a_stump_of_a_text_gives_way_to_nothing(qtbot):
    label = ElidedLabel("node_Conv_156")
    qtbot.addWidget(label)
    label.show()
    metrics = label.fontMetrics()
    label.resize(metrics.horizontalAdvance("no…") + 2, 20)
    assert label._shown() == ""
    assert label.toolTip() == "node_Conv_156"
    label.resize(metrics.horizontalAdvance("node_Conv_1…") + 2, 20)
    assert label._shown().endswith("…")


def test_that_a_small_button_keeps_its_width_when_its_letters_become_bold(qtbot):
    button = SmallButton("plot.threshold", "Threshold", "Put everything above a line in one precision")
    qtbot.addWidget(button)
    button.setCheckable(True)
    width = button.sizeHint().width()
    assert width >= QFontMetrics(ui_font(11, semibold=True)).horizontalAdvance(button.text()) + 14
    button.setChecked(True)
    assert button.sizeHint().width() == width


def test_that_an_empty_state_without_room_shows_its_button_rather_than_its_icon(qtbot):
    card = QWidget()
    qtbot.addWidget(card)
    empty = EmptyState(parent=card)
    empty.set_message("Sensitivity needs calibration data.", "Choose data…")
    empty.resize(600, 200)
    card.show()
    icon = next(label for label in empty.findChildren(QLabel) if label is not empty.text)
    assert icon.isVisible()
    empty.resize(600, 72)
    assert not icon.isVisible()
    qtbot.waitUntil(lambda: empty.rect().contains(empty.button.geometry()))


def test_that_a_legend_without_room_for_words_draws_nothing(qtbot):
    legend = Legend()
    qtbot.addWidget(legend)
    legend.set_entries([("inside its interval", "#007755")], "#000000")
    legible = []
    for width in (legend.sizeHint().width(), 80, legend.minimumSizeHint().width()):
        legend.resize(width, 16)
        legible.append(legend.is_legible)
    assert legible == [True, True, False]
    assert legend.toolTip() == "inside its interval"


def test_that_the_name_of_a_plan_gives_way_before_the_buttons_at_the_right_end(full):
    full.session.workspace.edits.rename_plan("INT8", "A plan with a long name")
    plan, last = (find(full.tool_bar, QToolButton, f"toolbar.{name}") for name in ("plan", "view.theme"))
    shown_letters = []
    for width in (1280, 1240):
        full.resize(width, 720)
        settled(full.session)
        assert last.isVisible()
        assert full.tool_bar.sizeHint().width() <= full.tool_bar.width()
        shown_letters.append(len(plan.text()))
    assert min(shown_letters) > 6
    full.resize(1280, 720)


def test_that_what_a_narrow_toolbar_cannot_hold_is_in_its_menu_and_comes_back(full):
    bar = full.tool_bar
    named = {
        name: find(bar, QToolButton, f"toolbar.{name}")
        for name in ("file.report", "file.export", "view.theme")
    }
    more = find(bar, QToolButton, "toolbar.more")
    styles = {name: button.toolButtonStyle() for name, button in named.items()}
    assert not more.isVisible()
    for width in (980, 720):
        full.resize(width, 720)
        settled(full.session)
        listed = {action.objectName() for action in more.menu().actions()}
        for name, button in named.items():
            is_in_bar = button.isVisible() and bar.rect().contains(button.geometry())
            assert is_in_bar != (f"action.{name}" in listed)
        assert find(bar, QToolButton, "toolbar.run.quantize").isVisible()
    assert more.isVisible()
    assert {"file.report", "file.export", "view.theme"} <= set(bar.moved)
    full.resize(1280, 720)
    settled(full.session)
    assert not more.isVisible()
    assert bar.moved == ()
    assert {name: button.toolButtonStyle() for name, button in named.items()} == styles


def test_that_a_small_window_holds_everything_and_growing_back_restores_it(full):
    full.resize(1280, 720)
    settled(full.session)
    dock = full.views.left_dock
    width = dock.width()
    full.resize(800, 500)
    settled(full.session)
    assert (full.width(), full.height()) == (800, 500)
    assert not dock.isVisible()
    page = full.views.tabs.currentWidget()
    scroll = find(page, PageScroll)
    shown_part, whole = scroll.viewport(), scroll.widget()
    assert whole is not None
    assert whole.height() >= PAGE_MINIMUM_PX > shown_part.height()
    assert scroll.verticalScrollBar().maximum() > 0
    for figure in full.findChildren(KeyFigure):
        if figure.delta.text():
            assert not figure.delta.is_elided
    full.actions_list["view.layers"].trigger()
    assert dock.isVisible()
    full.actions_list["view.layers"].trigger()
    full.resize(1280, 720)
    full.views.show("layers")
    settled(full.session)
    assert dock.width() == width


def test_that_a_page_that_needs_more_width_gets_it_from_the_layers(full):
    full.resize(1280, 720)
    full.show_view("search")
    settled(full.session)
    scroll = find(full.views.tabs.currentWidget(), PageScroll)
    assert scroll.horizontalScrollBar().maximum() == 0


def test_that_a_narrow_card_puts_the_change_below_its_figure(qtbot):
    card = KeyFigure("latency", "latency", "Latency p50")
    qtbot.addWidget(card)
    card.set_figure("1.10 ms", delta="1.02× faster", short_delta="1.02× ↓")
    card.show()
    tops = []
    for width in (300, 110):
        card.resize(width, 90)
        settled()
        assert not card.delta.is_elided
        tops.append(card.delta.y() - card.value.y() >= card.value.height())
    assert tops == [False, True]


def test_that_a_control_that_cannot_be_used_says_why_and_is_itself_again(qtbot):
    button = SmallButton("plot.load", "Load", "Load the recipe")
    qtbot.addWidget(button)
    allow(button, "Choose a row first")
    assert not button.isEnabled()
    assert button.toolTip() == "Load the recipe\nChoose a row first"
    allow(button, "")
    assert button.isEnabled()
    assert button.toolTip() == "Load the recipe"
    choice = ElidedComboBox()
    qtbot.addWidget(choice)
    choice.addItem("INT8 · 4 W4A8 · 3 W6A8")
    choice.resize(90, 28)
    assert "…" in choice.shown_text
    assert choice.toolTip() == choice.currentText()


def test_that_narrow_columns_have_labels_short_enough_to_stay_whole():
    named = ("fp32", "static-int8", "static-int4", "static-codebook4", "static-ternary", "weight-int4")
    shown = [PrecisionCost(name, "", None, None).short_label for name in named]
    assert shown == ["32", "8", "4", "C4", "T", "W4"]
