"""The list a precision is chosen from: grouped by bits, in columns."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRect, QSize, Qt
from PySide6.QtGui import QColor, QFontMetrics, QPainter, QStandardItemModel
from PySide6.QtWidgets import QComboBox, QStyle, QStyledItemDelegate, QStyleOptionViewItem
from typing_extensions import override

from quantstudio.core.figures import counted
from quantstudio.gui.facts.precision_facts import COLUMNS, PrecisionLine
from quantstudio.gui.theme import CAPTION_PX, current_theme, ui_font
from quantstudio.gui.widgets.cell import Index

LINE_ROLE = Qt.ItemDataRole.UserRole + 1
_ROW_PX, _HEAD_PX, _SIDE, _GAP = 26, 24, 10, 14
_LEAST_TEXT_PX = 200
_NUMBER_PX = (72, 66, 66)
MOST_ROWS = 26


class PrecisionListDelegate(QStyledItemDelegate):
    """Draws titles of groups, and of each precision its words, bytes, loss and how it runs."""

    @override
    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        theme = current_theme()
        line = index.data(LINE_ROLE)
        painter.save()
        try:
            place = option.rect
            is_chosen = bool(option.state & QStyle.StateFlag.State_Selected)
            if is_chosen and line is not None:
                painter.fillRect(place, QColor(theme.accent_soft))
            if line is None:
                self._head(painter, place, str(index.data() or ""), is_first=index.row() == 0)
                return
            colours = (
                theme.text,
                theme.text,
                theme.text,
                theme.ok if line.runs == "integer" else theme.muted,
            )
            for cell, words, colour in zip(
                columns(place), (line.text, line.size, line.loss, line.runs), colours, strict=True
            ):
                self._draw(painter, cell, words, colour, is_left=cell.left() == place.left() + _SIDE)
        finally:
            painter.restore()

    @override
    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        line = index.data(LINE_ROLE)
        if line is None:
            return QSize(0, _HEAD_PX)
        return QSize(0, _ROW_PX)

    def _head(self, painter: QPainter, place: QRect, text: str, *, is_first: bool) -> None:
        theme = current_theme()
        if not is_first:
            painter.setPen(QColor(theme.border))
            painter.drawLine(place.left() + _SIDE, place.top() + 2, place.right() - _SIDE, place.top() + 2)
        # With every group: the list is longer than a screen, and the first title scrolls away.
        for cell, one in zip(columns(place), (text, *COLUMNS[1:]), strict=True):
            is_left = cell.left() == place.left() + _SIDE
            painter.setFont(ui_font(CAPTION_PX, semibold=is_left))
            self._draw(painter, cell, one, theme.text if is_left else theme.muted, is_left=is_left)

    @staticmethod
    def _draw(painter: QPainter, place: QRect, text: str, colour: str, *, is_left: bool) -> None:
        painter.setPen(QColor(colour))
        side = Qt.AlignmentFlag.AlignLeft if is_left else Qt.AlignmentFlag.AlignRight
        shown = painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, place.width())
        painter.drawText(place, side | Qt.AlignmentFlag.AlignVCenter, shown)


def columns(place: QRect) -> list[QRect]:
    """Where each column of a row is."""
    right = place.right() - _SIDE
    found: list[QRect] = []
    for width in reversed(_NUMBER_PX):
        found.insert(0, QRect(right - width, place.top(), width, place.height()))
        right -= width + _GAP
    return [QRect(place.left() + _SIDE, place.top(), right - place.left() - _SIDE, place.height()), *found]


def fill_precisions(combo: QComboBox, lines: Sequence[PrecisionLine]) -> None:
    """Put precisions into a drop-down, a title that cannot be chosen above each width."""
    model = combo.model()
    assert isinstance(model, QStandardItemModel)
    combo.setItemDelegate(PrecisionListDelegate(combo))
    bits = 0
    for line in lines:
        if line.bits != bits:
            bits = line.bits
            combo.addItem(counted(bits, "bit"))
            head = model.item(combo.count() - 1)
            head.setFlags(Qt.ItemFlag.NoItemFlags)
        combo.addItem(line.text, line.name)
        item = combo.count() - 1
        combo.setItemData(item, line, LINE_ROLE)
        combo.setItemData(item, line.spoken, Qt.ItemDataRole.AccessibleTextRole)
        combo.setItemData(item, line.tip, Qt.ItemDataRole.ToolTipRole)
    metrics = QFontMetrics(combo.font())
    words = max((metrics.horizontalAdvance(line.text) for line in lines), default=0)
    width = max(words, _LEAST_TEXT_PX) + sum(_NUMBER_PX) + len(_NUMBER_PX) * _GAP + 2 * _SIDE
    combo.setMaxVisibleItems(min(combo.count(), MOST_ROWS))
    combo.view().setMinimumWidth(width + 24)
