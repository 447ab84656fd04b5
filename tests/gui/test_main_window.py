"""The window: actions, keys, docks, drag and drop, accessibility of every control."""

from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, QRect, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSpinBox,
    QComboBox,
    QDialog,
    QFileDialog,
    QLineEdit,
    QMenu,
    QPlainTextEdit,
    QProgressBar,
    QToolButton,
    QWidget,
)

from quantstudio.core.events import JobState
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.target import targets
from quantstudio.gui.features.data.trust_dialog import TrustDialog
from quantstudio.gui.features.jobs.jobs_panel import JobsPanel
from quantstudio.gui.features.jobs.log_panel import LogPanel
from quantstudio.gui.features.layers.layers_panel import LayersPanel
from quantstudio.gui.features.plans.key_figures_panel import KeyFiguresPanel
from quantstudio.gui.features.plans.plans_panel import PlansPanel
from quantstudio.gui.features.search.search_panel import SearchPanel
from quantstudio.gui.features.sensitivity.sensitivity_panel import SensitivityPanel
from quantstudio.gui.features.tradeoff.tradeoff_panel import TradeoffPanel
from quantstudio.gui.shell.main_window import MainWindow
from quantstudio.gui.theme import DARK, LIGHT, ThemeChoice, apply_theme, current_theme
from quantstudio.gui.widgets.command_palette import match_score
from quantstudio.jobs.rows import NoticeLevel
from tests.gui.conftest import find, settle
from tests.gui.settling import settled
from tests.workspace.canned import OUTLINE

CONTROLS = (
    QAbstractButton,
    QLineEdit,
    QComboBox,
    QAbstractSpinBox,
    QAbstractItemView,
    QPlainTextEdit,
    QProgressBar,
)


def unnamed(root: QWidget) -> list[str]:
    """Controls a person meets that have no object name or nothing a screen reader could say."""
    bad = []
    for control in root.findChildren(QWidget):
        if not isinstance(control, CONTROLS) or not control.isVisibleTo(root):
            continue
        # Parts Qt makes itself: a spin box's field, a header's corner, a combo box's list.
        if control.objectName().startswith("qt_") or "Private" in type(control).__name__:
            continue
        parent = control.parentWidget()
        if isinstance(parent, QAbstractSpinBox | QComboBox | QLineEdit | QAbstractItemView):
            if not control.accessibleName() and isinstance(control, QComboBox | QPlainTextEdit):
                bad.append(f"{type(control).__name__} inside {parent.objectName()}")
            continue
        text = control.text() if isinstance(control, QAbstractButton) else ""
        if not control.accessibleName() and not text:
            bad.append(f"{type(control).__name__} {control.objectName() or '?'}: no accessible name")
        if not control.objectName():
            bad.append(f"{type(control).__name__} {text or control.accessibleName()}: no object name")
    return bad


class TestAccessibility:
    @pytest.mark.parametrize("page", ["inspect", "tradeoff", "compare"])
    def test_that_every_control_of_a_page_has_a_name(self, full, page):
        full.show_view(page)
        assert unnamed(full) == []

    def test_that_every_control_that_is_switched_on_has_a_name(self, qtbot, full):
        full.show_view("inspect")
        sensitivity = find(full, SensitivityPanel)
        sensitivity.threshold.click()
        assert sensitivity.threshold_bar.isVisible()
        assert unnamed(full) == []
        full.show_view("tradeoff")
        find(full, TradeoffPanel).open_search()
        for row in find(full, SearchPanel).rows.values():
            row.check.setChecked(True)
            assert row.slider.isVisibleTo(full)
        assert unnamed(full) == []

    @pytest.mark.parametrize("panel", ["plans", "jobs", "log"])
    def test_that_every_control_of_a_panel_below_has_a_name(self, full, panel):
        full.show_view(panel)
        assert unnamed(full) == []

    @pytest.mark.parametrize(
        ("action", "dialog"),
        [
            ("edit.rules", "rules"),
            ("edit.settings", "settings"),
            ("model.data", "data"),
            ("file.export", "export"),
            ("file.open_code", "trust"),
            ("help.shortcuts", "shortcuts"),
            ("help.about", "about"),
        ],
    )
    def test_that_every_dialog_opens_without_blocking_and_names_its_controls(
        self, qtbot, full, action, dialog
    ):
        full.actions_list[action].trigger()
        opened = find(full, QDialog, dialog)
        assert opened.isVisible()
        assert opened.accessibleName()
        assert unnamed(opened) == []
        opened.reject()

    def test_that_every_action_has_a_tip_and_unique_keys(self, window):
        seen: dict[str, str] = {}
        for name in window.actions_list.described:
            action = window.actions_list[name]
            assert action.objectName() == f"action.{name}"
            assert action.toolTip()
            for keys in action.shortcuts():
                assert keys.toString() not in seen, f"{name} and {seen.get(keys.toString())}"
                seen[keys.toString()] = name

    def test_that_nothing_is_named_after_nothing(self, full):
        names = [
            w.objectName() for w in full.findChildren(QToolButton) if w.objectName().startswith("toolbar.")
        ]
        assert "toolbar.run.quantize" in names
        assert "toolbar.plan" in names


