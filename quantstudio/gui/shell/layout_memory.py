"""Remembers how the user arranged the window: size and state, docks, splitters, columns, orders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Protocol, TypeGuard, TypeVar

from PySide6.QtCore import QByteArray, Qt
from PySide6.QtWidgets import QHeaderView, QMainWindow, QSplitter, QWidget

from quantstudio.gui.shell.settings import Settings

W = TypeVar("W", bound=QWidget)

FIRST_WIDTH_PX, FIRST_HEIGHT_PX = 1600, 1000
# What a title bar and a border may take of a screen; how much they do is known only once the window is there.
FRAME_PX = 40
NARROWEST_PX = 24


class Rememberable(Protocol):
    """A widget that has something of its own to remember."""

    def layout_state(self) -> str:
        """What the user chose, as text; empty where nothing."""

    def restore_layout_state(self, text: str) -> None:
        """Go back to what was chosen; text of another version is ignored."""


class LayoutMemory:
    """Puts back what was kept, and keeps what is there.

    Args:
        window: The window.
        settings: Where it is kept.
        docks: What knows of the panels beside the pages.
    """

    def __init__(self, window: QMainWindow, settings: Settings, docks: Rememberable) -> None:
        self._window = window
        self._docks = docks
        self._settings = settings

    def restore_window(self) -> None:
        """Size, place, maximised or full screen, docks; the first time a size that fits the screen."""
        window = self._window
        geometry = self._settings.layout("geometry")
        if geometry.isEmpty() or not window.restoreGeometry(geometry):
            self._fit()
        self._docks.restore_layout_state(_text(self._settings.layout("docks")))

    def restore(self, widget: QWidget) -> None:
        """Splitters, columns and choices inside a part of the window that was just made."""
        for name, splitter in _named(widget, QSplitter):
            state = self._settings.layout(f"splitter.{name}")
            if not state.isEmpty():
                splitter.restoreState(state)
        for name, header in _named(widget, QHeaderView):
            _widen(header, _text(self._settings.layout(f"columns.{name}")))
            _sort(header, _text(self._settings.layout(f"sort.{name}")))
        for name, one in _named(widget, QWidget):
            if _remembers(one):
                one.restore_layout_state(_text(self._settings.layout(f"choice.{name}")))

    def save(self) -> None:
        """Keep everything as it is now."""
        keep = self._settings.save_layout
        keep("geometry", self._window.saveGeometry())
        keep("docks", _bytes(self._docks.layout_state()))
        for name, splitter in _named(self._window, QSplitter):
            keep(f"splitter.{name}", splitter.saveState())
        for name, header in _named(self._window, QHeaderView):
            if widths := _widths(header):
                keep(f"columns.{name}", _bytes(json.dumps(widths)))
            if header.isSortIndicatorShown():
                keep(f"sort.{name}", _bytes(_sorting(header)))
        for name, one in _named(self._window, QWidget):
            if _remembers(one):
                keep(f"choice.{name}", _bytes(one.layout_state()))

    def _fit(self) -> None:
        """As large as is comfortable and the screen has room for, with a frame around it."""
        screen = self._window.screen().availableGeometry()
        width, height = screen.width() - FRAME_PX, screen.height() - FRAME_PX
        self._window.resize(min(FIRST_WIDTH_PX, width), min(FIRST_HEIGHT_PX, height))


def _named(widget: QWidget, kind: type[W]) -> Iterator[tuple[str, W]]:
    for child in (widget, *widget.findChildren(kind)):
        if isinstance(child, kind) and child.objectName():
            yield child.objectName(), child


def _remembers(widget: object) -> TypeGuard[Rememberable]:
    """One look at the class: asking the protocol costs fifty times that for each of hundreds of widgets."""
    return hasattr(type(widget), "restore_layout_state")


def _widths(header: QHeaderView) -> dict[str, int]:
    """Widths of the columns that can be dragged, by number."""
    return {
        str(i): header.sectionSize(i)
        for i in range(header.count())
        if header.sectionResizeMode(i) is QHeaderView.ResizeMode.Interactive and not header.isSectionHidden(i)
    }


def _widen(header: QHeaderView, text: str) -> None:
    try:
        widths = json.loads(text) if text else {}
    except ValueError:
        return
    for i in range(header.count()):
        width = widths.get(str(i)) if isinstance(widths, dict) else None
        if isinstance(width, int) and width >= NARROWEST_PX:
            header.resizeSection(i, width)


def _sorting(header: QHeaderView) -> str:
    """Number of the column that rows are in order of, and which way: "2 descending"."""
    way = "descending" if header.sortIndicatorOrder() is Qt.SortOrder.DescendingOrder else "ascending"
    return f"{header.sortIndicatorSection()} {way}"


def _sort(header: QHeaderView, text: str) -> None:
    column, _, way = text.partition(" ")
    if header.isSortIndicatorShown() and column.isdecimal() and int(column) < header.count():
        is_down = way == "descending"
        header.setSortIndicator(
            int(column), Qt.SortOrder.DescendingOrder if is_down else Qt.SortOrder.AscendingOrder
        )


def _text(state: QByteArray) -> str:
    return bytes(state.data()).decode("utf-8", errors="replace")


def _bytes(text: str) -> QByteArray:
    return QByteArray(text.encode())
