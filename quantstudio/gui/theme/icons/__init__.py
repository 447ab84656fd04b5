"""The interface's own icons: SVG strokes on a 24-unit grid, drawn in any colour at any size."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PySide6.QtCore import QByteArray, QRectF, Qt
from PySide6.QtGui import QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

_FOLDER = Path(__file__).parent


@lru_cache(maxsize=128)
def _template(name: str) -> str:
    return (_FOLDER / f"{name}.svg").read_text(encoding="utf-8")


def svg_source(name: str, color: str) -> str:
    """The icon's SVG text with its strokes in `color` (#RRGGBB).

    Raises:
        FileNotFoundError: there is no icon of that name.
    """
    return _template(name).replace("currentColor", color)


def pixmap(name: str, color: str, size: int, ratio: float = 1.0) -> QPixmap:
    """The icon on a transparent square.

    Args:
        name: Icon name.
        color: #RRGGBB.
        size: Edge in device-independent pixels.
        ratio: Device pixels per device-independent pixel.
    """
    renderer = QSvgRenderer(QByteArray(svg_source(name, color).encode()))
    made = QPixmap(round(size * ratio), round(size * ratio))
    made.fill(Qt.GlobalColor.transparent)
    painter = QPainter(made)
    renderer.render(painter, QRectF(0, 0, made.width(), made.height()))
    painter.end()
    made.setDevicePixelRatio(ratio)
    return made
