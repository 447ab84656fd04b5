"""Type a few letters, press Enter: everything the window can do in one list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PySide6.QtCore import QEvent, QModelIndex, QObject, QPersistentModelIndex, QRect, QSize, Qt
from PySide6.QtGui import QColor, QKeyEvent, QPainter
from PySide6.QtWidgets import (
    QDialog,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from quantstudio.gui.theme import current_theme, icon_pixmap, ui_font

WIDTH = 560
ROW_HEIGHT = 36
ROWS_SHOWN = 10
_ENTRY = int(Qt.ItemDataRole.UserRole)


@dataclass(frozen=True, slots=True)
class PaletteEntry:
    """One line of the palette.

    Attributes:
        text: What it does.
        group: Where it belongs: "File", "Plan", "Layer".
        run: Called when chosen.
        keys: Shortcut as shown; empty for none.
        icon: Icon name; empty for none.
        why_not: Why it cannot be done now; empty where it can.
    """

    text: str
    group: str
    run: Callable[[], object]
    keys: str = ""
    icon: str = ""
    why_not: str = ""

    @property
    def is_enabled(self) -> bool:
        """Whether it can be done now."""
        return not self.why_not


def match_score(query: str, text: str) -> int | None:
    """How well a query fits a text; None if its letters do not occur in order, else higher is better."""
    query, text = query.lower().strip(), text.lower()
    if not query:
        return 0
    at = text.find(query)
    if at >= 0:
        starts_word = at == 0 or not text[at - 1].isalnum()
        return 1000 - at + (500 if starts_word else 0)
    score, position = 0, -1
    for letter in query.replace(" ", ""):
        found = text.find(letter, position + 1)
        if found < 0:
            return None
        score -= found - position - 1
        position = found
    return score


class CommandPalette(QDialog):
    """A field and a list; Enter runs the chosen entry, Escape closes."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Popup | Qt.WindowType.FramelessWindowHint)
        self.setObjectName("palette")
        self.setAccessibleName("Command palette")
        self._window = parent
        self._entries: tuple[PaletteEntry, ...] = ()
        self.search = QLineEdit(self)
        self.search.setObjectName("palette.search")
        self.search.setAccessibleName("Command")
        self.search.setPlaceholderText("Type a command or a layer")
        self.list = QListWidget(self)
        self.list.setObjectName("palette.list")
        self.list.setAccessibleName("Commands that match")
        self.list.setItemDelegate(_EntryDelegate(self.list))
        self.list.setUniformItemSizes(True)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(8)
        layout.addWidget(self.search)
        layout.addWidget(self.list)
        self.search.textChanged.connect(self._filter)
        self.search.installEventFilter(self)
        self.list.itemClicked.connect(self._run)

    def open_with(self, entries: Sequence[PaletteEntry]) -> None:
        """Show the palette over its window with these entries."""
        self._entries = tuple(entries)
        self.search.clear()
        self._filter("")
        self.setFixedSize(WIDTH, ROW_HEIGHT * ROWS_SHOWN + 66)
        corner = self._window.mapToGlobal(self._window.rect().topLeft())
        left = corner.x() + (self._window.width() - WIDTH) // 2
        self.move(left, corner.y() + max(48, self._window.height() // 8))
        self.open()
        self.search.setFocus()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Arrow keys and Enter in the field move in the list."""
        if watched is self.search and isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            steps = {
                Qt.Key.Key_Down: 1,
                Qt.Key.Key_Up: -1,
                Qt.Key.Key_PageDown: ROWS_SHOWN,
                Qt.Key.Key_PageUp: -ROWS_SHOWN,
            }
            if event.key() in steps:
                self._move(steps[Qt.Key(event.key())])
                return True
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self._run(self.list.currentItem())
                return True
        return super().eventFilter(watched, event)

    def _filter(self, query: str) -> None:
        scored = []
        for index, entry in enumerate(self._entries):
            score = match_score(query, f"{entry.text} {entry.group}")
            if score is not None:
                scored.append((not entry.is_enabled, -score, index, entry))
        scored.sort(key=lambda row: row[:3])
        self.list.clear()
        for *_, entry in scored[:200]:
            item = QListWidgetItem(entry.text)
            item.setData(_ENTRY, entry)
            item.setSizeHint(QSize(0, ROW_HEIGHT))
            if not entry.is_enabled:
                item.setFlags(Qt.ItemFlag.NoItemFlags)
            self.list.addItem(item)
        self.list.setCurrentRow(0)

    def _move(self, by: int) -> None:
        row = min(max(self.list.currentRow() + by, 0), self.list.count() - 1)
        self.list.setCurrentRow(row)

    def _run(self, item: QListWidgetItem | None) -> None:
        if item is None:
            return
        entry: PaletteEntry = item.data(_ENTRY)
        if entry.is_enabled:
            self.accept()
            entry.run()


class _EntryDelegate(QStyledItemDelegate):
    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        entry: PaletteEntry = index.data(_ENTRY)
        theme = current_theme()
        rect: QRect = option.rect
        painter.save()
        try:
            if option.state & QStyle.StateFlag.State_Selected:
                painter.setRenderHint(QPainter.RenderHint.Antialiasing)
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(QColor(theme.accent_soft))
                painter.drawRoundedRect(rect.adjusted(0, 1, 0, -1), 6, 6)
            if entry.icon:
                shown = icon_pixmap(
                    entry.icon,
                    "muted" if entry.is_enabled else "faint",
                    16,
                    painter.device().devicePixelRatioF(),
                )
                painter.drawPixmap(rect.left() + 10, rect.center().y() - 7, shown)
            left = rect.adjusted(36, 0, -10, 0)
            middle = Qt.AlignmentFlag.AlignVCenter
            painter.setPen(QColor(theme.text if entry.is_enabled else theme.faint))
            painter.drawText(left, int(middle | Qt.AlignmentFlag.AlignLeft), entry.text)
            painter.setFont(ui_font(11))
            painter.setPen(QColor(theme.muted))
            right = entry.why_not or "    ".join(part for part in (entry.group, entry.keys) if part)
            painter.drawText(left, int(middle | Qt.AlignmentFlag.AlignRight), right)
        finally:
            painter.restore()
