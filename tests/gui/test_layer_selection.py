"""The layer the inspector shows stays until another is chosen."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest

from quantstudio.gui.features.layers.layer_table import LayerColumn
from quantstudio.gui.features.layers.layers_panel import LayersPanel
from tests.gui.plot_mouse import shown
from tests.gui.sample_session import analysed_session

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def session(qapp):
    return analysed_session(4)


def test_that_a_click_below_the_last_layer_selects_nothing_else(qtbot, session):
    panel = shown(qtbot, LayersPanel(session), 700, 500)
    names = (session.workspace.layers[1].name, session.workspace.layers[2].name)
    session.select(names)
    viewport = panel.table.viewport()
    below = QPoint(viewport.width() // 2, viewport.height() - 20)
    assert not panel.table.indexAt(below).isValid()
    for modifier in (Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ControlModifier):
        QTest.mouseClick(viewport, LEFT, modifier, below)
        assert session.selection == names
    assert session.current_layer == names[1]


def test_that_the_inspector_keeps_its_layer_when_the_last_row_is_deselected(qtbot, session):
    panel = shown(qtbot, LayersPanel(session), 700, 500)
    session.select([session.workspace.layers[1].name])
    rect = panel.table.visualRect(panel.filter.index(1, LayerColumn.NAME))
    QTest.mouseClick(panel.table.viewport(), LEFT, Qt.KeyboardModifier.ControlModifier, rect.center())
    assert session.selection == ()
    assert session.current_layer == session.workspace.layers[1].name


def test_that_a_layer_of_another_model_is_not_kept(session):
    session.current_layer = "gone"
    session.select([])
    assert session.current_layer is None
