"""A layer's precision as a chip that is also the drop-down to change it."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QPointF, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QFontMetrics, QPainter, QPen
from PySide6.QtWidgets import QComboBox, QStyle, QStyleOptionViewItem, QWidget
from typing_extensions import override

from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import LayerScheme
from quantstudio.gui.facts.layer_facts import stored_bits
from quantstudio.gui.features.layers.layer_table import LAYER_ROLE, PRECISIONS_ROLE, SCHEME_ROLE
from quantstudio.gui.features.layers.precision_list import fill_precisions
from quantstudio.gui.theme import CAPTION_PX, Theme, current_theme, ui_font
from quantstudio.gui.widgets.cell import CellDelegate, Index

CHIP_HEIGHT = 18
CHIP_MIN_WIDTH = 44
_SIDE = 7
_STORED_SIDE = 4
_ARROW = 12
_AROUND = 6


def stored_role(layer: LayerInfo) -> str:
    """Colour role of the chip of a layer whose weights the file holds quantized."""
    return "fp" if stored_bits(layer) >= 8 else "q"


def stored_chip_px(text: str) -> int:
    """Width of a column in which the chip of such a layer is not cut."""
    letters = QFontMetrics(ui_font(CAPTION_PX, semibold=True)).horizontalAdvance(text)
    return letters + 2 * _STORED_SIDE + 2 * _AROUND


class PrecisionCombo(QComboBox):
    """Opens its list as soon as it is shown.

    Signals:
        dismissed(): the list closed; a choice, if any, was signalled before.
    """

    dismissed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._opening = QTimer(self)
        self._opening.setSingleShot(True)
        self._opening.timeout.connect(self.showPopup)
        self._closing = QTimer(self)
        self._closing.setSingleShot(True)
        self._closing.timeout.connect(self.dismissed)
        self._opening.start(0)

    @override
    def showPopup(self) -> None:
        super().showPopup()
        self.view().window().installEventFilter(self)

    @override
    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Hide:
            # `activated` comes after this: closing at once would lose the choice.
            self._closing.start(0)
        return super().eventFilter(watched, event)


class PrecisionChipDelegate(CellDelegate):
    """Paints the chip; a click, F2 or Return opens the precisions this layer can have."""

    @override
    def paint_cell(self, painter: QPainter, rect: QRectF, option: QStyleOptionViewItem, index: Index) -> None:
        theme = current_theme()
        scheme: LayerScheme = index.data(SCHEME_ROLE)
        layer: LayerInfo = index.data(LAYER_ROLE)
        font = ui_font(CAPTION_PX, semibold=True)
        painter.setFont(font)
        text = str(index.data())
        is_editable = bool(index.flags() & Qt.ItemFlag.ItemIsEditable)
        state = option.state
        shows_arrow = is_editable and bool(
            state & (QStyle.StateFlag.State_MouseOver | QStyle.StateFlag.State_Selected)
        )
        side = _STORED_SIDE if layer.stored_as else _SIDE
        width = max(CHIP_MIN_WIDTH, QFontMetrics(font).horizontalAdvance(text) + 2 * side)
        width += _ARROW if shows_arrow else 0
        chip = QRectF(
            rect.left() + _AROUND,
            rect.center().y() - CHIP_HEIGHT / 2,
            min(width, rect.width() - 8),
            CHIP_HEIGHT,
        )
        fill, ink = chip_colours(stored_role(layer) if layer.stored_as else scheme.weights.role, theme)
        if layer.stored_as:
            # Hollow: nothing chosen here, and nothing to choose.
            painter.setPen(QPen(fill, 1))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            chip.adjust(0.5, 0.5, -0.5, -0.5)
        else:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(fill)
        painter.drawRoundedRect(chip, 5, 5)
        painter.setPen(ink)
        label = chip.adjusted(0, 0, -_ARROW if shows_arrow else 0, 0)
        room = int(label.width()) - side
        elided = QFontMetrics(font).elidedText(text, Qt.TextElideMode.ElideRight, room)
        painter.drawText(label, Qt.AlignmentFlag.AlignCenter, elided)
        if shows_arrow:
            _paint_arrow(painter, QPointF(chip.right() - _ARROW + 1, chip.center().y()), ink)

    @override
    def createEditor(self, parent: QWidget, option: QStyleOptionViewItem, index: Index) -> QWidget:
        editor = PrecisionCombo(parent)
        editor.setObjectName("editor.precision")
        editor.setAccessibleName("Precision of the selected layers")
        fill_precisions(editor, index.data(PRECISIONS_ROLE))
        editor.activated.connect(self._on_activated)
        editor.dismissed.connect(self._on_dismissed)
        return editor

    @override
    def setEditorData(self, editor: QWidget, index: Index) -> None:
        assert isinstance(editor, QComboBox)
        editor.setCurrentIndex(editor.findData(index.data(Qt.ItemDataRole.EditRole)))

    @override
    def setModelData(self, editor: QWidget, model: QObject, index: Index) -> None:
        assert isinstance(editor, QComboBox)
        if editor.currentIndex() >= 0:
            index.model().setData(index, editor.currentData(), Qt.ItemDataRole.EditRole)

    @override
    def updateEditorGeometry(self, editor: QWidget, option: QStyleOptionViewItem, index: Index) -> None:
        editor.setGeometry(option.rect.adjusted(2, 1, -2, -1))

    @override
    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(84, 28)

    @override
    def eventFilter(self, editor: QObject, event: QEvent) -> bool:
        # The base class commits when the editor loses the focus to its own list.
        if event.type() == QEvent.Type.FocusOut:
            return False
        return super().eventFilter(editor, event)

    def _on_activated(self, _index: int) -> None:
        editor = self.sender()
        assert isinstance(editor, QWidget)
        self.commitData.emit(editor)

    def _on_dismissed(self) -> None:
        editor = self.sender()
        assert isinstance(editor, QWidget)
        self.closeEditor.emit(editor)


def chip_colours(role: str, theme: Theme) -> tuple[QColor, QColor]:
    """Fill and text of a chip; text keeps a contrast of 4.5:1 on the fill."""
    colour = theme.color(role)
    fill = QColor(colour)
    fill.setAlpha(52 if theme.is_dark else 34)
    if role == "faint":
        return fill, theme.color("muted")
    return fill, colour if theme.is_dark else colour.darker(125)


def _paint_arrow(painter: QPainter, left: QPointF, ink: QColor) -> None:
    painter.setPen(QPen(ink, 1.4))
    tip = left + QPointF(3, 1.5)
    painter.drawPolyline([left + QPointF(0, -1.5), tip, left + QPointF(6, -1.5)])
