"""The Compare tab on a small screen and on a wide one."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt

from quantstudio.gui.features.compare import compare_table
from quantstudio.gui.features.compare.compare_panel import FLIPS, LATENCY, MIN_PX, SIZES, ComparePanel
from quantstudio.gui.features.compare.compare_table import _heading, _lines
from tests.gui.plot_mouse import shown
from tests.gui.sample_session import measured_session
from tests.gui.settling import settled


@pytest.fixture
def panel(qtbot):
    made = shown(qtbot, ComparePanel(measured_session(6)), 640, 480)
    qtbot.waitUntil(lambda: made.model.columnCount() == 5)  # the metrics, FP32 and three variants
    return made


def test_that_four_models_fit_side_by_side_on_a_small_screen(panel):
    settled()
    assert panel.table.horizontalScrollBar().maximum() == 0
    assert panel.card.width() == panel.width()
    assert not panel.below.isHidden()
    assert panel.below.currentWidget() is panel.latency


def test_that_more_models_scroll_beside_the_metrics(qtbot, panel):
    panel.resize(MIN_PX, 480)
    settled()
    bar = panel.table.horizontalScrollBar()
    assert bar.maximum() > 0
    names = panel.table.verticalHeader()
    before = names.mapTo(panel, names.rect().topLeft())
    bar.setValue(bar.maximum())
    assert names.isVisible()
    assert names.mapTo(panel, names.rect().topLeft()) == before
    assert panel.model.headerData(0, panel.table.verticalHeader().orientation()) == "Top-1 accuracy"


def test_that_every_plot_is_within_reach_at_every_width(qtbot, panel):
    for key, card in ((LATENCY, panel.latency), (SIZES, panel.sizes), (FLIPS, panel.flip_card)):
        panel.show_lower(key)
        assert card.isVisible()
    panel.resize(1200, 640)
    settled()
    assert panel.latency.isVisible()
    assert panel.classes.isVisible()
    assert panel.sizes.isVisible()
    assert panel.card.width() < panel.width()
    assert not panel._switches[SIZES].button(LATENCY).isVisible()
    panel.resize(640, 480)
    settled()
    assert panel._switches[SIZES].button(LATENCY).isVisibleTo(panel._switches[SIZES])
    panel._switches[LATENCY].button(SIZES).click()
    assert panel.sizes.isVisible()


def test_that_what_the_cards_would_like_does_not_widen_the_window(panel):
    assert panel.minimumWidth() == MIN_PX


def test_that_names_of_metrics_and_plans_are_read_whole(panel):
    settled()
    rows = panel.table.verticalHeader()
    for name in panel.model.metrics:
        assert rows.fontMetrics().horizontalAdvance(name) < rows.width(), name
    header = panel.table.horizontalHeader()
    for section in range(1, panel.model.columnCount()):
        for line in panel.model.headerData(section, header.orientation()).split("\n"):
            assert header.fontMetrics().horizontalAdvance(line) < header.sectionSize(section), line


def test_that_long_names_are_broken_between_words_and_then_cut_in_the_middle():
    assert _lines("Search 0.5 points mixed") == ["Search 0.5", "points mixed"]
    assert _lines("resnet_for_the_small_board") == ["resnet_…l_board"]


def test_that_a_heading_gives_way_to_the_rows_and_its_name_last():
    held = ["W6A8", "3 W4A8 codebook", "gptq"]
    assert _heading("Search 0.5 points", held, 9) == ["Search 0.5", "points", *held]
    assert _heading("Search 0.5 points", held, 3) == ["Search 0.5", "points", "W6A8 · 3 W4A8 c…"]
    assert _heading("INT8 mixed", ["INT8", "3 W4A8"], 2) == ["INT8 mixed", "INT8 · 3 W4A8"]
    assert _heading("Search 0.5 points", held, 2) == ["Search 0.5", "points"]
    assert _heading("Search 0.5 points of the board", held, 2) == ["Search 0.5", "points …e board"]


def test_that_a_low_table_shows_seven_metrics_however_much_a_variant_contains(panel, monkeypatch):
    model, table = panel.model, panel.table
    contents = " · ".join(["INT8", "4 W4", "gptq"] * 3)
    monkeypatch.setattr(compare_table, "contents_of", lambda _variant, _layers: contents)
    model.set_variants(panel.shown, panel._session.workspace.layers)
    panel.resize(700, 720)
    settled()
    high = table.horizontalHeader().height()
    panel.resize(700, 460)
    settled()
    assert table.horizontalHeader().height() < high / 2
    # Half a row more where the font is the one the window asks for.
    assert table.viewport().height() >= 6 * table.rowHeight(0)
    tip = model.headerData(1, Qt.Orientation.Horizontal, Qt.ItemDataRole.ToolTipRole)
    assert tip.count("gptq") == 3
    panel.resize(700, 720)
    settled()
    assert table.horizontalHeader().height() == high