class TestActions:
    def test_that_without_a_model_only_opening_is_offered(self, window):
        actions = window.actions_list
        assert actions["file.open"].isEnabled()
        for name in ("run.all", "run.quantize", "run.measure", "file.export", "edit.rules", "model.data"):
            assert not actions[name].isEnabled()

    def test_that_undo_names_what_it_takes_back(self, full):
        name = full.session.workspace.layers[0].name
        full.session.workspace.edits.set_scheme([name], "fp32")
        assert full.actions_list["edit.undo"].text() == f"&Undo Set {name} to FP32"
        full.actions_list["edit.undo"].trigger()
        assert full.actions_list["edit.redo"].text() == f"&Redo Set {name} to FP32"

    @pytest.mark.parametrize(
        ("key", "label"),
        [(Qt.Key.Key_3, "FP32"), (Qt.Key.Key_4, "W4A8"), (Qt.Key.Key_F, "FP16"), (Qt.Key.Key_8, "INT8")],
        ids=["3", "4", "F", "8"],
    )
    def test_that_a_key_sets_the_precision_of_the_selection(self, qtbot, full, key, label):
        names = [layer.name for layer in full.session.workspace.layers if layer.op_type == "Conv"][:2]
        full.session.workspace.edits.set_scheme(names, "dynamic-int8")
        full.session.select(names)
        qtbot.keyClick(full, key)
        schemes = {
            full.session.workspace.recipe.scheme_for(full.session.workspace.model.layer(n)).label
            for n in names
        }
        assert schemes == {label}

    def test_that_letters_typed_into_the_filter_set_nothing(self, qtbot, full):
        before = full.session.workspace.recipe
        full.actions_list["edit.find"].trigger()
        field = find(full, LayersPanel).search
        qtbot.keyClicks(field, "f38")
        assert field.text() == "f38"
        assert full.session.workspace.recipe == before

    def test_that_stop_is_offered_while_a_job_runs(self, qtbot, runner, full):
        runner.is_holding = True
        full.actions_list["run.calibrate"].trigger()
        qtbot.waitUntil(full.actions_list["run.stop"].isEnabled)
        qtbot.waitUntil(full.status_line.progress.isVisible)
        assert full.status_line.engine.text().startswith("Engine working")
        full.actions_list["run.stop"].trigger()
        settle(full)
        assert full.session.workspace.jobs.rows[-1].state is JobState.CANCELLED
        assert not full.actions_list["run.stop"].isEnabled()
        assert "cancelled" in full.status_line.job.text()

    def test_that_a_job_is_paused_and_resumed_from_its_line(self, qtbot, runner, full):
        runner.is_holding = True
        full.actions_list["run.calibrate"].trigger()
        qtbot.waitUntil(lambda: full.session.workspace.jobs.running is not None)
        row = full.session.workspace.jobs.running

        def state() -> object:
            return full.session.workspace.jobs.running.state

        qtbot.waitUntil(lambda: row.job_id in find(full, JobsPanel)._lines)
        line = find(full, JobsPanel).line(row.job_id)
        assert line.pause.accessibleName() == "Pause Calibrate"
        line.pause.click()
        qtbot.waitUntil(lambda: line.detail.text() == "paused")
        assert line.accessibleName() == "Calibrate, paused, paused"
        assert state() is JobState.PAUSED
        qtbot.waitUntil(lambda: line.pause.accessibleName() == "Resume Calibrate")
        qtbot.waitUntil(lambda: full.status_line.job.text().endswith("paused"))
        assert full.status_line.stop.isEnabled()
        assert full.status_line.engine.text().startswith("Engine paused")
        full.status_line.pause.click()
        assert state() is JobState.RUNNING
        qtbot.waitUntil(lambda: full.status_line.pause.accessibleName() == "Pause the running job")
        full.status_line.pause.click()
        full.session.workspace.jobs.pause(row.job_id)
        line.pause.click()
        assert state() is JobState.RUNNING
        assert [what for what, _ in runner.pauses] == ["pause", "resume", "pause", "resume"]
        full.session.workspace.jobs.pause(row.job_id)
        full.session.workspace.jobs.cancel(row.job_id)
        settle(full)
        assert full.session.workspace.jobs.rows[-1].state is JobState.CANCELLED
        qtbot.waitUntil(lambda: not line.pause.isVisibleTo(line))

    def test_that_quantize_of_the_tool_bar_builds(self, qtbot, runner, full):
        full.session.workspace.edits.set_scheme([full.session.workspace.layers[0].name], "fp32")
        button = full.findChild(QToolButton, "toolbar.run.quantize")
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
        settle(full)
        assert runner.tasks[-1] == "quantize"
        assert full.session.workspace.current_variant is not None

    def test_that_the_theme_switch_changes_both_ways_and_is_remembered(self, full):
        full.actions_list["view.theme"].trigger()
        assert current_theme() is DARK
        assert full.settings.theme is ThemeChoice.DARK
        full.actions_list["view.theme"].trigger()
        assert current_theme() is LIGHT

    def test_that_a_switched_theme_looks_as_one_chosen_at_the_start(self, qapp, full):
        settle(full)
        parts = (find(full, KeyFiguresPanel), full.tool_bar, full.views.tabs.tabBar())
        for theme in (DARK, LIGHT):
            full.actions_list["view.theme"].trigger()
            settle(full)
            switched = [part.grab().toImage() for part in parts]
            full.setStyleSheet("")
            apply_theme(qapp, theme)
            settle(full)
            assert [part.grab().toImage() for part in parts] == switched

    def test_that_tabs_and_panels_have_keys(self, qtbot, full):
        qtbot.keyClick(full, Qt.Key.Key_3, Qt.KeyboardModifier.ControlModifier)
        assert full.views.tabs.tabText(full.views.tabs.currentIndex()) == "Compare"
        qtbot.keyClick(full, Qt.Key.Key_7, Qt.KeyboardModifier.ControlModifier)
        assert full.views.tabs.tabText(full.views.tabs.currentIndex()) == "Improve"
        qtbot.keyClick(full, Qt.Key.Key_5, Qt.KeyboardModifier.ControlModifier)
        assert find(full, JobsPanel).isVisible()
        qtbot.keyClick(full, Qt.Key.Key_5, Qt.KeyboardModifier.ControlModifier)
        assert not find(full, JobsPanel).isVisible()
        qtbot.keyClick(full, Qt.Key.Key_L, Qt.KeyboardModifier.ControlModifier)
        assert not find(full, LayersPanel).isVisible()
        qtbot.keyClick(full, Qt.Key.Key_L, Qt.KeyboardModifier.ControlModifier)
        assert find(full, LayersPanel).isVisible()

    @pytest.mark.parametrize(
        "action",
        ["file.open", "file.save", "file.save_as", "file.export_recipe", "file.import_recipe", "file.report"],
    )
    def test_that_file_dialogs_do_not_block_and_use_the_path_chosen(self, qtbot, full, tmp_path, action):
        full.actions_list[action].trigger()
        name = {"file.save": "file.save_as"}.get(action, action)
        qtbot.waitUntil(lambda: full.findChild(QFileDialog, f"{name}.dialog") is not None)
        dialog = full.findChild(QFileDialog, f"{name}.dialog")
        dialog.fileSelected.emit(str(tmp_path / "chosen"))
        dialog.reject()
        settle(full)
        if "save" in action:
            assert not full.session.workspace.project.is_temporary
            assert "chosen" in full.windowTitle()
            assert full.settings.last_project.endswith("chosen.qstudio")
        if action == "file.report":
            qtbot.waitUntil((tmp_path / "chosen").exists)
        assert full.settings.folder == str(tmp_path)

    def test_that_the_menus_that_list_something_work(self, qtbot, full):
        menu = full.findChild(QWidget, "menu.model.ranges")
        menu.aboutToShow.emit()
        entropy = next(a for a in menu.actions() if a.text() == "Entropy")
        entropy.trigger()
        assert full.session.workspace.recipe.calibration.method.value == "entropy"
        menu.aboutToShow.emit()
        assert next(a for a in menu.actions() if a.text() == "Entropy").isChecked()
        for name in (
            "file.recent",
            "file.samples",
            "edit.scheme",
            "edit.by_type",
            "model.samples",
            "model.scope",
        ):
            listed = full.findChild(QWidget, f"menu.{name}")
            listed.aboutToShow.emit()
            assert listed.actions()

    def test_that_the_target_is_chosen_in_the_menu_and_undone(self, full):
        menu = full.findChild(QWidget, "menu.model.target")
        menu.aboutToShow.emit()
        workspace = full.session.workspace
        before = workspace.recipe.target
        assert [a.text() for a in menu.actions()] == [one.label for one in targets()]
        next(a for a in menu.actions() if a.text() == "other runtimes (S8)").trigger()
        assert workspace.recipe.target == "onnx-qdq-s8"
        assert workspace.edits.undo_text == "Quantize for other runtimes (S8)"
        full.actions_list["edit.undo"].trigger()
        assert workspace.recipe.target == before

    def test_that_menus_offer_every_scheme_a_layer_can_have(self, full):
        workspace = full.session.workspace
        layer = next(one for one in workspace.layers if one.op_type == "Conv")
        full.session.select([layer.name])
        menu = full.findChild(QMenu, "menu.edit.scheme")
        menu.aboutToShow.emit()
        listed = [a.text() for a in menu.actions()]
        assert listed[:3] == ["FP32", "FP16 weights", "8 bits"]
        offered = [a.text() for one in menu.actions() if one.menu() for a in one.menu().actions()]
        names = workspace.recipe.on_target.schemes(layer)
        assert sorted([*listed[:2], *offered]) == sorted(NAMED_SCHEMES[name].text for name in names)
        four = [a.text() for a in full.findChild(QMenu, "menu.edit.scheme.4 bits").actions()]
        assert four[0] == "INT4 weights, INT8 activations"
        names = ("INT4", "CB4", "GB4", "TB4")
        assert four[-4:] == [f"{one} weights, INT4 activations, simulated" for one in names]

    def test_that_setting_all_of_a_type_is_in_the_menu(self, full):
        full.findChild(QMenu, "menu.edit.by_type").aboutToShow.emit()
        conv = full.findChild(QMenu, "menu.edit.by_type.Conv")
        next(a for a in conv.actions() if a.text() == "FP32").trigger()
        assert full.session.workspace.edits.undo_text == "Set all Conv to FP32"

    def test_that_a_new_plan_shows_on_the_tool_bar(self, full):
        full.actions_list["plan.duplicate"].trigger()
        assert find(full, QToolButton, "toolbar.plan").text() == "INT8 copy"
        full.actions_list["plan.delete"].trigger()
        assert find(full, QToolButton, "toolbar.plan").text() == "INT8"

    def test_that_notes_are_shown_in_the_log(self, full):
        full.actions_list["model.notes"].trigger()
        assert "Nothing had to be changed" in find(full, LogPanel).text.toPlainText()
        assert find(full, LogPanel).isVisible()


