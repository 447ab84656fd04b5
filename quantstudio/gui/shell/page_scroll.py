"""A page that a small window shows part by part instead of growing beyond the screen."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QSize, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QScrollArea, QWidget
from typing_extensions import override

# Less than the plots ask for: they give way before anything scrolls.
PAGE_MINIMUM_PX = 440


class PageScroll(QScrollArea):
    """Scrolls a page that needs more than there is. Emits `needs_changed` when it needs another width."""

    needs_changed = Signal()

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setObjectName(f"scroll.{name}")
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setWidgetResizable(True)
        self.viewport().setAutoFillBackground(False)
        self._needed = 0
        self._holder = _Holder()
        self.setWidget(self._holder)
        self._holder.setAutoFillBackground(False)

    def hold(self, page: QWidget) -> None:
        """Show a page; last, when all around it is in place: each new parent styles it all over again."""
        self._holder.hold(page)
        self._needed = self._holder.minimumSizeHint().width()
        self._holder.asked_anew.connect(self._on_asked_anew)

    def _on_asked_anew(self) -> None:
        needed = self._holder.minimumSizeHint().width()
        if needed != self._needed:
            self._needed = needed
            self.needs_changed.emit()


class _Holder(QWidget):
    """Asks for the width of its page and little height: a layout would ask for all that wrapped texts like.

    Emits `asked_anew` when the page's own layout changed.
    """

    asked_anew = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._page: QWidget | None = None

    def hold(self, page: QWidget) -> None:
        self._page = page
        page.setParent(self)
        page.resize(self.size())
        page.installEventFilter(self)
        page.show()
        self.updateGeometry()

    @override
    def minimumSizeHint(self) -> QSize:
        if self._page is None:
            return QSize(0, PAGE_MINIMUM_PX)
        hint, least = self._page.minimumSizeHint(), self._page.minimumSize()
        return QSize(least.width() or hint.width(), PAGE_MINIMUM_PX)

    @override
    def sizeHint(self) -> QSize:
        least = self.minimumSizeHint()
        return least if self._page is None else self._page.sizeHint().expandedTo(least)

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if self._page is not None:
            self._page.resize(event.size())

    @override
    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
            self.asked_anew.emit()
        return super().eventFilter(watched, event)
