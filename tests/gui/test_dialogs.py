"""Dialogs: what they refuse, what they preview, what they set off."""

import ast

import numpy as np
import pytest
from PySide6.QtCore import QPointF, QRect, Qt
from PySide6.QtGui import QDropEvent, QKeySequence
from PySide6.QtWidgets import (
    QFileDialog,
    QKeySequenceEdit,
    QLineEdit,
    QListWidget,
    QPushButton,
    QTableWidget,
)

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.precision import FP16, STATIC_INT8, LayerScheme, Precision
from quantstudio.core.recipe import LayerRule
from quantstudio.gui.features.data.data_dialog import DataDialog
from quantstudio.gui.features.data.trust_dialog import TrustDialog
from quantstudio.gui.features.export.export_dialog import ExportDialog
from quantstudio.gui.features.plans.rules_dialog import RulesDialog, deciding_counts, rule_matches
from quantstudio.gui.shell.help_dialogs import AboutDialog, FaultDialog, ShortcutsDialog
from quantstudio.gui.shell.settings_dialog import SettingsDialog
from quantstudio.gui.theme import DARK, LIGHT, ThemeChoice, current_theme
from quantstudio.gui.widgets.dialog import Dialog
from quantstudio.workspace.script import command_line, python_code
from quantstudio.workspace.values import EngineOptions, TrustRequest
from tests.gui.conftest import find, settle
from tests.gui.settling import settled


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros((2, 3), np.float32))
    return str(path)


def cell(table: QTableWidget, row: int, column: int) -> str:
    item = table.item(row, column)
    assert item is not None
    return item.text()


