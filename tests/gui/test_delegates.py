"""Painted cells and the drop-down in the precision column."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QItemSelectionModel, QRect, Qt
from PySide6.QtGui import QImage, QPainter
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QStyleOptionViewItem

from quantstudio.core.precision import FP16, FP32, STATIC_INT8, WEIGHT_INT4
from quantstudio.gui.features.layers.layer_filter import LayerFilterModel
from quantstudio.gui.features.layers.layer_table import CHOICES_ROLE, LayerColumn, LayerTableModel
from quantstudio.gui.features.layers.layer_view import LayerTableView
from quantstudio.gui.features.layers.precision_chip import PrecisionCombo, chip_colours
from quantstudio.gui.features.layers.precision_list import LINE_ROLE
from quantstudio.gui.features.layers.sensitivity_bar import bar_share
from quantstudio.gui.features.layers.sparkline import SparklineDelegate, draw_sparkline
from quantstudio.gui.plots.sensitivity_scale import SensitivityScale
from quantstudio.gui.theme import DARK, LIGHT
from quantstudio.gui.widgets.cell import CellDelegate
from tests.gui.sample_session import analysed_session
from tests.gui.settling import settled


@pytest.fixture
def session(qapp):
    return analysed_session()


@pytest.fixture
def view(qtbot, session, qapp):
    # A list that has just opened ignores the mouse for as long as a double click may take.
    interval = qapp.doubleClickInterval()
    qapp.setDoubleClickInterval(0)
    made = LayerTableView(LayerFilterModel(LayerTableModel(session)))
    qtbot.addWidget(made)
    made.resize(760, 420)
    made.show()
    qtbot.waitExposed(made)
    made.grab()
    yield made
    qapp.setDoubleClickInterval(interval)


def open_editor(qtbot, view, row):
    index = view.model().index(row, LayerColumn.PRECISION)
    QTest.mouseClick(
        view.viewport(),
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
        view.visualRect(index).center(),
    )
    qtbot.waitUntil(lambda: _combo(view) is not None and _combo(view).view().isVisible())
    return _combo(view)


def _combo(view):
    found = [c for c in view.findChildren(PrecisionCombo) if c.isVisible()]
    return found[0] if found else None


def pick(combo, key) -> None:
    """Click an entry of the open list."""
    items = combo.view()
    index = combo.model().index(combo.findData(key), 0)
    QTest.mouseMove(items.viewport(), items.visualRect(index).center())
    QTest.mouseClick(
        items.viewport(),
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
        items.visualRect(index).center(),
    )


def test_that_one_click_on_a_chip_opens_the_precisions_the_layer_can_have(qtbot, view):
    combo = open_editor(qtbot, view, 3)
    offered = [combo.itemData(i) for i in range(combo.count()) if combo.itemData(i)]
    assert offered[:4] == ["fp32", "fp16", "weight-int8", "weight-int6"]
    assert set(offered) == set(view.model().index(3, LayerColumn.PRECISION).data(CHOICES_ROLE))
    assert combo.currentData() == "fp32"
    combo.hidePopup()
    qtbot.waitUntil(lambda: _combo(view) is None)


def test_that_the_list_is_grouped_by_bits_and_says_bytes_loss_and_how_it_runs(qtbot, session, view):
    combo = open_editor(qtbot, view, 0)
    rows = [(combo.itemText(i), combo.itemData(i, LINE_ROLE)) for i in range(combo.count())]
    titles = [text for text, line in rows if line is None]
    assert titles[:3] == ["32 bits", "16 bits", "8 bits"]
    assert not any(combo.model().item(i).isEnabled() for i, (_, line) in enumerate(rows) if line is None)
    lines = [line for _, line in rows if line is not None]
    assert [line.bits for line in lines] == sorted((line.bits for line in lines), reverse=True)
    (static,) = [line for line in lines if line.name == "static-int8"]
    assert (static.runs, static.size.endswith("B")) == ("integer", True)
    assert static.spoken.endswith("runs as integer")
    assert lines[0].loss == "0"
    QTest.keyClick(combo.view(), Qt.Key.Key_Down)
    assert combo.view().currentIndex().data(LINE_ROLE) is not None
    combo.hidePopup()
    qtbot.waitUntil(lambda: _combo(view) is None)


def test_that_choosing_in_the_list_sets_the_layer(qtbot, session, view):
    combo = open_editor(qtbot, view, 0)
    pick(combo, "weight-int4")
    qtbot.waitUntil(lambda: session.workspace.recipe.scheme_for(session.workspace.layers[0]) == WEIGHT_INT4)
    qtbot.waitUntil(lambda: _combo(view) is None)
    assert session.workspace.edits.undo_text == f"Set {session.workspace.layers[0].name} to W4"


def test_that_a_choice_with_many_rows_selected_sets_them_all_as_one_step(qtbot, session, view):
    names = [session.workspace.layers[i].name for i in (0, 1, 2)]
    session.select(names)
    flags = QItemSelectionModel.SelectionFlag
    for row in (0, 1, 2):
        view.selectionModel().select(view.model().index(row, 0), flags.Select | flags.Rows)
    combo = open_editor(qtbot, view, 1)
    assert len(view.selectionModel().selectedRows()) == 3
    pick(combo, "fp16")
    qtbot.waitUntil(
        lambda: all(
            session.workspace.recipe.scheme_for(session.workspace.layers[i]) == FP16 for i in (0, 1, 2)
        )
    )
    session.workspace.edits.undo()
    assert session.workspace.recipe.scheme_for(session.workspace.layers[1]) == STATIC_INT8


def test_that_escape_leaves_the_layer_alone(qtbot, session, view):
    before = session.workspace.recipe
    combo = open_editor(qtbot, view, 0)
    QTest.keyClick(combo.view(), Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: _combo(view) is None)
    assert session.workspace.recipe == before


def test_that_return_opens_the_list_from_the_keyboard(qtbot, view):
    view.selectRow(0)
    view.setFocus()
    QTest.keyClick(view, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: _combo(view) is not None and _combo(view).view().isVisible())
    _combo(view).hidePopup()
    qtbot.waitUntil(lambda: _combo(view) is None)


def test_that_a_layer_that_stays_float_opens_nothing(qtbot, view):
    index = view.model().index(5, LayerColumn.PRECISION)
    QTest.mouseClick(
        view.viewport(),
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
        view.visualRect(index).center(),
    )
    settled()
    assert _combo(view) is None


def test_that_sparklines_are_drawn_once(view):
    delegate = view.itemDelegateForColumn(LayerColumn.WEIGHTS)
    assert isinstance(delegate, SparklineDelegate)
    view.grab()
    before = delegate.kept
    assert before > 5
    view.grab()
    assert delegate.kept == before


def test_that_a_sparkline_is_sharp_on_a_dense_screen(qapp):
    import numpy as np

    picture = draw_sparkline(np.linspace(0, 1, 30), 60, 20, 2.0, LIGHT)
    assert (picture.width(), picture.height()) == (120, 40)
    assert picture.devicePixelRatio() == 2.0


def test_that_a_failing_cell_leaves_the_painter_as_it_was(view):
    class Failing(CellDelegate):
        def paint_cell(self, painter, rect, option, index):
            painter.translate(50, 50)
            raise ZeroDivisionError

    image = QImage(100, 30, QImage.Format.Format_ARGB32)
    painter = QPainter(image)
    option = QStyleOptionViewItem()
    option.rect = QRect(0, 0, 100, 30)
    with pytest.raises(ZeroDivisionError):
        Failing(view).paint(painter, option, view.model().index(0, 0))
    assert painter.transform().dx() == 0
    painter.end()


def test_that_the_bar_of_the_most_sensitive_layer_is_full():
    scale = SensitivityScale(largest=4.0)
    assert [bar_share(kl, scale) for kl in (0.0, 0.04, 1.0, 4.0, 9.0)] == [0.0, 0.1, 0.5, 1.0, 1.0]


def test_that_chips_are_coloured_by_kind():
    assert [s.weights.role for s in (FP32, FP16, STATIC_INT8, WEIGHT_INT4)] == ["faint", "ok", "fp", "q"]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda t: t.name)
@pytest.mark.parametrize("role", ["fp", "q", "ok", "faint"])
def test_that_chip_text_can_be_read(theme, role):
    fill, ink = chip_colours(role, theme)
    surface, alpha = theme.color("surface"), fill.alphaF()
    mixed = [alpha * f + (1 - alpha) * s for f, s in zip(_rgb(fill), _rgb(surface), strict=True)]
    light, dark = sorted((_luminance(mixed), _luminance(_rgb(ink))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def _rgb(colour):
    return colour.redF(), colour.greenF(), colour.blueF()


def _luminance(rgb):
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_that_columns_give_way_to_names(qtbot, view):
    view.resize(1100, 400)
    view.fit_columns()
    assert not any(view.isColumnHidden(c) for c in LayerColumn)
    view.resize(470, 400)
    view.fit_columns()
    assert view.isColumnHidden(LayerColumn.KERNEL)
    assert not view.isColumnHidden(LayerColumn.PRECISION)
    assert not view.isColumnHidden(LayerColumn.SENSITIVITY)
    view.choose_column(LayerColumn.KERNEL, is_shown=True)
    assert not view.isColumnHidden(LayerColumn.KERNEL)


def test_that_the_header_menu_shows_and_hides_columns(view):
    menu = view.header_menu()
    action = next(a for a in menu.actions() if a.text() == "SQNR")
    action.trigger()
    assert view.isColumnHidden(LayerColumn.SQNR)
    menu.deleteLater()
