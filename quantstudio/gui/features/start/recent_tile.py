"""The tile of a session or project: picture, name, headline, when; what can be done with it."""

from __future__ import annotations

from PySide6.QtCore import QPoint, QSize, Qt, Signal
from PySide6.QtGui import QContextMenuEvent, QKeyEvent, QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QMenu, QPushButton, QToolButton, QWidget
from typing_extensions import override

from quantstudio.gui.facts.recent_facts import headline_text, headline_tip, kind_text, state_text
from quantstudio.gui.features.start.pictures import Pictures
from quantstudio.gui.features.start.tile import PADDING, Tile
from quantstudio.gui.theme import current_theme, icon, icon_pixmap, theme_hub
from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.workspace.sessions import RecentEntry, RecentKind

PICTURE_PX = 76


class RecentTile(Tile):
    """One entry of the recent ones.

    Signals:
        locate_asked(): the model's file is somewhere else now.
        remove_asked(): the session is to be deleted, or the entry forgotten.
    """

    locate_asked = Signal()
    remove_asked = Signal()

    def __init__(
        self,
        entry: RecentEntry,
        now: float,
        pictures: Pictures,
        *,
        is_open: bool,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(f"start.recent.{entry.path.stem}", entry.name, parent)
        self.entry = entry
        self.is_open = is_open
        self._pictures = pictures
        self.picture = QLabel()
        self.picture.setFixedHeight(PICTURE_PX)
        self.picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.picture.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.column.insertWidget(0, self.picture)
        self.more = QToolButton()
        self.more.setObjectName(f"{self.objectName()}.more")
        self.more.setAccessibleName(f"More for {entry.name}")
        self.more.setToolTip("More")
        self.more.setIconSize(QSize(14, 14))
        self.more.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the menu key and Delete do the same
        self.more.clicked.connect(
            lambda: self._open_menu(self.more.mapToGlobal(self.more.rect().bottomLeft()))
        )
        self.head.addWidget(self.more)
        self._say(now)
        theme_hub().theme_changed.connect(self._draw)
        self._draw()

    def _say(self, now: float) -> None:
        entry = self.entry
        shown = entry.summary.shown if entry.summary is not None else None
        if shown is not None and not entry.trouble:
            first = self.add_line(headline_text(shown), "")
            self.add_line(shown.name, "muted")
            words = headline_tip(shown)
            if isinstance(first, ElidedLabel):
                first.set_wordings(headline_text(shown), headline_text(shown, is_short=True))
                first.set_detail(words)
        else:
            words = state_text(entry)
            self.add_line(words or " ", "error" if entry.trouble else "")
            if entry.summary is not None and not entry.trouble:
                self.add_line("Nothing measured yet", "muted")
        about = "Open now" if self.is_open else kind_text(entry, now)
        self.add_line(about, "caption")
        if entry.is_model_missing:
            self._warn_of_missing()
            words = f"{words}. The model's file is missing"
        self.setAccessibleDescription(f"{words}. {about}")
        place = entry.model if entry.kind is RecentKind.SESSION else str(entry.path)
        self.title.set_detail(place)
        self.setEnabled(not entry.trouble)
        self.column.addStretch(1)

    def _warn_of_missing(self) -> None:
        line = ElidedLabel("Model file not found")
        line.setProperty("role", "caution")
        line.set_detail(self.entry.model)
        locate = QPushButton("Locate…")
        locate.setObjectName(f"{self.objectName()}.locate")
        locate.setAccessibleName(f"Locate the model of {self.entry.name}")
        locate.clicked.connect(self.locate_asked)
        row = QHBoxLayout()
        row.addWidget(line, 1)
        row.addWidget(locate)
        self.column.addLayout(row)

    # Drawing.

    def _draw(self, _theme: object = None) -> None:
        self.more.setIcon(icon("more", "muted", 14))
        self.picture.setStyleSheet(f"background: {current_theme().alt}; border-radius: 5px;")
        self._draw_picture()

    def _draw_picture(self) -> None:
        summary, ratio = self.entry.summary, self.devicePixelRatioF()
        if summary is not None and (summary.sensitivity or len(summary.dots) > 1):
            width = max(60, self.width() - 2 * PADDING)
            made = self._pictures.of(summary, current_theme(), width, PICTURE_PX, ratio)
            self.picture.setPixmap(made)
        else:
            self.picture.setPixmap(icon_pixmap("layers", "faint", 26, ratio))

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._draw_picture()

    # What can be done with it.

    @override
    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Delete and not self.is_open:
            self.remove_asked.emit()
        else:
            super().keyPressEvent(event)

    @override
    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        self._open_menu(event.globalPos())

    def _open_menu(self, at: QPoint) -> None:
        menu = QMenu(self)
        menu.setObjectName("start.recent.menu")
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction("Open", self.click).setEnabled(self.isEnabled())
        if self.entry.is_model_missing:
            menu.addAction("Locate the model…", self.locate_asked.emit)
        is_session = self.entry.kind is RecentKind.SESSION
        words = "Delete session…" if is_session else "Remove from this list"
        remove = menu.addAction(words, self.remove_asked.emit)
        remove.setEnabled(not self.is_open)
        if self.is_open:
            remove.setToolTip("It is open now")
        menu.popup(at)
