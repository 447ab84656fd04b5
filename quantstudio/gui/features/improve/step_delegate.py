"""A step as a block: its name with a switch, how it is set or what it did, what it gained, how far it is."""

from __future__ import annotations

from PySide6.QtCore import QAbstractItemModel, QEvent, QPointF, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetrics, QMouseEvent, QPainter, QPen
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem
from typing_extensions import override

from quantstudio.gui.theme import Theme, current_theme, ui_font
from quantstudio.gui.widgets.cell import Index

# Colour of the second line: a name of the theme.
COLOUR_ROLE = Qt.ItemDataRole.UserRole + 1
# Third line, and the name of its colour.
GAIN_ROLE = Qt.ItemDataRole.UserRole + 2
GAIN_COLOUR_ROLE = Qt.ItemDataRole.UserRole + 3
# How far the step is, 0 to 1, or below 0 while nobody knows; None while it does not run.
PROGRESS_ROLE = Qt.ItemDataRole.UserRole + 4

HEIGHT_PX = 78
ARROW_PX = 24
MIN_WIDTH_PX, MAX_WIDTH_PX = 184, 264
_PADDING, _GRIP_PX, _RADIUS = 10, 12, 7
_SWITCH = QSize(28, 16)
_BAR_PX = 4
_SMALL_PX = 11