class TestPanels:
    def test_that_jobs_show_title_result_and_state(self, qtbot, full):
        full.toggle_view("jobs")
        row = next(r for r in full.session.workspace.jobs.rows if r.title == "Measure")
        line = find(full, JobsPanel).line(row.job_id)
        assert line.detail.text().startswith("top-1 accuracy 92.20")
        assert "succeeded" in line.accessibleName()

    def test_that_a_job_is_stopped_from_its_line(self, qtbot, runner, full):
        runner.is_holding = True
        full.session.workspace.runs.calibrate()
        full.toggle_view("jobs")
        qtbot.waitUntil(lambda: runner.submitted[-1].id in find(full, JobsPanel)._lines)
        line = find(full, JobsPanel).line(runner.submitted[-1].id)
        qtbot.mouseClick(line.stop, Qt.MouseButton.LeftButton)
        settle(full)
        assert full.session.workspace.jobs.rows[-1].state is JobState.CANCELLED

    def test_that_plans_show_measured_and_predicted_figures(self, qtbot, full):
        full.session.workspace.edits.duplicate_plan("INT8")
        full.session.workspace.edits.set_scheme([full.session.workspace.layers[0].name], "fp32")
        full.show_view("plans")
        settle(full)
        table = full.findChild(PlansPanel).table
        cells = [[table.item(r, c).text() for c in range(7)] for r in range(2)]
        assert [row[0] for row in cells] == ["INT8", "INT8 mixed"]
        assert [row[1] for row in cells] == ["INT8", "INT8 · 1 FP32"]
        assert [row[6] for row in cells] == ["measured on calibration data", "predicted"]
        assert cells[0][4].startswith("92.20")

    def test_that_a_row_of_the_plans_switches_and_renames(self, full):
        full.session.workspace.edits.add_plan("Second")
        full.show_view("plans")
        table = full.findChild(PlansPanel).table
        table.setCurrentCell(0, 0)
        assert full.session.workspace.active_plan == "INT8"
        table.item(1, 0).setText("Other")
        assert [p.name for p in full.session.workspace.plans] == ["INT8", "Other"]
        table.item(1, 0).setText("INT8")
        settle(full)
        assert table.item(1, 0).text() == "Other"

    def test_that_plan_buttons_add_duplicate_and_delete(self, full):
        buttons = full.findChild(PlansPanel).buttons
        buttons["add"].click()
        full.show_view("plans")
        buttons["duplicate"].click()
        assert len(full.session.workspace.plans) == 3
        settle(full)
        buttons["delete"].click()
        assert len(full.session.workspace.plans) == 2

    def test_that_the_log_can_be_copied_and_cleared(self, qapp, full):
        full.session.workspace.notify(NoticeLevel.WARNING, "a line to copy")
        find(full, LogPanel).copy()
        assert "a line to copy" in qapp.clipboard().text()
        find(full, LogPanel).clear()
        assert find(full, LogPanel).text.toPlainText() == ""