def drop(rows: QListWidget, row: int, to: int, *, at_top: bool) -> None:
    """Drop a row on the upper or lower half of another, as a mouse does."""
    rows.setCurrentRow(row)
    rect = rows.visualItemRect(rows.item(to))
    at = QPointF(rect.center().x(), rect.top() + 2 if at_top else rect.bottom() - 2)
    event = QDropEvent(
        at,
        Qt.DropAction.MoveAction,
        rows.mimeData([rows.item(row)]),
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    rows.dropEvent(event)


class TestData:
    def test_that_a_wrong_transform_is_told_as_it_is_typed(self, qtbot, full, npz):
        dialog = DataDialog(full.context)
        dialog.open()
        dialog.calibration.path.setText(npz)
        dialog.calibration.transform.setText("scael=1/255")
        assert "unknown transform key" in dialog.calibration.problem.text()
        assert not dialog.use.isEnabled()
        dialog.calibration.transform.setText("scale=1/255 mean=0.5 std=0.25 resize=224 crop=200 layout=NCHW")
        assert dialog.calibration.problem.text() == (
            "Resized to 224×224, cropped to 200×200, pixel 0 becomes -2, pixel 255 becomes 2, channels first"
        )
        assert dialog.use.isEnabled()

    def test_that_a_missing_path_is_told(self, full):
        dialog = DataDialog(full.context)
        dialog.calibration.path.setText("/nowhere.npz")
        assert "no such file" in dialog.calibration.problem.text()
        assert not dialog.use.isEnabled()

    def test_that_the_worker_is_asked_at_once_and_shapes_are_shown(self, full, npz):
        dialog = DataDialog(full.context, offered=npz)
        dialog.open()
        settle(full)
        assert "[3, 32, 32]" in dialog.doctor.facts.text()
        assert "10 classes" in dialog.doctor.classes.text()

    def test_that_an_answer_after_the_dialog_is_gone_is_ignored(self, qtbot, full, runner, npz):
        runner.is_holding = True
        dialog = DataDialog(full.context, offered=npz)
        dialog.open()
        gone: list[bool] = []
        dialog.destroyed.connect(lambda: gone.append(True))
        dialog.reject()
        qtbot.waitUntil(lambda: bool(gone))
        runner.is_holding = False
        runner.release()
        settle(full)

    def test_that_using_data_analyses_the_model_with_it(self, full, runner, npz):
        dialog = DataDialog(full.context)
        dialog.open()
        dialog.calibration.path.setText(npz)
        dialog.calibration.samples.setValue(64)
        count = len(runner.submitted)
        dialog.use.click()
        settle(full)
        assert full.session.workspace.calibration_data == DataSpec(npz, parse_transform(""), 64)
        assert "sensitivity" in runner.tasks[count:]

    @pytest.mark.parametrize("button", ["browse", "folder"])
    def test_that_paths_are_chosen_without_blocking(self, qtbot, full, npz, button):
        dialog = DataDialog(full.context)
        dialog.open()
        find(dialog, QPushButton, f"data.test.{button}").click()
        chooser = find(dialog, QFileDialog)
        chooser.fileSelected.emit(npz)
        chooser.reject()
        assert dialog.test.path.text() == npz


class TestRules:
    def test_that_the_preview_follows_the_pattern_and_tells_what_cannot_be(self, full):
        dialog = RulesDialog(full.session, full)
        dialog.open()
        dialog.pattern.setText("*conv*")
        convs = [layer for layer in full.session.workspace.layers if layer.op_type == "Conv"]
        assert dialog.preview.topLevelItemCount() == len(convs)
        assert dialog.matched.text().startswith(f"Sets {len(convs)} of")
        dialog.pattern.setText("")
        dialog.op_type.setCurrentIndex(dialog.op_type.findData("LayerNormalization"))
        assert "stay FP32" in dialog.matched.text()
        dialog.pattern.setText("nothing like this")
        assert dialog.preview.topLevelItemCount() == 0
        assert not dialog.add.isEnabled()

    def test_that_rules_are_added_moved_changed_removed_and_undone(self, full):
        dialog = RulesDialog(full.session, full)
        dialog.open()
        dialog.pattern.setText("*conv1*")
        dialog.scheme.setCurrentIndex(dialog.scheme.findData("fp16"))
        dialog.add.click()
        assert full.session.workspace.recipe.rules[-1] == LayerRule(FP16, ("*conv1*",))
        assert dialog.list.count() == 2
        assert dialog.list.currentRow() == 1
        dialog.up.click()
        assert full.session.workspace.recipe.rules[0].names == ("*conv1*",)
        dialog.down.click()
        dialog.pattern.setText("*conv2*")
        dialog.change.click()
        assert full.session.workspace.recipe.rules[-1].names == ("*conv2*",)
        dialog.remove.click()
        assert full.session.workspace.recipe.rules == (LayerRule(STATIC_INT8),)
        full.session.workspace.edits.undo()
        assert dialog.list.count() == 2

    def test_that_selecting_a_rule_puts_it_into_the_editor(self, full):
        full.session.workspace.edits.add_rule(LayerRule(FP16, ("a*", "b*"), ("Conv",)))
        dialog = RulesDialog(full.session, full)
        dialog.list.setCurrentRow(1)
        assert dialog.rule == LayerRule(FP16, ("a*", "b*"), ("Conv",))

    def test_that_counts_say_which_rule_decides(self, full):
        layers = full.session.workspace.layers
        recipe = full.session.workspace.recipe.with_rule(LayerRule(FP16, op_types=("Conv",)))
        convs = sum(layer.op_type == "Conv" for layer in layers)
        assert deciding_counts(recipe, layers) == [len(layers) - convs, convs]
        found = rule_matches(recipe, layers, recipe.rules[1], 1)
        assert [match.is_decided for match in found] == [True] * convs

    def test_that_the_preview_says_which_later_rule_decides(self, full):
        full.session.workspace.edits.add_rule(LayerRule(FP16, op_types=("Conv",)))
        dialog = RulesDialog(full.session, full)
        dialog.list.setCurrentRow(0)
        convs = [layer.name for layer in full.session.workspace.layers if layer.op_type == "Conv"]
        rows = (dialog.preview.topLevelItem(i) for i in range(dialog.preview.topLevelItemCount()))
        shown = [item for item in rows if item is not None]
        assert {item.text(0) for item in shown if item.text(2) == "rule 2: FP16"} == set(convs)
        assert f"later rules decide {len(convs)} more" in dialog.matched.text()
        shown[-1].setSelected(True)
        assert full.session.selection == (shown[-1].text(0),)

    def test_that_a_rule_dragged_to_another_place_wins_or_loses(self, full):
        full.session.workspace.edits.add_rule(LayerRule(FP16, ("*conv1*",)))
        dialog = RulesDialog(full.session, full)
        dialog.open()
        drop(dialog.list, 1, 0, at_top=True)
        assert full.session.workspace.recipe.rules[0].names == ("*conv1*",)
        assert dialog.list.currentRow() == 0
        drop(dialog.list, 0, 1, at_top=False)
        assert full.session.workspace.recipe.rules[1].names == ("*conv1*",)
        assert full.session.workspace.edits.undo_text == "Move rule 1"
        assert dialog.list.count() == 2

    def test_that_rules_no_menu_can_make_are_kept_when_changed(self, full):
        rule = LayerRule(LayerScheme(Precision.INT2), ("stage1.*",), ("Conv", "MatMul"))
        full.session.workspace.edits.add_rule(rule)
        dialog = RulesDialog(full.session, full)
        dialog.list.setCurrentRow(1)
        assert dialog.rule == rule
        assert dialog.scheme.currentText() == "W2"
        dialog.pattern.setText("stage2.*")
        dialog.change.click()
        assert full.session.workspace.recipe.rules[1] == LayerRule(rule.scheme, ("stage2.*",), rule.op_types)


class TestTrust:
    def test_that_nothing_runs_before_the_user_agrees(self, qtbot, full):
        dialog = TrustDialog(TrustRequest("/x/net.pt2", "model", "It is a program."), full)
        assert not dialog.run_button.isEnabled()
        assert dialog.factory.isHidden()
        assert find(dialog, QLineEdit, "trust.file").text() == "/x/net.pt2"
        dialog.agree.setChecked(True)
        with qtbot.waitSignal(dialog.trusted) as said:
            dialog.run_button.click()
        assert said.args[1] == ""

    def test_that_weights_alone_need_a_factory(self, full):
        dialog = TrustDialog(TrustRequest("/x/w.safetensors", "model", "Weights."), full)
        dialog.agree.setChecked(True)
        assert not dialog.run_button.isEnabled()
        dialog.factory.setText("not a name")
        assert not dialog.run_button.isEnabled()
        assert dialog.factory.property("invalid")
        dialog.factory.setText("nets:make")
        assert dialog.run_button.isEnabled()

    def test_that_python_is_opened_by_name(self, qtbot, full, runner):
        full.actions_list["file.open_code"].trigger()
        dialog = find(full, TrustDialog)
        dialog.agree.setChecked(True)
        assert not dialog.run_button.isEnabled()
        dialog.file.setText("nets:make")
        dialog.run_button.click()
        assert runner.submitted[-1].params["path"] == "nets:make"
        settle(full)


def test_that_the_bold_words_of_the_button_that_return_presses_fit(full):
    dialog = DataDialog(full.context)
    dialog.open()
    use = dialog.use
    assert use.font().bold()
    assert use.fontMetrics().horizontalAdvance(use.text()) + 2 * 14 <= use.width()


class TestExport:
    def test_that_the_command_and_the_code_can_be_run_elsewhere(self, qapp, full, tmp_path):
        target = tmp_path / "out dir"
        target.mkdir()
        path = str(target / "m.onnx")
        dialog = ExportDialog(full.session, path, full)
        assert f"-o '{path}'" in command_line(full.session.workspace, path)
        assert "quantstudio run" in command_line(full.session.workspace, path)
        ast.parse(python_code(full.session.workspace, path))
        find(dialog, QPushButton, "export.python.copy").click()
        assert qapp.clipboard().text() == python_code(full.session.workspace, path)

    def test_that_the_file_is_named_after_the_plan_not_after_a_precision(self, full):
        edits = full.session.workspace.edits
        edits.add_plan("Careful one")
        full.actions_list["file.export"].trigger()
        dialog = full.findChildren(ExportDialog)[-1]
        assert dialog.path.text().endswith(".careful-one.onnx")
        dialog.reject()
        edits.undo()
        settle(full)

    def test_that_a_folder_that_is_not_there_is_refused(self, full):
        dialog = ExportDialog(full.session, "/nowhere/m.onnx", full)
        assert not dialog.write.isEnabled()

    def test_that_the_button_says_when_it_builds_first(self, full):
        assert ExportDialog(full.session, "", full).write.text() == "Export"
        full.session.workspace.edits.set_scheme([full.session.workspace.layers[0].name], "fp32")
        assert ExportDialog(full.session, "", full).write.text() == "Quantize and export"

    def test_that_it_writes_without_the_recipe_when_asked(self, full, tmp_path):
        target = tmp_path / "m.onnx"
        dialog = ExportDialog(full.session, str(target), full)
        dialog.with_recipe.setChecked(False)
        dialog.write.click()
        settle(full)
        assert target.exists()
        assert not target.with_suffix(".recipe.json").exists()

    def test_that_browsing_fills_the_path(self, full, tmp_path):
        dialog = ExportDialog(full.session, str(tmp_path / "m.onnx"), full)
        dialog.open()
        find(dialog, QPushButton, "export.browse").click()
        chooser = find(dialog, QFileDialog)
        chooser.fileSelected.emit(str(tmp_path / "n.onnx"))
        chooser.reject()
        assert dialog.path.text().endswith("n.onnx")


class TestSettings:
    def test_that_a_theme_takes_effect_at_once(self, full):
        dialog = SettingsDialog(full.settings, full.actions_list, full)
        dialog.theme.setCurrentIndex(dialog.theme.findData(ThemeChoice.DARK))
        assert current_theme() is DARK
        dialog.theme.setCurrentIndex(dialog.theme.findData(ThemeChoice.LIGHT))
        assert current_theme() is LIGHT

    def test_that_threads_reach_the_next_measurement(self, full):
        dialog = SettingsDialog(full.settings, full.actions_list, full)
        dialog.threads.setValue(2)
        assert full.session.workspace.options.threads == 2
        dialog.threads.setValue(0)

    def test_that_only_installed_devices_are_offered_and_the_choice_is_kept(self, full):
        dialog = SettingsDialog(full.settings, full.actions_list, full)
        assert dialog.provider.count() == 1
        dialog.offer_devices(
            {
                "providers": ["OpenVINOExecutionProvider", "CPUExecutionProvider"],
                "torch_devices": ["cpu", "cuda:0"],
            }
        )
        assert [dialog.provider.itemText(i) for i in range(dialog.provider.count())] == ["CPU", "OPENVINO"]
        dialog.provider.setCurrentIndex(dialog.provider.findData("openvino"))
        dialog.device.setCurrentIndex(dialog.device.findData("cuda:0"))
        dialog.batch.setValue(8)
        assert full.session.workspace.options == EngineOptions(0, "openvino", "cuda:0", 8)
        assert SettingsDialog(full.settings, full.actions_list, full).provider.currentData() == "openvino"
        full.settings.engine = EngineOptions()
        assert full.session.workspace.options == EngineOptions()

    def test_that_a_key_is_changed_kept_and_reset(self, full):
        dialog = SettingsDialog(full.settings, full.actions_list, full)
        edit = find(dialog, QKeySequenceEdit, "settings.key.run.calibrate")
        edit.setKeySequence(QKeySequence("Ctrl+Alt+K"))
        edit.editingFinished.emit()
        assert full.actions_list["run.calibrate"].shortcut() == QKeySequence("Ctrl+Alt+K")
        assert full.settings.shortcut("run.calibrate") == "Ctrl+Alt+K"
        dialog.reset.click()
        assert full.actions_list["run.calibrate"].shortcut() == QKeySequence("Ctrl+Shift+C")
        assert full.settings.shortcut("run.calibrate") is None

    def test_that_a_key_that_is_taken_is_refused(self, full):
        dialog = SettingsDialog(full.settings, full.actions_list, full)
        edit = find(dialog, QKeySequenceEdit, "settings.key.run.calibrate")
        edit.setKeySequence(QKeySequence("Ctrl+O"))
        edit.editingFinished.emit()
        assert "Ctrl+O belongs to Open" in dialog.conflict.text()
        assert full.actions_list["run.calibrate"].shortcut() == QKeySequence("Ctrl+Shift+C")

    def test_that_commands_are_filtered(self, full):
        dialog = SettingsDialog(full.settings, full.actions_list, full)
        dialog.search.setText("calibrate")
        shown = [r for r in range(dialog.table.rowCount()) if not dialog.table.isRowHidden(r)]
        assert [cell(dialog.table, r, 0) for r in shown] == ["Run: Calibrate"]


class TestHelp:
    def test_that_every_key_is_listed(self, full):
        dialog = ShortcutsDialog(full.actions_list, (), full)
        listed = {cell(dialog.table, r, 1) for r in range(dialog.table.rowCount())}
        assert {"Open", "Quantize", "Set selection to INT4", "Command palette"} <= listed

    def test_that_versions_can_be_copied(self, qapp, full):
        dialog = AboutDialog(full)
        find(dialog, QPushButton, "about.copy").click()
        assert "Qt 6." in qapp.clipboard().text()

    def test_that_a_fault_can_be_copied(self, qapp, full):
        dialog = FaultDialog("ValueError: x", "the whole trace", full)
        find(dialog, QPushButton, "fault.copy").click()
        assert qapp.clipboard().text() == "the whole trace"


def test_that_dialogs_keep_their_buttons_on_a_low_screen(full, monkeypatch):
    points = 500

    class Screen:
        def availableGeometry(self) -> QRect:
            return QRect(0, 0, 800, points)

    monkeypatch.setattr(Dialog, "screen", lambda _dialog: Screen())
    for dialog in (
        SettingsDialog(full.settings, full.actions_list, full),
        RulesDialog(full.session, full),
        ExportDialog(full.session, "net.onnx", full),
        ShortcutsDialog(full.actions_list, (), full),
    ):
        dialog.open()
        settled()
        assert dialog.height() < points, dialog.objectName()
        button = dialog.buttons.buttons()[0]
        assert dialog.rect().contains(button.mapTo(dialog, button.rect().bottomRight())), dialog.objectName()
        dialog.close()