class StepDelegate(QStyledItemDelegate):
    """Draws blocks with an arrow to the next; a click on the switch checks the item, as Space does.

    Attributes:
        width: Of a block with its arrow.
    """

    width = MAX_WIDTH_PX + ARROW_PX

    @override
    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        theme = current_theme()
        own = QStyleOptionViewItem(option)
        self.initStyleOption(own, index)
        title, _, text = str(index.data()).partition("\n")
        is_on = Qt.CheckState(index.data(Qt.ItemDataRole.CheckStateRole)) is Qt.CheckState.Checked
        place = block_place(own.rect)
        painter.save()
        try:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            self._draw_frame(painter, place, theme, own, is_on=is_on)
            self._draw_grip(painter, place, theme)
            draw_switch(painter, switch_place(place), theme, is_on=is_on)
            self._draw_words(painter, place, theme, index, (title, text), is_on=is_on)
            draw_arrow(painter, own.rect, theme)
        finally:
            painter.restore()

    @override
    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(self.width, HEIGHT_PX + 2)

    @override
    def editorEvent(
        self, event: QEvent, model: QAbstractItemModel, option: QStyleOptionViewItem, index: Index
    ) -> bool:
        if not isinstance(event, QMouseEvent):
            return super().editorEvent(event, model, option, index)
        is_on_switch = switch_place(block_place(option.rect)).contains(event.position().toPoint())
        if event.type() == QEvent.Type.MouseButtonRelease and is_on_switch:
            is_on = Qt.CheckState(index.data(Qt.ItemDataRole.CheckStateRole)) is Qt.CheckState.Checked
            state = Qt.CheckState.Unchecked if is_on else Qt.CheckState.Checked
            return model.setData(index, state, Qt.ItemDataRole.CheckStateRole)
        # A double click on the switch is two clicks on it, and opens nothing.
        return is_on_switch and event.type() == QEvent.Type.MouseButtonDblClick

    @staticmethod
    def _draw_frame(
        painter: QPainter, place: QRect, theme: Theme, option: QStyleOptionViewItem, *, is_on: bool
    ) -> None:
        is_selected = bool(option.state & QStyle.StateFlag.State_Selected)
        is_under = bool(option.state & QStyle.StateFlag.State_MouseOver)
        fill = theme.surface if is_on else theme.alt
        if is_under:
            fill = theme.hover
        painter.setPen(QPen(QColor(theme.accent if is_selected else theme.border), 1.5 if is_selected else 1))
        painter.setBrush(QColor(fill))
        painter.drawRoundedRect(QRectF(place).adjusted(0.75, 0.75, -0.75, -0.75), _RADIUS, _RADIUS)

    @staticmethod
    def _draw_grip(painter: QPainter, place: QRect, theme: Theme) -> None:
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(theme.faint))
        for row in range(3):
            for column in range(2):
                at = QPointF(place.left() + 8 + column * 5, place.center().y() - 5 + row * 6)
                painter.drawEllipse(at, 1.2, 1.2)

    def _draw_words(
        self,
        painter: QPainter,
        place: QRect,
        theme: Theme,
        index: Index,
        words: tuple[str, str],
        *,
        is_on: bool,
    ) -> None:
        left, width = place.left() + _PADDING + _GRIP_PX, place.width() - 2 * _PADDING - _GRIP_PX
        title_room = width - _SWITCH.width() - 6
        bold, small = ui_font(13, semibold=True), ui_font(_SMALL_PX)
        self._draw(painter, QRect(left, place.top() + 8, title_room, 20), words[0], bold,
                   theme.color("text" if is_on else "faint"))  # fmt: skip
        self._draw(painter, QRect(left, place.top() + 29, width, 18), words[1], small,
                   theme.color(str(index.data(COLOUR_ROLE) or "muted")))  # fmt: skip
        progress = index.data(PROGRESS_ROLE)
        gain = str(index.data(GAIN_ROLE) or "")
        gain_font = ui_font(_SMALL_PX, semibold=True)
        line = QRect(left, place.top() + 50, width, 18)
        colour = theme.color(str(index.data(GAIN_COLOUR_ROLE) or "muted"))
        if progress is None:
            self._draw(painter, line, gain, gain_font, colour)
            return
        word_width = min(QFontMetrics(gain_font).horizontalAdvance(gain) + 8, width // 2)
        self._draw(painter, QRect(left, line.top(), word_width, 18), gain, gain_font, colour)
        bar = QRectF(left + word_width, line.center().y() - _BAR_PX / 2, width - word_width, _BAR_PX)
        draw_bar(painter, bar, theme, float(progress))

    @staticmethod
    def _draw(painter: QPainter, place: QRect, text: str, font: QFont, colour: QColor) -> None:
        painter.setFont(font)
        painter.setPen(colour)
        shown = QFontMetrics(font).elidedText(text, Qt.TextElideMode.ElideRight, place.width())
        painter.drawText(place, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, shown)


def block_place(cell: QRect) -> QRect:
    """Where the block is within its cell: left of its arrow."""
    return QRect(cell.left(), cell.top() + 1, cell.width() - ARROW_PX, HEIGHT_PX)


def switch_place(block: QRect) -> QRect:
    """Where the switch is within a block."""
    return QRect(
        block.right() - _PADDING - _SWITCH.width(), block.top() + 10, _SWITCH.width(), _SWITCH.height()
    )


def draw_switch(painter: QPainter, place: QRect, theme: Theme, *, is_on: bool) -> None:
    """A switch, its knob right where it is on."""
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(theme.accent if is_on else theme.faint))
    radius = place.height() / 2
    painter.drawRoundedRect(QRectF(place), radius, radius)
    painter.setBrush(QColor(theme.on_accent if is_on else theme.surface))
    x = place.right() - radius + 1 if is_on else place.left() + radius
    painter.drawEllipse(QPointF(x, place.top() + radius), radius - 2.5, radius - 2.5)


def draw_bar(painter: QPainter, place: QRectF, theme: Theme, progress: float) -> None:
    """A bar that is full by that part, or all of it pale while nobody knows."""
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(theme.grid if progress >= 0 else theme.accent_soft))
    painter.drawRoundedRect(place, _BAR_PX / 2, _BAR_PX / 2)
    if progress > 0:
        painter.setBrush(QColor(theme.accent))
        done = QRectF(place)
        done.setWidth(max(_BAR_PX, place.width() * min(progress, 1.0)))
        painter.drawRoundedRect(done, _BAR_PX / 2, _BAR_PX / 2)


def draw_arrow(painter: QPainter, cell: QRect, theme: Theme) -> None:
    """From a block to what comes behind it."""
    painter.setPen(QPen(QColor(theme.faint), 1.3))
    y = cell.top() + 1 + HEIGHT_PX / 2
    end = QPointF(cell.right() - 3, y)
    painter.drawLine(QPointF(cell.right() - ARROW_PX + 5, y), end)
    for rise in (-3.5, 3.5):
        painter.drawLine(end, QPointF(end.x() - 4, y + rise))
