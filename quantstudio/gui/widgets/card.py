"""The white card every part of the window stands on: title, quiet subtitle, controls, content."""

from __future__ import annotations

from itertools import pairwise

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QFocusEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QVBoxLayout, QWidget
from typing_extensions import override

from quantstudio.gui.widgets.elided_label import ElidedLabel

MARGINS = (14, 10, 14, 10)
GAP = 8
_BY_KEY = (
    Qt.FocusReason.TabFocusReason,
    Qt.FocusReason.BacktabFocusReason,
    Qt.FocusReason.ShortcutFocusReason,
)
# The window, or a menu over it, took the focus and gives it back: nobody went anywhere.
_AWAY = (Qt.FocusReason.ActiveWindowFocusReason, Qt.FocusReason.PopupFocusReason)


class Card(QFrame):
    """A rounded frame with a header row; content goes below it with `add`."""

    def __init__(self, title: str = "", subtitle: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty("card", True)
        self._is_title_replaced = False
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(*MARGINS)
        self.body.setSpacing(4)
        self.header = QHBoxLayout()
        self.header.setSpacing(GAP)
        self.body.addLayout(self.header)
        self.title = QLabel(title)
        self.title.setObjectName("card.title")
        self.title.setProperty("role", "title")
        self.subtitle = ElidedLabel(subtitle)
        self.subtitle.setObjectName("card.subtitle")
        self.subtitle.setProperty("role", "caption")
        self.title.setVisible(bool(title))
        self.header.addWidget(self.title)
        self.header.addWidget(self.subtitle, 1)
        self.setAccessibleName(title)

    def set_title(self, title: str) -> None:
        """Show another title, which is also the card's accessible name."""
        if title != self.accessibleName():
            self.title.setText(title)
            self.setAccessibleName(title)
            self.title.setVisible(bool(title) and not self._is_title_replaced)

    def replace_title(self, widget: QWidget) -> None:
        """Put a control where the title stands; the title stays the card's accessible name."""
        self._is_title_replaced = True
        self.title.hide()
        self.header.insertWidget(0, widget)
        self._tab_through_header()

    def show_title(self, *, is_shown: bool) -> None:
        """Show the title, or leave its place to the control that replaces it."""
        self._is_title_replaced = not is_shown
        self.title.setVisible(is_shown and bool(self.title.text()))

    def add_to_header(self, *widgets: QWidget) -> None:
        """Put controls at the right end of the header."""
        for widget in widgets:
            self.header.addWidget(widget, 0, Qt.AlignmentFlag.AlignVCenter)
        self._tab_through_header()

    def add(self, widget: QWidget, stretch: int = 1) -> None:
        """Put content below what is already there."""
        self.body.addWidget(widget, stretch)

    def _tab_through_header(self) -> None:
        """Tab visits the header from left to right and then what is below, whatever was made first."""
        widgets = [item.widget() for i in range(self.header.count()) if (item := self.header.itemAt(i))]
        stops = [stop for widget in widgets if widget is not None for stop in _tab_stops(widget)]
        below = [stop for stop in _tab_stops(self) if stop not in stops]
        for before, after in pairwise([*stops, *below]):
            QWidget.setTabOrder(before, after)


def _tab_stops(widget: QWidget) -> list[QWidget]:
    """Those in its own window: the list of a combo box is a window that Tab never enters."""
    return [
        stop
        for stop in (widget, *widget.findChildren(QWidget))
        if stop.focusPolicy() & Qt.FocusPolicy.TabFocus and stop.window() is widget.window()
    ]


def show_focus(widget: QWidget, event: QFocusEvent) -> None:
    """Whoever comes by the keyboard sees at the card's edge which of its plots or tables takes the keys."""
    if event.reason() in _AWAY:
        return
    card: QWidget | None = widget
    while card is not None and not card.property("card"):
        card = card.parentWidget()
    is_by_key = event.gotFocus() and event.reason() in _BY_KEY
    if card is not None and bool(card.property("focused")) != is_by_key:
        card.setProperty("focused", is_by_key)
        card.style().unpolish(card)
        card.style().polish(card)


class FocusEdge(QObject):
    """Shows at the edge of a view's card that the view has the keys; it lives as long as the view."""

    def __init__(self, view: QWidget) -> None:
        super().__init__(view)
        self._view = view
        view.installEventFilter(self)

    @override
    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self._view and isinstance(event, QFocusEvent):
            show_focus(self._view, event)
        return super().eventFilter(watched, event)
