"""A row of the list of steps: the name in bold, and below it what the step did or is going to do."""

from __future__ import annotations

from PySide6.QtCore import QRect, QSize, Qt
from PySide6.QtGui import QFont, QFontMetrics, QPainter
from PySide6.QtWidgets import QApplication, QStyle, QStyledItemDelegate, QStyleOptionViewItem
from typing_extensions import override

from quantstudio.gui.theme import current_theme
from quantstudio.gui.widgets.cell import Index

_PADDING = 6
# Qt's place for the colour of the second line: a name of the theme.
COLOUR_ROLE = Qt.ItemDataRole.UserRole + 1


class StepDelegate(QStyledItemDelegate):
    """Draws the two lines of an item's text apart; the check box and the background are the style's."""

    @override
    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        own = QStyleOptionViewItem(option)
        self.initStyleOption(own, index)
        title, _, text = str(index.data()).partition("\n")
        style = own.widget.style() if own.widget is not None else QApplication.style()
        place = style.subElementRect(QStyle.SubElement.SE_ItemViewItemText, own, own.widget)
        own.text = ""
        style.drawControl(QStyle.ControlElement.CE_ItemViewItem, own, painter, own.widget)
        theme = current_theme()
        painter.save()
        try:
            bold = QFont(own.font)
            bold.setBold(True)
            is_on = index.data(Qt.ItemDataRole.CheckStateRole) == Qt.CheckState.Checked.value
            height = QFontMetrics(bold).height()
            top = place.center().y() - height
            first = QRect(place.left() + _PADDING, top, place.width() - 2 * _PADDING, height)
            painter.setFont(bold)
            painter.setPen(theme.color("text" if is_on else "faint"))
            self._draw(painter, first, title)
            painter.setFont(own.font)
            painter.setPen(theme.color(str(index.data(COLOUR_ROLE) or "muted")))
            self._draw(painter, first.translated(0, height + 2), text)
        finally:
            painter.restore()

    @override
    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        own = QStyleOptionViewItem(option)
        self.initStyleOption(own, index)
        return QSize(0, 2 * QFontMetrics(own.font).height() + 2 + 2 * _PADDING)

    @staticmethod
    def _draw(painter: QPainter, place: QRect, text: str) -> None:
        shown = painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, place.width())
        painter.drawText(place, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, shown)