class TestToastsAndPalette:
    def test_that_notifications_never_stop_the_user(self, qtbot, full):
        for i in range(5):
            full.session.workspace.notify(NoticeLevel.ERROR, f"fault {i}", "do this", "models/x.onnx")
        assert len(full.toasts.toasts) == 3
        assert full.toasts.toasts[-1].accessibleName() == "error: x.onnx: fault 4. do this"
        assert "fault 0" in find(full, LogPanel).text.toPlainText()
        toast = full.toasts.toasts[-1]
        close = toast.findChild(QToolButton, "toast.close")
        qtbot.mouseClick(close, Qt.MouseButton.LeftButton)
        assert len(full.toasts.toasts) == 2

    def test_that_the_same_notification_is_shown_once(self, full):
        full.session.workspace.notify(NoticeLevel.INFO, "same")
        full.session.workspace.notify(NoticeLevel.INFO, "same")
        assert [t.key for t in full.toasts.toasts].count(("info", "same")) == 1

    def test_that_toasts_stay_inside_the_window(self, full):
        full.session.workspace.notify(NoticeLevel.WARNING, "a long text " * 20, "and a long hint " * 10)
        settled(full.session)
        toast = full.toasts.toasts[-1]
        place = QRect(toast.mapTo(full, QPoint(0, 0)), toast.size())
        assert full.rect().contains(place)
        text = toast.findChild(QWidget, "toast.text")
        assert text.height() >= text.heightForWidth(text.width())

    def test_that_toasts_cover_no_control(self, full):
        full.show_view("search")
        for severity in (NoticeLevel.ERROR, NoticeLevel.WARNING, NoticeLevel.INFO):
            full.session.workspace.notify(severity, f"{severity}: what happened", "what to do about it")
        settled(full.session)
        covered = QRect(full.toasts.mapTo(full, QPoint(0, 0)), full.toasts.size())
        kinds = (QAbstractButton, QAbstractSpinBox, QComboBox, QAbstractItemView)
        for control in full.findChildren(QWidget):
            if not isinstance(control, kinds):
                continue
            if control.isVisible() and not full.toasts.isAncestorOf(control) and control.window() is full:
                whole = QRect(control.mapTo(full, QPoint(0, 0)), control.size())
                seen = control.visibleRegion().boundingRect().translated(whole.topLeft())
                assert not covered.intersects(seen), control.objectName()

    def test_that_the_palette_finds_and_runs_a_command(self, qtbot, full):
        full.actions_list["view.palette"].trigger()
        palette = full.palette_dialog
        qtbot.keyClicks(palette.search, "dupl")
        assert palette.list.currentItem().text() == "Duplicate plan"
        qtbot.keyClick(palette.search, Qt.Key.Key_Return)
        assert not palette.isVisible()
        assert full.session.workspace.active_plan == "INT8 copy"

    def test_that_the_palette_jumps_to_a_layer(self, qtbot, full):
        name = full.session.workspace.layers[5].name
        full.actions_list["view.palette"].trigger()
        qtbot.keyClicks(full.palette_dialog.search, name)
        qtbot.keyClick(full.palette_dialog.search, Qt.Key.Key_Down)
        qtbot.keyClick(full.palette_dialog.search, Qt.Key.Key_Up)
        qtbot.keyClick(full.palette_dialog.search, Qt.Key.Key_Return)
        assert full.session.current_layer == name

    def test_that_the_palette_reaches_what_the_menus_list(self, qtbot, full):
        full.actions_list["view.palette"].trigger()
        qtbot.keyClicks(full.palette_dialog.search, "ranges: entropy")
        qtbot.keyClick(full.palette_dialog.search, Qt.Key.Key_Return)
        assert full.session.workspace.recipe.calibration.method.value == "entropy"
        full.actions_list["view.palette"].trigger()
        qtbot.keyClicks(full.palette_dialog.search, "set all conv to fp32")
        qtbot.keyClick(full.palette_dialog.search, Qt.Key.Key_Return)
        assert full.session.workspace.edits.undo_text == "Set all Conv to FP32"

    def test_that_what_cannot_be_done_now_is_listed_last_and_not_run(self, qtbot, window):
        window.actions_list["view.palette"].trigger()
        qtbot.keyClicks(window.palette_dialog.search, "quantize")
        listed = [window.palette_dialog.list.item(i) for i in range(window.palette_dialog.list.count())]
        assert not any(
            item.flags() & Qt.ItemFlag.ItemIsEnabled for item in listed if item.text() == "Quantize"
        )
        window.palette_dialog.grab()
        window.palette_dialog.reject()

    @pytest.mark.parametrize(
        ("better", "worse", "query"),
        [("Measure", "Remeasure", "mea"), ("Calibrate", "Close all inner bars", "calib")],
    )
    def test_that_a_word_start_beats_a_middle_beats_scattered_letters(self, better, worse, query):
        high, low = match_score(query, better), match_score(query, worse)
        assert high is not None
        assert low is not None
        assert high > low

    def test_that_letters_out_of_order_do_not_match(self):
        assert match_score("xyz", "Measure") is None


