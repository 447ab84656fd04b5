"""A histogram as small as a table cell."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QObject, QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen, QPixmap, QPolygonF
from PySide6.QtWidgets import QStyleOptionViewItem
from typing_extensions import override

from quantstudio.core.figures import NOTHING
from quantstudio.gui.features.layers.layer_table import LAYER_ROLE, SPARK_ROLE
from quantstudio.gui.theme import Theme, current_theme
from quantstudio.gui.widgets.cell import PADDING, CellDelegate, Index

_KEPT = 2048
_Key = tuple[str, str, int, int, float]


class SparklineDelegate(CellDelegate):
    """Draws `SPARK_ROLE`; images are kept by layer, theme, size and device pixel ratio."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._images: OrderedDict[_Key, tuple[NDArray[np.float64], QPixmap]] = OrderedDict()

    @property
    def kept(self) -> int:
        """Images in the cache."""
        return len(self._images)

    @override
    def paint_cell(self, painter: QPainter, rect: QRectF, option: QStyleOptionViewItem, index: Index) -> None:
        theme = current_theme()
        heights = index.data(SPARK_ROLE)
        if heights is None:
            painter.setPen(theme.color("faint"))
            painter.drawText(rect.adjusted(PADDING, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, NOTHING)
            return
        box = rect.adjusted(PADDING, 4, -PADDING, -4)
        ratio = painter.device().devicePixelRatioF()
        key = (index.data(LAYER_ROLE).name, theme.name, int(box.width()), int(box.height()), ratio)
        painter.drawPixmap(box.topLeft(), self._image(key, heights, theme))

    def _image(self, key: _Key, heights: NDArray[np.float64], theme: Theme) -> QPixmap:
        found = self._images.get(key)
        if found is not None and found[0] is heights:
            self._images.move_to_end(key)
            return found[1]
        _, _, width, height, ratio = key
        image = draw_sparkline(heights, max(width, 1), max(height, 1), ratio, theme)
        self._images[key] = (heights, image)
        if len(self._images) > _KEPT:
            self._images.popitem(last=False)
        return image


def draw_sparkline(
    heights: NDArray[np.float64], width: int, height: int, ratio: float, theme: Theme
) -> QPixmap:
    """Heights from 0 to 1 as a filled line, `width` by `height` device-independent pixels."""
    image = QPixmap(round(width * ratio), round(height * ratio))
    image.setDevicePixelRatio(ratio)
    image.fill(Qt.GlobalColor.transparent)
    painter = QPainter(image)
    try:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        xs = (np.arange(len(heights)) + 0.5) / len(heights) * width
        ys = (height - 1) - heights * (height - 2)
        line = [QPointF(x, y) for x, y in zip(xs.tolist(), ys.tolist(), strict=True)]
        fill = QColor(theme.fp)
        fill.setAlpha(70 if theme.is_dark else 60)
        # One rectangle a pixel column: an antialiased polygon takes thirty times as long.
        pixel = 1 / ratio
        columns = np.arange(round(width * ratio)) * pixel
        tops = np.interp(columns + pixel / 2, xs, ys).tolist()
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(fill)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        painter.drawRects(
            [QRectF(x, y, pixel, height - y) for x, y in zip(columns.tolist(), tops, strict=True)]
        )
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(QColor(theme.fp), 1.2))
        painter.drawPolyline(QPolygonF(line))
    finally:
        painter.end()
    return image
