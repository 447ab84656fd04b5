"""A label that never asks for room: text that does not fit ends in an ellipsis and shows in a tooltip."""

from __future__ import annotations

from PySide6.QtCore import QRect, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QLabel, QSizePolicy, QWidget
from typing_extensions import override

_MIN_LETTERS = 5


class ElidedLabel(QLabel):
    """One line of text, elided to the width the layout gives it."""

    def __init__(
        self,
        text: str = "",
        parent: QWidget | None = None,
        *,
        mode: Qt.TextElideMode = Qt.TextElideMode.ElideRight,
    ) -> None:
        super().__init__(text, parent)
        self._mode = mode
        self._shorter: tuple[str, ...] = ()
        self._detail = ""
        self.setTextFormat(Qt.TextFormat.PlainText)
        # A subtitle with a minimum width of its own would hold the whole dock open.
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)

    @property
    def is_elided(self) -> bool:
        """Whether part of the text is hidden."""
        return self._shown() != self.text()

    def _shown(self) -> str:
        metrics, room = self.fontMetrics(), self.contentsRect().width()
        wordings = (self.text(), *self._shorter)
        fitting = next((w for w in wordings if metrics.horizontalAdvance(w) <= room), wordings[-1])
        shown = metrics.elidedText(fitting, self._mode, room)
        # A stump of two or three letters tells nothing; the tooltip has the whole.
        return shown if shown == fitting or len(shown) > _MIN_LETTERS else ""

    @override
    def setText(self, text: str) -> None:
        self.set_wordings(text)

    def set_wordings(self, text: str, *shorter: str) -> None:
        """Show the longest wording that fits, the last elided; an empty last one hides what does not fit."""
        if (text, shorter) != (self.text(), self._shorter):
            self._shorter = shorter
            super().setText(text)
            self._update_tooltip()
            self.update()

    def set_detail(self, text: str) -> None:
        """What the tooltip says besides, whether the text fits or not."""
        if text != self._detail:
            self._detail = text
            self.setAccessibleDescription(text.replace("\n", "; "))
            self._update_tooltip()

    @override
    def minimumSizeHint(self) -> QSize:
        return QSize(0, super().minimumSizeHint().height())

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._update_tooltip()

    @override
    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        rect: QRect = self.contentsRect()
        self.style().drawItemText(
            painter,
            rect,
            int(self.alignment()),
            self.palette(),
            self.isEnabled(),
            self._shown(),
            self.foregroundRole(),
        )
        painter.end()

    def _update_tooltip(self) -> None:
        parts = (self.text() if self.is_elided else "", self._detail)
        self.setToolTip("\n".join(part for part in parts if part))
