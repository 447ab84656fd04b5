"""Names of layers: what is left of them in a narrow column, on hover and on the clipboard."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from PySide6.QtCore import Qt
from PySide6.QtGui import QFontMetrics

from quantstudio.gui.features.layers.layer_names import elided_apart
from quantstudio.gui.features.layers.layer_table import LayerColumn
from quantstudio.gui.features.layers.layers_panel import LayersPanel
from quantstudio.gui.theme import ui_font
from tests.gui.conftest import find


def test_that_neighbours_differ_however_narrow_the_column_is(qapp):
    parts = ("query", "key", "value", "output")
    names = [f"model.encoder.layers.{i}.attention.self.{part}" for i in range(9, 12) for part in parts]
    metrics = QFontMetrics(ui_font())
    for room in (90, 132, 200):
        for order in (names, sorted(names, key=lambda name: name.rpartition(".")[2])):

            def elide(text: str, room: int = room) -> str:
                return metrics.elidedText(text, Qt.TextElideMode.ElideMiddle, room)

            shown = [elided_apart(name, order[max(0, i - 1) : i + 2], elide) for i, name in enumerate(order)]
            assert all(one != other for one, other in pairwise(shown))
            assert all(metrics.horizontalAdvance(text) <= room for text in shown)


def test_that_the_table_tips_and_clipboard_say_the_module(qapp, qtbot, full):
    known = full.session.workspace
    model = known.model
    layers = (replace(model.layers[0], label="stem.conv"), *model.layers[1:])
    known.subject = replace(known.subject, model=replace(model, layers=layers))
    known.tell_everything()
    panel = find(full, LayersPanel)
    index = panel.model.index(0, LayerColumn.NAME)
    assert index.data() == "stem.conv"
    assert index.data(Qt.ItemDataRole.ToolTipRole).startswith(f"stem.conv  ({layers[0].name})")
    full.session.select([layers[0].name])
    panel.table.setFocus()
    qtbot.keyClick(panel.table, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert qapp.clipboard().text() == "stem.conv"
    panel.search.setText("stem")
    assert panel.filter.rowCount() == 1
    panel.search.clear()
