"""A plot as a file: SVG with text as text, or PNG at twice the screen's resolution."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyqtgraph as pg
from PySide6.QtCore import QBuffer, QByteArray, QIODevice, QPointF, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QImage, QImageWriter, QPainter
from PySide6.QtSvg import QSvgGenerator

from quantstudio.core.files import write_bytes, write_text
from quantstudio.gui.theme import CAPTION_PX, Theme, ui_font

PNG_SCALE = 2
HEADER_PX = 34
_MARGIN = 12


@dataclass(frozen=True, slots=True)
class PlotImage:
    """What goes into the file.

    Attributes:
        view: The plot's graphics view.
        title: Heading.
        subtitle: Beside the heading.
        legend: Pairs (name, colour).
        summary: The plot in words, for who cannot see it.
        theme: Colours of paper and text.
    """

    view: pg.GraphicsView
    title: str
    subtitle: str
    legend: tuple[tuple[str, str], ...]
    summary: str
    theme: Theme

    @property
    def size(self) -> QSize:
        """Size in device-independent pixels."""
        return QSize(self.view.width() + 2 * _MARGIN, self.view.height() + HEADER_PX + _MARGIN)


def save_image(image: PlotImage, path: Path) -> None:
    """Write SVG or PNG, as the file's ending says.

    Raises:
        OutputError: the file cannot be written; an old one is then untouched.
    """
    write_bytes(path, svg_of(image) if path.suffix.lower() == ".svg" else png_of(image))


def save_table(rows: Sequence[Sequence[str]], path: Path) -> None:
    """Write figures as CSV, one line per row.

    Raises:
        OutputError: the file cannot be written; an old one is then untouched.
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    write_text(path, buffer.getvalue())


def svg_of(image: PlotImage) -> bytes:
    """The plot as SVG.

    The generator's resolution must be the screen's logical one, or tick labels are misplaced.
    """
    buffer = _open_buffer()
    generator = QSvgGenerator()
    generator.setOutputDevice(buffer)
    generator.setSize(image.size)
    generator.setViewBox(QRect(QRect().topLeft(), image.size))
    generator.setResolution(image.view.logicalDpiX())
    generator.setTitle(image.title)
    generator.setDescription(image.summary)
    painter = QPainter(generator)
    try:
        _paint(image, painter)
    finally:
        painter.end()
        buffer.close()
    return bytes(buffer.data().data())


def image_of(image: PlotImage, scale: float = PNG_SCALE) -> QImage:
    """The plot as pixels, `scale` times its size on the screen."""
    drawn = QImage(image.size * scale, QImage.Format.Format_ARGB32)
    drawn.setDevicePixelRatio(scale)
    painter = QPainter(drawn)
    try:
        _paint(image, painter)
    finally:
        painter.end()
    return drawn


def png_of(image: PlotImage) -> bytes:
    """The plot as PNG."""
    buffer = _open_buffer()
    QImageWriter(buffer, QByteArray(b"PNG")).write(image_of(image))
    buffer.close()
    return bytes(buffer.data().data())


def _open_buffer() -> QBuffer:
    buffer = QBuffer()
    buffer.setData(QByteArray())
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    return buffer


def _paint(image: PlotImage, painter: QPainter) -> None:
    theme = image.theme
    width = image.size.width()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.fillRect(QRectF(QPointF(), image.size.toSizeF()), theme.color("surface"))
    painter.setFont(ui_font(semibold=True))
    painter.setPen(theme.color("text"))
    line = QRectF(_MARGIN, 0, width - 2 * _MARGIN, HEADER_PX)
    painter.drawText(line, Qt.AlignmentFlag.AlignVCenter, image.title)
    left = line.left() + painter.fontMetrics().horizontalAdvance(image.title) + 10
    painter.setFont(ui_font(CAPTION_PX))
    painter.setPen(theme.color("muted"))
    right = _paint_legend(image, painter, line)
    room = QRectF(left, 0, max(0.0, right - left), HEADER_PX)
    text = painter.fontMetrics().elidedText(image.subtitle, Qt.TextElideMode.ElideRight, int(room.width()))
    painter.drawText(room, Qt.AlignmentFlag.AlignVCenter, text)
    target = QRectF(_MARGIN, HEADER_PX, image.view.width(), image.view.height())
    image.view.render(painter, target, image.view.viewport().rect())


def _paint_legend(image: PlotImage, painter: QPainter, line: QRectF) -> float:
    """Squares and names from the right; gives the x where they begin."""
    metrics = painter.fontMetrics()
    x = line.right()
    for name, colour in reversed(image.legend):
        x -= metrics.horizontalAdvance(name) + 1
        painter.drawText(QRectF(x, 0, line.right() - x + 1, HEADER_PX), Qt.AlignmentFlag.AlignVCenter, name)
        painter.fillRect(QRectF(x - 14, HEADER_PX / 2 - 4.5, 9, 9), QColor(colour))
        x -= 14 + 12
    return x
