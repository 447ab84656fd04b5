"""What the window remembers of its arrangement, and how large it is the first time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PySide6.QtCore import QByteArray, QSize, Qt
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import QApplication, QMainWindow, QSplitter, QTableView, QWidget

from quantstudio.gui.features.layers.layer_table import LayerColumn
from quantstudio.gui.features.layers.layers_panel import LayersPanel
from quantstudio.gui.shell.layout_memory import FRAME_PX, LayoutMemory
from quantstudio.gui.shell.settings import Settings
from quantstudio.gui.widgets.row_table import row_table
from tests.gui.sample_session import analysed_session


class Arranged(QMainWindow):
    """A window with one of everything that is remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("window")
        self.splitter = QSplitter(Qt.Orientation.Vertical)
        self.splitter.setObjectName("parts")
        self.model = QStandardItemModel(3, 3, self)
        self.table: QTableView = row_table("rows", "Rows", self.model, {})
        self.panel = LayersPanel(analysed_session(3))
        self.layers = self.panel.table
        for part in (self.table, QWidget(), self.panel):
            part.setMinimumHeight(10)
            self.splitter.addWidget(part)
        self.setCentralWidget(self.splitter)
        self.choice = ""

    def layout_state(self) -> str:
        """Stands for the docks."""
        return self.choice

    def restore_layout_state(self, text: str) -> None:
        self.choice = text


@pytest.fixture
def windows(qapp: QApplication) -> Iterator[list[Arranged]]:
    made: list[Arranged] = []
    yield made
    for window in made:
        window.close()
        window.deleteLater()


def arranged(windows: list[Arranged]) -> tuple[Arranged, LayoutMemory]:
    """A window as it is at the next start."""
    window = Arranged()
    windows.append(window)
    memory = LayoutMemory(window, Settings(), window)
    memory.restore_window()
    memory.restore(window)
    window.show()
    return window, memory


def test_that_splitters_columns_and_docks_are_as_they_were(windows):
    before, memory = arranged(windows)
    before.resize(700, 500)
    before.splitter.setSizes([60, 300, 100])
    sizes = before.splitter.sizes()
    before.table.setColumnWidth(1, 77)
    before.layers.choose_column(LayerColumn.SQNR, is_shown=False)
    before.choice = "share=0.5"
    memory.save()
    after, _ = arranged(windows)
    assert after.size() == QSize(700, 500)
    assert after.splitter.sizes() == sizes
    assert after.table.columnWidth(1) == 77
    assert after.layers.isColumnHidden(LayerColumn.SQNR)
    assert after.choice == "share=0.5"


def test_that_full_screen_and_maximised_are_remembered(windows):
    before, memory = arranged(windows)
    before.showMaximized()
    memory.save()
    after, memory = arranged(windows)
    assert after.isMaximized()
    after.setWindowState(after.windowState() ^ Qt.WindowState.WindowFullScreen)
    memory.save()
    last, _ = arranged(windows)
    assert last.isFullScreen()


def test_that_the_first_window_fits_the_screen(windows):
    window, _ = arranged(windows)
    screen = window.screen().availableGeometry()
    assert window.width() <= screen.width() - FRAME_PX
    assert window.height() <= screen.height() - FRAME_PX
    assert screen.contains(window.geometry())


def test_that_nonsense_is_ignored(windows):
    settings = Settings()
    for name in ("splitter.parts", "columns.rows.header", "choice.layers.table", "docks", "geometry"):
        settings.save_layout(name, QByteArray(b"\xff nonsense=1 {"))
    window, _ = arranged(windows)
    assert window.isVisible()


def test_that_leaving_the_full_screen_goes_back_to_maximised(qtbot, window):
    window.showMaximized()
    window.actions_list["view.fullscreen"].trigger()
    assert window.isFullScreen()
    window.actions_list["view.fullscreen"].trigger()
    assert window.isMaximized()


def test_that_the_share_of_the_layers_and_the_panel_below_come_back(window):
    views = window.views
    views.restore_layout_state("share=0.3000 left=0 below=230")
    assert views.dock_share == 0.3
    assert views.left_dock.isHidden()
    assert not views.below_dock.isHidden()
    assert views.layout_state().startswith("share=0.3000 left=0 below=")
    before, _, _ = views.layout_state().partition(" below=")
    window.show_view("start")
    views.restore_layout_state("nonsense share=x")
    views.leave_start()
    assert views.layout_state().startswith(before)
    assert not views.below_dock.isHidden()


def test_that_the_order_of_rows_comes_back(windows):
    before, memory = arranged(windows)
    before.table.setSortingEnabled(True)
    before.table.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    before.layers.sortByColumn(LayerColumn.SQNR, Qt.SortOrder.DescendingOrder)
    memory.save()
    after, _ = arranged(windows)
    header = after.layers.horizontalHeader()
    assert header.sortIndicatorSection() == LayerColumn.SQNR
    assert header.sortIndicatorOrder() is Qt.SortOrder.DescendingOrder


def test_that_a_killed_program_keeps_its_layout(window):
    window.views.dock_share = 0.31
    window._keep_timer.timeout.emit()
    assert b"share=0.3100" in bytes(Settings().layout("docks").data())


def test_that_layers_can_be_brought_back_with_a_button(qtbot, window):
    window.views.leave_start()
    button = window.views.tabs.cornerWidget(Qt.Corner.TopLeftCorner)
    assert button.isHidden()
    window.resize(900, 640)
    qtbot.waitUntil(button.isVisible)
    assert window.views.left_dock.isHidden()
    button.click()
    assert window.views.left_dock.isVisible()
    assert button.isChecked()
    button.click()
    assert window.views.left_dock.isHidden()
    window.resize(1280, 720)
    window.show_view("layers")
    qtbot.waitUntil(button.isHidden)
