"""The steps as a row of blocks one drags, and behind them what is quantized in the end."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QAbstractItemView, QListView, QWidget
from typing_extensions import override

from quantstudio.gui.features.improve.step_delegate import (
    ARROW_PX,
    HEIGHT_PX,
    MAX_WIDTH_PX,
    MIN_WIDTH_PX,
    StepDelegate,
    draw_bar,
)
from quantstudio.gui.theme import current_theme, theme_hub, ui_font
from quantstudio.gui.widgets.card import FocusEdge
from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.gui.widgets.reorder_list import ReorderList

_SCROLL_PX = 12
END_WIDTH_PX = 168


class StepStrip(ReorderList):
    """Blocks from left to right, as wide as there is room for.

    Signals:
        moved(int): the chosen block goes so many places on: Alt and an arrow key.
        removed(): Delete was pressed.
    """

    moved = Signal(int)
    removed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.blocks = StepDelegate(self)
        self.setItemDelegate(self.blocks)
        self.setFlow(QListView.Flow.LeftToRight)
        self.setWrapping(False)
        self.setMouseTracking(True)
        FocusEdge(self)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFixedHeight(HEIGHT_PX + 2 + _SCROLL_PX)
        self.setMinimumWidth(MIN_WIDTH_PX)
        self.setFrameShape(QListView.Shape.NoFrame)

    def fit(self, room: int) -> None:
        """Take the room the blocks need of what there is."""
        count = max(1, self.count())
        # A pixel more than the view has and it scrolls.
        width = min(max((room - 2) // count - ARROW_PX, MIN_WIDTH_PX), MAX_WIDTH_PX) + ARROW_PX
        if width != self.blocks.width:
            self.blocks.width = width
            self.scheduleDelayedItemsLayout()
        self.setMaximumWidth(max(MIN_WIDTH_PX, min(room, count * width)))

    @override
    def keyPressEvent(self, event: QKeyEvent) -> None:
        is_alt = bool(event.modifiers() & Qt.KeyboardModifier.AltModifier)
        step = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}.get(Qt.Key(event.key()))
        if is_alt and step is not None:
            self.moved.emit(step)
        elif event.key() == Qt.Key.Key_Delete:
            self.removed.emit()
        else:
            super().keyPressEvent(event)


class EndBlock(QWidget):
    """What comes behind the steps: the network is quantized by the plan; no step, and not to be moved."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("steps.end")
        self.setFixedSize(END_WIDTH_PX, HEIGHT_PX + 2)
        self._progress: float | None = None
        self.title = ElidedLabel("Quantize", self)
        self.title.setFont(ui_font(13, semibold=True))
        self.title.setGeometry(12, 9, END_WIDTH_PX - 24, 20)
        self.text = ElidedLabel("", self)
        self.text.setProperty("role", "caption")
        self.text.setGeometry(12, 30, END_WIDTH_PX - 24, 18)
        self.gain = ElidedLabel("", self)
        self.gain.setProperty("role", "caption")
        self.gain.setGeometry(12, 51, END_WIDTH_PX - 24, 18)
        theme_hub().theme_changed.connect(self.update)

    def show_plan(self, contents: str, result: str, progress: float | None) -> None:
        """Say what the plan holds, and what came of it."""
        self.text.setText(contents)
        self.gain.setText(result)
        self.gain.setVisible(progress is None)
        self._progress = progress
        self.setAccessibleName(f"Quantize: {contents}")
        self.setAccessibleDescription(result)
        self.update()

    @override
    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        pen = QPen(theme.color("border"), 1, Qt.PenStyle.DashLine)
        painter.setPen(pen)
        painter.setBrush(theme.color("alt"))
        frame = self.rect().toRectF().adjusted(0.75, 1.75, -0.75, -1.75)
        painter.drawRoundedRect(frame, 7, 7)
        if self._progress is not None:
            bar = frame.adjusted(12, 56, -12, 0)
            bar.setHeight(4)
            draw_bar(painter, bar, theme, self._progress)
        painter.end()