class TestOpening:
    def test_that_a_dropped_model_opens(self, qtbot, window, tmp_path):
        path = tmp_path / "dropped.onnx"
        path.write_bytes(OUTLINE)
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path))])
        event = QDropEvent(
            QPointF(5, 5),
            Qt.DropAction.CopyAction,
            data,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
        )
        window.dropEvent(event)
        settle(window)
        assert "dropped.onnx" in window.windowTitle()
        assert window.settings.recent == (str(path.resolve()),)

    def test_that_a_file_that_runs_code_opens_the_question(self, qtbot, replay, window, tmp_path):
        path = tmp_path / "net.pt2"
        path.write_bytes(b"x")
        window.session.workspace.documents.open_path(str(path))
        dialog = find(window, TrustDialog)
        assert not dialog.run_button.isEnabled()
        dialog.agree.setChecked(True)
        dialog.run_button.click()
        settle(window)
        assert replay.submitted[0].params["trust"] is True

    def test_that_closing_ends_the_session_and_keeps_the_geometry(self, window):
        path = window.session.workspace.project.path
        window.resize(1300, 800)
        window.close()
        assert not window.settings.layout("geometry").isEmpty()
        assert not Path(path).exists()  # nothing was opened in it

    def test_that_the_window_fits_a_small_screen(self, full):
        full.show_view("plans")
        assert full.minimumSizeHint().width() <= 1280
        assert full.minimumSizeHint().height() <= 720

    def test_that_clicks_on_the_status_bar_show_the_jobs(self, qtbot, full):
        qtbot.mouseClick(full.status_line.job, Qt.MouseButton.LeftButton, pos=QPoint(3, 3))
        assert find(full, JobsPanel).isVisible()


def test_that_a_window_without_a_model_asks_for_one(window: MainWindow):
    assert window.windowTitle() == "QuantStudio"
    assert window.session.workspace.model is None


def test_that_a_plan_that_needs_data_is_not_built_without(full):
    full.session.workspace.edits.set_scheme(
        [layer.name for layer in full.session.workspace.layers], "static-int8"
    )
    known = full.session.workspace
    known.subject = replace(known.subject, calibration=None)
    full.actions_list.refresh()
    quantize = full.actions_list["run.quantize"]
    assert not quantize.isEnabled()
    assert "Choose data first" in quantize.toolTip()
    known.edits.set_scheme([layer.name for layer in known.layers], "weight-int8")
    full.actions_list.refresh()
    assert quantize.isEnabled()
