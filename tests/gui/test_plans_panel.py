"""The plans panel by mouse and keys."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLineEdit, QTableWidget

from quantstudio.gui.features.plans.plans_panel import PlansPanel
from tests.gui.conftest import find, settle

KEY = Qt.Key


def editor_of(table: QTableWidget) -> QLineEdit:
    return find(table.viewport(), QLineEdit)


def test_that_the_rename_button_opens_the_name(qtbot, full):
    full.session.workspace.edits.add_plan("Second")
    full.show_view("plans")
    settle(full)
    full.findChild(PlansPanel).buttons["rename"].click()
    editor = editor_of(full.findChild(PlansPanel).table)
    editor.setText("Careful 4")
    QTest.keyClick(editor, KEY.Key_Return)
    settle(full)
    assert [p.name for p in full.session.workspace.plans] == ["INT8", "Careful 4"]
    settle(full)
    full.session.workspace.edits.undo()
    settle(full)
    assert full.findChild(PlansPanel).table.item(1, 0).text() == "Second"


def test_that_figures_that_come_in_do_not_disturb_a_name_being_typed(qtbot, full):
    full.session.workspace.edits.add_plan("Second")
    full.show_view("plans")
    settle(full)
    table = full.findChild(PlansPanel).table
    full.findChild(PlansPanel).buttons["rename"].click()
    editor = editor_of(table)
    editor.setText("Half a na")
    full.session.workspace.edits.set_scheme([full.session.workspace.layers[0].name], "fp32")
    settle(full)
    assert editor_of(table).text() == "Half a na"
    QTest.keyClick(editor, KEY.Key_Escape)
    settle(full)
    assert table.item(1, 0).text() == "Second"
    count = len(full.session.workspace.layers)
    assert table.item(1, 2).text() != table.item(0, 2).text()
    assert table.item(1, 2).text().endswith(f"of {count}")


def test_that_letters_do_not_start_renaming(qtbot, full):
    full.show_view("plans")
    settle(full)
    table = full.findChild(PlansPanel).table
    table.setFocus()
    QTest.keyClick(table, KEY.Key_X)
    assert table.viewport().findChild(QLineEdit) is None
    QTest.keyClick(table, KEY.Key_F2)
    assert table.viewport().findChild(QLineEdit) is not None
