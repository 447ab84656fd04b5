"""Without a mouse: every control of the window is reached, and none holds the focus for good."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QColor, QFocusEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QComboBox, QPushButton, QWidget

from quantstudio.gui.features.layers.layers_panel import LayersPanel
from quantstudio.gui.plots.sensitivity_strip import SensitivityStrip
from quantstudio.gui.theme import DARK, LIGHT, apply_theme
from quantstudio.gui.widgets.card import Card
from tests.gui.conftest import find, settle


def focused() -> QWidget:
    widget = QApplication.focusWidget()
    assert widget is not None
    return widget


def walk(first: QWidget, most: int = 60) -> list[QWidget]:
    """What the Tab key goes through until it is back where it began."""
    first.setFocus()
    met = [focused()]
    for _ in range(most):
        QTest.keyClick(focused(), Qt.Key.Key_Tab)
        if focused() is met[0]:
            return met
        assert focused() is not met[-1], f"{met[-1].objectName()} holds the focus"
        met.append(focused())
    raise AssertionError("the Tab key never comes back")


@pytest.mark.parametrize(
    ("page", "there"),
    [
        ("inspect", {"plot.histogram.view", "plot.sensitivity.view"}),
        ("tradeoff", {"plot.trade_off.view", "tradeoff.table"}),
        ("compare", {"compare.table", "compare.choose", "compare.caution.action"}),
    ],
    ids=["inspect", "trade-off", "compare"],
)
def test_that_the_tab_key_reaches_everything_and_comes_back(full, page, there):
    full.show_view(page)
    settle(full)
    met = walk(find(full, LayersPanel).table)
    names = {widget.objectName() for widget in met}
    assert names >= there | {"layers.table", "layers.types", "layers.search"}
    assert [w.objectName() for w in met if not w.accessibleName() and not w.property("text")] == []


def test_that_the_layers_and_plots_show_that_they_have_the_focus(full):
    full.show_view("inspect")
    settle(full)
    layers, strip = find(full, LayersPanel), find(full, SensitivityStrip)
    for widget, frame in ((layers.table, layers.card), (strip.view, strip)):
        full.views.tabs.tabBar().setFocus()
        before = frame.grab().toImage()
        widget.setFocus(Qt.FocusReason.TabFocusReason)
        assert frame.grab().toImage() != before
        full.views.tabs.tabBar().setFocus()
        assert frame.grab().toImage() == before


def test_that_the_card_of_a_table_shows_that_it_has_the_keys(qapp, full):
    bar = full.views.tabs.tabBar()
    for view, name in (
        ("tradeoff", "tradeoff.table"),
        ("compare", "compare.table"),
        ("plans", "plans.table"),
        ("log", "log.text"),
    ):
        full.show_view(view)
        settle(full)
        table = find(full, QWidget, name)
        card = card_of(table)
        for theme in (DARK, LIGHT):
            apply_theme(qapp, theme)
            bar.setFocus()
            quiet = edge_of(card)
            table.setFocus(Qt.FocusReason.TabFocusReason)
            assert edge_of(card) == theme.color("accent") != quiet, name
            bar.setFocus()
            assert edge_of(card) == quiet, name
            table.setFocus(Qt.FocusReason.MouseFocusReason)
            assert edge_of(card) == quiet, name


def card_of(widget: QWidget) -> QWidget:
    """The card a widget stands on."""
    card: QWidget | None = widget
    while card is not None and not card.property("card"):
        card = card.parentWidget()
    assert card is not None
    return card


def edge_of(card: QWidget) -> QColor:
    """Colour in the middle of the left edge."""
    return card.grab().toImage().pixelColor(0, card.height() // 2)


def test_that_the_edge_stays_while_a_menu_is_open(full):
    full.show_view("plans")
    settle(full)
    table = find(full, QWidget, "plans.table")
    table.setFocus(Qt.FocusReason.TabFocusReason)
    for kind in (QEvent.Type.FocusOut, QEvent.Type.FocusIn):
        QApplication.sendEvent(table, QFocusEvent(kind, Qt.FocusReason.PopupFocusReason))
        assert card_of(table).property("focused")


def test_that_f6_goes_from_area_to_area(full):
    find(full, LayersPanel).search.setFocus()
    QTest.keyClick(full, Qt.Key.Key_F6)
    assert focused() is full.views.tabs.tabBar()
    QTest.keyClick(full, Qt.Key.Key_F6)
    assert focused() is find(full, LayersPanel).table
    full.show_view("plans")
    full.views.tabs.tabBar().setFocus()
    QTest.keyClick(full, Qt.Key.Key_F6)
    assert focused() is full.views.below.tabBar()


def test_that_arrows_change_the_tab(full):
    full.views.tabs.tabBar().setFocus()
    QTest.keyClick(focused(), Qt.Key.Key_Right)
    assert full.views.tabs.currentIndex() == 1


def test_that_the_list_of_a_combo_box_is_no_tab_stop_of_its_card(qtbot, qtlog):
    card = Card("A card")
    qtbot.addWidget(card)
    choice, button = QComboBox(), QPushButton("Next")
    choice.view()  # makes the list, which is a window of its own
    card.add_to_header(choice)
    card.add_to_header(button)
    assert not [record.message for record in qtlog.records if "setTabOrder" in record.message]
    assert choice.nextInFocusChain() is button
