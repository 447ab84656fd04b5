"""One key figure as a card: icon, caption, value, change against FP32, and how the figure came about."""

from __future__ import annotations

from enum import StrEnum

from PySide6.QtCore import Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QFrame, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget
from typing_extensions import override

from quantstudio.gui.theme import icon_pixmap, theme_hub
from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.gui.widgets.tag import Tag

_ICON_PX = 20
_ICON_ROOM_PX = 206  # a narrower card gives the icon's place to the figure


class Tone(StrEnum):
    """Whether a change is welcome; the text says so too, colour only repeats it."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    NEUTRAL = "muted"


class KeyFigure(QFrame):
    """A card with one figure; the whole of it is also its accessible name."""

    def __init__(self, key: str, icon_name: str, caption: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName(f"figure.{key}")
        self.setProperty("card", True)
        self._icon_name = icon_name
        self._deltas = ("", "")
        self._icon = QLabel()
        self._icon.setFixedWidth(_ICON_PX)
        self.caption = ElidedLabel(caption)
        self.caption.setProperty("role", "caption")
        self.tag = Tag()
        self.tag.setObjectName(f"figure.{key}.tag")
        keeps_height = self.tag.sizePolicy()
        keeps_height.setRetainSizeWhenHidden(True)
        self.tag.setSizePolicy(keeps_height)
        self.value = QLabel()
        self.value.setObjectName(f"figure.{key}.value")
        self.value.setProperty("role", "kpi")
        self.delta = ElidedLabel()
        self.delta.setObjectName(f"figure.{key}.delta")
        self.delta.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.note = ElidedLabel()
        self.note.setObjectName(f"figure.{key}.note")
        self.note.setProperty("role", "caution")
        self.note.hide()
        self.more = ElidedLabel()
        self.more.setObjectName(f"figure.{key}.more")
        self.more.setProperty("role", "caption")
        self.more.hide()
        self._lay_out()
        theme_hub().theme_changed.connect(self._on_theme_changed)
        self._on_theme_changed(None)

    def _lay_out(self) -> None:
        row = QHBoxLayout(self)
        row.setContentsMargins(11, 8, 9, 8)
        row.setSpacing(10)
        row.addWidget(self._icon)
        column = QVBoxLayout()
        column.setSpacing(0)
        row.addLayout(column, 1)
        top = QHBoxLayout()
        top.setSpacing(6)
        top.addWidget(self.caption, 1)
        top.addWidget(self.tag)
        column.addLayout(top)
        self._figures = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._figures.setSpacing(6)
        self._figures.addWidget(self.value, 0, Qt.AlignmentFlag.AlignBottom)
        self._figures.addWidget(self.delta, 1, Qt.AlignmentFlag.AlignBottom)
        column.addLayout(self._figures)
        column.addWidget(self.more)
        column.addWidget(self.note)
        # Figures of a row stand on one line, whatever is below some of them.
        column.addStretch(1)
        # Cards in a row are as high as the highest of them.
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)

    def set_figure(
        self,
        value: str,
        *,
        delta: str = "",
        short_delta: str = "",
        tone: Tone = Tone.NEUTRAL,
        tag: str = "",
        detail: str = "",
        note: str = "",
        more: str = "",
    ) -> None:
        """Show a figure.

        Args:
            value: The figure with its unit.
            delta: The change against FP32, with its sign or direction in words.
            short_delta: The same for a card too narrow for it.
            tone: Whether that change is welcome.
            tag: "measured", "predicted", "out of date" or nothing.
            detail: Where the figure comes from; shown as tool tip.
            note: A caution that belongs to the figure, on a line of its own.
            more: What else there is to know of it, quietly below.
        """
        self.value.setText(value)
        self._deltas = (delta, short_delta or delta)
        if self.delta.property("role") != tone.value:
            self.delta.setProperty("role", tone.value)
            self.delta.style().unpolish(self.delta)
            self.delta.style().polish(self.delta)
        self._choose_delta()
        self.tag.set_text(tag, detail=detail)
        self.setToolTip(detail)
        self.note.setText(note)
        self.note.setVisible(bool(note))
        self.more.setText(more)
        self.more.setVisible(bool(more))
        parts = (self.caption.text(), value, delta, tag, more, note)
        self.setAccessibleName(", ".join(part for part in parts if part))
        self.setAccessibleDescription(detail)

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._icon.setVisible(event.size().width() >= _ICON_ROOM_PX)
        self._choose_delta()

    def _choose_delta(self) -> None:
        """The full wording where it fits, the short one elsewhere; below the figure rather than cut off."""
        icon = _ICON_PX + 10 if self.width() >= _ICON_ROOM_PX else 0
        self.value.ensurePolished()
        room = self.width() - 20 - icon - self.value.sizeHint().width() - 6
        full, short = self._deltas
        self.delta.ensurePolished()
        widths = [self.delta.fontMetrics().horizontalAdvance(text) + 4 for text in (full, short)]
        self.delta.setText(full if widths[0] <= room else short)
        is_beside = min(widths) <= room
        way = QBoxLayout.Direction.LeftToRight if is_beside else QBoxLayout.Direction.TopToBottom
        if self._figures.direction() != way:
            self._figures.setDirection(way)
            self._figures.setSpacing(6 if is_beside else 0)

    def _on_theme_changed(self, _theme: object) -> None:
        self._icon.setPixmap(icon_pixmap(self._icon_name, "muted", _ICON_PX, self.devicePixelRatioF()))
