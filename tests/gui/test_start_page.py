"""The start page: what it lists and opens, by mouse, key and drop; and the question before work stops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtCore import QCoreApplication, QMimeData, QPoint, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDragLeaveEvent
from PySide6.QtWidgets import QApplication, QLabel, QPushButton, QWidget

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.events import Progress
from quantstudio.core.findings import SUMMARY
from quantstudio.core.session_summary import MeasuredDot, SessionSummary, ShownVariant
from quantstudio.gui.facts.recent_facts import headline_text, headline_tip, kind_text, when_text
from quantstudio.gui.features.data.feature import FEATURE as DATA
from quantstudio.gui.features.inspect.feature import FEATURE as INSPECT
from quantstudio.gui.features.jobs.feature import FEATURE as JOBS
from quantstudio.gui.features.layers.feature import FEATURE as LAYERS
from quantstudio.gui.features.layers.layers_panel import LayersPanel
from quantstudio.gui.features.start.dialogs import DeleteDialog, LeaveDialog
from quantstudio.gui.features.start.feature import FEATURE as START
from quantstudio.gui.features.start.pictures import Pictures
from quantstudio.gui.features.start.recent_tile import RecentTile
from quantstudio.gui.features.start.start_page import StartPage
from quantstudio.gui.session import Session
from quantstudio.gui.shell.main_window import MainWindow
from quantstudio.gui.theme import DARK, LIGHT
from quantstudio.project.store import Project
from quantstudio.workspace.sessions import RecentEntry, RecentKind
from tests.gui.conftest import find, settle, shown_window
from tests.gui.test_drops import COPY, LEFT, NONE, drop
from tests.workspace.canned import OUTLINE
from tests.workspace.samples import model_summary

SHOWN = ShownVariant("INT8", "top1", 0.9667, 0.29, 1.29)
SUMMARY_OF_ONE = SessionSummary(
    3, 393_000, 2, SHOWN, (0.001, 0.07), (MeasuredDot(1, 0.99), MeasuredDot(0.3, 0.96))
)


def make_session(model: Path, *, there: bool = True) -> Path:
    """A closed session on a model, with something measured."""
    if there:
        model.write_bytes(OUTLINE)
    with Project.temporary(restore=False, name=model.stem) as project:
        project.set_model(
            replace(model_summary(3), source_path=str(model), digest=model.stem, graph_path=str(model))
        )
        project.set_data("test", DataSpec("test.npz"))
        project.findings.put(SUMMARY, SUMMARY.key(), {"": SUMMARY_OF_ONE})
        return project.path


def tiles(window: MainWindow) -> dict[str, RecentTile]:
    """Recent tiles by what they are called."""
    settle(window)
    found = find(window, StartPage).recent.tiles
    return {tile.entry.name: tile for tile in found if isinstance(tile, RecentTile)}


@pytest.fixture
def start(qapp: QApplication, replayed_session: Session) -> Iterator[MainWindow]:
    """A window of few parts with the start page in front."""
    window = shown_window(qapp, replayed_session, (START, INSPECT, DATA, JOBS, LAYERS))
    window.show_view("start")
    settle(window)
    yield window
    window.close()
    window.deleteLater()


class TestShown:
    def test_that_it_hides_pages_and_docks_and_gives_them_back(self, start):
        page = find(start, StartPage)
        assert page.isVisible()
        assert not find(start, LayersPanel).isVisible()
        start.show_view("inspect")
        assert not page.isVisible()
        assert find(start, LayersPanel).isVisible()

    def test_that_a_button_whose_action_cannot_be_done_looks_so(self, start):
        assert not start.actions_list["run.calibrate"].isEnabled()
        assert not find(start, QWidget, "toolbar.run.calibrate").isEnabled()
        assert find(start, QWidget, "toolbar.file.open").isEnabled()

    def test_that_a_narrow_page_has_fewer_columns(self, start):
        grid = find(start, StartPage).samples
        for width, columns in ((1280, 4), (620, 2)):
            start.resize(width, 720)
            settle(start)
            QCoreApplication.processEvents()
            assert len({tile.x() for tile in grid.tiles}) == columns
            assert grid.width() <= start.width()

    def test_that_a_first_start_offers_samples_and_says_that_nothing_is_lost(self, start):
        page = find(start, StartPage)
        assert page.nothing.isVisible()
        assert not page.recent.tiles
        assert page.samples.tiles[0].objectName() == "start.sample.digits_uneven"
        assert QApplication.focusWidget() is page.samples.tiles[0]
        assert not page.back.isVisible()

    def test_that_sessions_show_their_figures_and_what_is_missing(self, start, tmp_path):
        make_session(tmp_path / "here.onnx")
        make_session(tmp_path / "gone.onnx", there=False)
        find(start, StartPage).refresh()
        found = tiles(start)
        assert set(found) == {"here.onnx", "gone.onnx"}
        assert "96.67" in found["here.onnx"].accessibleDescription()
        assert found["here.onnx"].findChild(QPushButton) is None
        assert "missing" in found["gone.onnx"].accessibleDescription()
        assert find(found["gone.onnx"], QPushButton).text() == "Locate…"
        assert not found["here.onnx"].picture.pixmap().isNull()

    def test_that_a_file_that_cannot_be_read_says_so_and_is_not_opened(self, start, tmp_path):
        make_session(tmp_path / "net.onnx").write_bytes(b"rubbish" * 1000)
        path = tmp_path / "bad.qstudio"
        path.write_bytes(b"rubbish" * 1000)
        start.settings.add_recent(str(path))
        find(start, StartPage).refresh()
        tile = tiles(start)["bad"]
        assert not tile.isEnabled()
        assert "Cannot be read" in tile.accessibleDescription()


class TestDone:
    def test_that_enter_opens_a_session_and_the_page_gives_way(self, qtbot, start, tmp_path):
        path = make_session(tmp_path / "net.onnx")
        find(start, StartPage).refresh()
        qtbot.keyClick(tiles(start)["net.onnx"], Qt.Key.Key_Return)
        settle(start)
        assert start.session.workspace.project.path == path
        qtbot.waitUntil(lambda: not find(start, StartPage).isVisible())
        start.show_view("start")
        tile = tiles(start)["net.onnx"]
        assert tile.is_open
        qtbot.keyClick(tile, Qt.Key.Key_Escape)
        assert not find(start, StartPage).isVisible()

    def test_that_arrows_go_from_tile_to_tile(self, qtbot, start, tmp_path):
        page = find(start, StartPage)
        first, second = page.samples.tiles[:2]
        first.setFocus()
        qtbot.keyClick(first, Qt.Key.Key_Right)
        assert QApplication.focusWidget() is second
        qtbot.keyClick(second, Qt.Key.Key_Left)
        qtbot.keyClick(first, Qt.Key.Key_Left)
        assert QApplication.focusWidget() is first

    def test_that_a_sample_opens(self, start, replay):
        find(start, StartPage).samples.tiles[0].click()
        assert replay.submitted[0].params["path"].endswith("digits_uneven.onnx")

    def test_that_a_session_is_deleted_after_a_question_only(self, qtbot, start, tmp_path):
        path = make_session(tmp_path / "net.onnx")
        find(start, StartPage).refresh()
        qtbot.keyClick(tiles(start)["net.onnx"], Qt.Key.Key_Delete)
        dialog = find(start, DeleteDialog)
        assert path.exists()
        find(dialog, QPushButton, "delete_session.delete").click()
        assert "net.onnx" not in tiles(start)
        assert not path.exists()
        assert (tmp_path / "net.onnx").exists()

    def test_that_a_project_is_forgotten_and_its_file_stays(self, qtbot, start, tmp_path):
        path = tmp_path / "mine.qstudio"
        Project.create(path).close()
        start.settings.add_recent(str(path))
        find(start, StartPage).refresh()
        qtbot.keyClick(tiles(start)["mine"], Qt.Key.Key_Delete)
        assert tiles(start) == {}
        assert path.exists()

    def test_that_locate_opens_the_session_and_asks_where_the_model_is(self, qtbot, start, tmp_path):
        make_session(tmp_path / "gone.onnx", there=False)
        find(start, StartPage).refresh()
        find(tiles(start)["gone.onnx"], QPushButton).click()
        assert start.session.workspace.project.missing()
        qtbot.waitUntil(lambda: start.findChild(QWidget, "file.locate.dialog") is not None)
        find(start, QWidget, "file.locate.dialog").close()

    def test_that_files_dragged_over_it_light_it_up(self, start, tmp_path, replay):
        page = find(start, StartPage)
        path = tmp_path / "dropped.onnx"
        path.write_bytes(OUTLINE)
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path))])
        lit = []
        for event in (QDragEnterEvent(QPoint(5, 5), COPY, data, LEFT, NONE), QDragLeaveEvent()):
            QCoreApplication.sendEvent(page, event)
            lit.append(page.drop_zone.is_lit)
        assert drop(page, path)
        assert [*lit, page.drop_zone.is_lit] == [True, False, False]
        assert replay.submitted[0].params["path"] == str(path)

    def test_that_a_model_that_takes_its_time_says_how_far_it_is(self, qtbot, start, tmp_path, replay):
        page, layers = find(start, StartPage), find(start, LayersPanel)
        path = tmp_path / "big.onnx"
        path.write_bytes(OUTLINE)
        replay.is_holding = True
        start.session.workspace.documents.open_path(str(path))
        doing = Progress(1, 4, "steps", "Normalising 2.6 GB, one weight at a time")
        replay.emit(replay.submitted[-1].id, doing)
        qtbot.waitUntil(lambda: page.drop_zone.title.text() == "Opening big.onnx")
        assert page.drop_zone.text.text() == "Normalising 2.6 GB, one weight at a time  ·  step 2 of 4"
        assert layers.empty.text.text().startswith("Opening big.onnx\nNormalising 2.6 GB")
        assert not layers.empty.button.text()
        replay.is_holding = False
        start.session.workspace.jobs.stop()
        settle(start)
        assert page.drop_zone.title.text() == "Drop a model here"
        assert layers.empty.button.text() == "Open a model…"

    def test_that_a_new_session_shows_it(self, qtbot, start, tmp_path):
        start.session.workspace.documents.open_path(str(make_session(tmp_path / "net.onnx")))
        qtbot.waitUntil(lambda: not find(start, StartPage).isVisible())
        start.actions_list["file.new"].trigger()
        qtbot.waitUntil(find(start, StartPage).isVisible)
        assert "net.onnx" in tiles(start)


def test_that_work_is_stopped_only_where_the_user_says_so(start, replay, tmp_path):
    workspace = start.session.workspace
    workspace.documents.open_path(str(make_session(tmp_path / "net.onnx")))
    workspace.opening.set_data(DataSpec("train.npz"), None)
    settle(start)
    replay.is_holding = True
    workspace.runs.calibrate()
    before = workspace.project.path
    workspace.documents.open_path(str(make_session(tmp_path / "other.onnx")))
    dialog = find(start, LeaveDialog)
    assert "Calibrate" in find(dialog, QLabel, "leave.jobs").text()
    find(dialog, QPushButton, "leave.cancel").click()
    assert workspace.project.path == before
    assert workspace.jobs.running.title == "Calibrate"


def test_that_quitting_asks_before_it_stops_work(qtbot, start, replay, tmp_path):
    workspace = start.session.workspace
    workspace.documents.open_path(str(make_session(tmp_path / "net.onnx")))
    workspace.opening.set_data(DataSpec("train.npz"), None)
    settle(start)
    replay.is_holding = True
    workspace.runs.calibrate()
    assert not start.close()
    dialog = find(start, LeaveDialog)
    assert find(dialog, QLabel, "leave.jobs").text().startswith("Quitting stops")
    find(dialog, QPushButton, "leave.cancel").click()
    assert start.isVisible()
    assert workspace.jobs.running.title == "Calibrate"
    assert not start.close()
    start.findChildren(LeaveDialog)[-1].findChild(QPushButton, "leave.stop").click()
    assert not start.isVisible()


class TestWords:
    def test_that_moments_are_said_as_people_say_them(self):
        noon = 1_700_000_000.0
        clock = time.localtime(noon)
        assert when_text(noon, noon) == f"today {clock.tm_hour}:{clock.tm_min:02d}"
        assert when_text(noon - 86_400, noon).startswith("yesterday ")
        assert when_text(noon - 40 * 86_400, noon).endswith(" 2023")

    def test_that_the_headline_has_accuracy_speed_and_size(self):
        assert headline_text(SHOWN).replace("\u202f", " ") == "96.67 % · 1.29× speed · 29 % size"
        assert headline_text(replace(SHOWN, value=None, speedup=None)).replace("\u202f", " ") == "29 % size"
        assert "INT8, measured" in headline_tip(SHOWN)

    def test_that_an_entry_says_what_it_is(self):
        entry = RecentEntry(Path("/x/mine.qstudio"), RecentKind.PROJECT, "mine", "/y/net.onnx", changed=100.0)
        assert kind_text(entry, 100.0).startswith("Project on net.onnx, today")
        assert kind_text(replace(entry, kind=RecentKind.MODEL), 100.0) == "Model, not open yet"


class TestPicture:
    def test_that_it_is_drawn_once_for_each_theme_and_size(self, qapp):
        pictures = Pictures()
        first = pictures.of(SUMMARY_OF_ONE, LIGHT, 200, 76, 1.0)
        assert pictures.of(SUMMARY_OF_ONE, LIGHT, 200, 76, 1.0) is first
        assert pictures.of(SUMMARY_OF_ONE, DARK, 200, 76, 1.0) is not first

    def test_that_the_layer_the_loss_comes_from_stands_out(self, qapp):
        image = Pictures().of(SUMMARY_OF_ONE, LIGHT, 200, 76, 1.0).toImage()
        colours = {image.pixelColor(x, 64).name().upper() for x in range(10, 40)}
        assert LIGHT.q in colours
        assert LIGHT.fp not in {image.pixelColor(x, 30).name().upper() for x in range(10, 40)}
