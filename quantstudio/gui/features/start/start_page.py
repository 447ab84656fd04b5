"""The page one starts from: a place to drop a model, what was open before, and the samples."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QDragEnterEvent, QDragLeaveEvent, QDropEvent, QKeyEvent, QShowEvent
from PySide6.QtWidgets import (
    QApplication,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)
from typing_extensions import override

from quantstudio.core.errors import QuantStudioError
from quantstudio.core.samples import DEFAULT_SAMPLE, Sample, sample, sample_names
from quantstudio.gui.action import Context
from quantstudio.gui.facts.job_facts import opening_text
from quantstudio.gui.features.start.dialogs import DeleteDialog
from quantstudio.gui.features.start.drop_zone import DropZone
from quantstudio.gui.features.start.pictures import Pictures
from quantstudio.gui.features.start.recent_tile import RecentTile
from quantstudio.gui.features.start.tile import Tile
from quantstudio.gui.features.start.tile_grid import TileGrid
from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.workspace.sessions import RecentEntry, RecentKind

WIDTH_MAX_PX = 1180
MARGIN = 24
SECTION_GAP = 22
# As many as one looks through; a button shows the rest.
SHOWN_AT_FIRST = 12
KEPT = "Everything you open is kept by itself, with every edit and result; there is nothing to save"
SAMPLES = "Small trained networks with their data, to try everything on"
NOTHING = "Nothing yet. What you open is kept here by itself, with every edit and result."


class StartPage(QWidget):
    """Recent sessions and projects with picture and headline, samples, and a drop target."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.setObjectName("start")
        self.setAccessibleName("Start page")
        self.setAcceptDrops(True)
        self._context = context
        self._session = context.session
        self._pictures = Pictures()
        self._entries: tuple[RecentEntry, ...] = ()
        self._shows_all = False
        self._is_tidy = False
        self._wants_focus = False
        self._column = self._make_column()
        self._make_head()
        self.recent = TileGrid("start.recent")
        self._make_recent()
        self.samples = TileGrid("start.samples")
        self._make_samples()
        self._column.addStretch(1)
        for signal in (self._session.model_changed, self._session.project_changed, self._session.opened):
            signal.connect(self._refresh_if_shown)
        self._session.jobs_changed.connect(self._show_opening)

    # Making it.

    def _make_column(self) -> QVBoxLayout:
        inside = QWidget()
        inside.setObjectName("start.inside")
        row = QHBoxLayout(inside)
        row.setContentsMargins(MARGIN, MARGIN - 4, MARGIN, MARGIN)
        middle = QWidget()
        middle.setMaximumWidth(WIDTH_MAX_PX)
        column = QVBoxLayout(middle)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(10)
        # The stretch of the middle wins until it is as wide as it may be.
        row.addStretch(1)
        row.addWidget(middle, 1000)
        row.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the tiles take it, and scroll it
        area.setWidget(inside)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(area)
        return column

    def _make_head(self) -> None:
        self.back = QPushButton()
        self.back.setObjectName("start.back")
        self.back.clicked.connect(self._go_back)
        self._column.addWidget(self.back, 0, Qt.AlignmentFlag.AlignLeft)
        self.drop_zone = DropZone()
        self.drop_zone.open_asked.connect(partial(self._context.trigger, "file.open"))
        self._column.addWidget(self.drop_zone)

    def _make_recent(self) -> None:
        self._column.addSpacing(SECTION_GAP - 10)
        heading, self.kept = _heading("Recent", KEPT)
        self._column.addLayout(heading)
        self.nothing = QLabel(NOTHING)
        self.nothing.setObjectName("start.nothing")
        self.nothing.setProperty("role", "muted")
        self.nothing.setWordWrap(True)
        self._column.addWidget(self.nothing)
        self._column.addWidget(self.recent)
        self.all_button = QPushButton()
        self.all_button.setObjectName("start.all")
        self.all_button.clicked.connect(self._show_all)
        self._column.addWidget(self.all_button, 0, Qt.AlignmentFlag.AlignLeft)
        self.all_button.hide()

    def _make_samples(self) -> None:
        self._column.addSpacing(SECTION_GAP - 10)
        self._column.addLayout(_heading("Samples", SAMPLES)[0])
        tiles = []
        for name in sample_names():
            try:
                tiles.append(self._sample_tile(sample(name)))
            except QuantStudioError:  # not installed: what is not there is not offered
                continue
        self.samples.set_tiles(tiles)
        self._column.addWidget(self.samples)

    def _sample_tile(self, chosen: Sample) -> Tile:
        tile = Tile(f"start.sample.{chosen.name}", chosen.title)
        tile.add_line(chosen.text, "muted", wraps=True).setAlignment(Qt.AlignmentFlag.AlignTop)
        tile.column.addStretch(1)
        if chosen.name == DEFAULT_SAMPLE:
            tile.add_line("A good one to begin with", "good")
        tile.setAccessibleDescription(chosen.text)
        documents = self._session.workspace.documents
        tile.clicked.connect(lambda: documents.open_sample(chosen.name))
        return tile

    # Keeping up.

    def _show_opening(self) -> None:
        """A large model takes its time: the place where it was dropped says so."""
        row = self._session.workspace.documents.under_way
        self.drop_zone.tell(*(opening_text(row) if row is not None else ()))

    @override
    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._wants_focus = True
        self.refresh()

    def refresh(self) -> None:
        """Read again what there is; the page follows a moment later."""
        model = self._session.workspace.model
        self.back.setVisible(model is not None)
        if model is not None:
            name = Path(model.source_path).name
            self.back.setText(f"Back to {name}")
            self.back.setAccessibleName(f"Back to {name}")
        tidy, self._is_tidy = not self._is_tidy, True
        self._session.workspace.sessions.read(self._context.recent, self._show, tidy=tidy)

    def _refresh_if_shown(self, *_: object) -> None:
        if self.isVisible():
            self.refresh()

    def _show(self, entries: tuple[RecentEntry, ...]) -> None:
        focused = QApplication.focusWidget()
        name = focused.objectName() if focused is not None else ""
        self._entries = entries
        now, open_now = time.time(), self._session.workspace.project.path
        shown = entries if self._shows_all else entries[:SHOWN_AT_FIRST]
        self.recent.set_tiles([self._recent_tile(entry, now, entry.path == open_now) for entry in shown])
        self.recent.setVisible(bool(shown))
        self.nothing.setVisible(not shown)
        self.kept.setVisible(bool(shown))
        self.all_button.setVisible(len(shown) < len(entries))
        self.all_button.setText(f"Show all {len(entries)}")
        again = next((tile for tile in self.recent.tiles if tile.objectName() == name), None)
        if again is not None:
            again.setFocus(Qt.FocusReason.OtherFocusReason)
        elif self._wants_focus:
            self.take_focus()
        self._wants_focus = False

    def take_focus(self) -> None:
        """Put the focus where one goes on most likely: on what was open last, else on the first sample."""
        tiles = [*self.recent.tiles, *self.samples.tiles]
        if tiles:
            tiles[0].setFocus(Qt.FocusReason.OtherFocusReason)

    def _recent_tile(self, entry: RecentEntry, now: float, is_open: bool) -> RecentTile:
        tile = RecentTile(entry, now, self._pictures, is_open=is_open)
        tile.clicked.connect(partial(self._open, entry))
        tile.locate_asked.connect(partial(self._locate, entry))
        tile.remove_asked.connect(partial(self._remove, entry))
        return tile

    def _show_all(self) -> None:
        self._shows_all = True
        self._show(self._entries)

    # Doing.

    def _open(self, entry: RecentEntry) -> None:
        if entry.path == self._session.workspace.project.path:
            self._go_back()
        else:
            self._session.workspace.documents.open_path(str(entry.path))

    def _go_back(self) -> None:
        self._context.show("inspect")

    def _locate(self, entry: RecentEntry) -> None:
        """Open it, then ask for the file: it is checked against what the session knows of it."""
        workspace = self._session.workspace
        self._open(entry)
        if workspace.project.path == entry.path:
            self._context.trigger("file.locate")

    def _remove(self, entry: RecentEntry) -> None:
        if entry.kind is RecentKind.SESSION:
            dialog = DeleteDialog(entry, self._context.window)
            dialog.agreed.connect(
                lambda: self._session.workspace.sessions.delete(entry.path, self._refresh_if_shown)
            )
            dialog.open()
        else:
            self._context.forget(str(entry.path))
            self.refresh()

    # Keys and drops.

    @override
    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape and self._session.workspace.model is not None:
            self._go_back()
        else:
            super().keyPressEvent(event)

    @override
    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            self.drop_zone.light(is_lit=True)
            event.acceptProposedAction()

    @override
    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        super().dragLeaveEvent(event)
        self.drop_zone.light(is_lit=False)

    @override
    def dropEvent(self, event: QDropEvent) -> None:
        self.drop_zone.light(is_lit=False)
        paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        self._session.workspace.documents.open_paths(paths)
        event.acceptProposedAction()


def _heading(title: str, text: str) -> tuple[QHBoxLayout, QLabel]:
    row = QHBoxLayout()
    row.setSpacing(10)
    name = QLabel(title)
    name.setProperty("role", "heading")
    row.addWidget(name)
    about = ElidedLabel(text)
    about.setProperty("role", "caption")
    row.addWidget(about, 1)
    return row, about
