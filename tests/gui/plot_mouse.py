"""Real mouse events at plot coordinates."""

from __future__ import annotations

import pyqtgraph as pg
from PySide6.QtCore import QCoreApplication, QPoint, QPointF, Qt
from PySide6.QtTest import QTest

LEFT = Qt.MouseButton.LeftButton
pg.setConfigOption("mouseRateLimit", 0)  # it drops moves that come faster than a hundred a second


def shown(qtbot, widget, width=460, height=380):
    """The widget on the (invisible) screen, laid out and painted."""
    qtbot.addWidget(widget)
    widget.resize(width, height)
    widget.show()
    qtbot.waitExposed(widget)
    widget.grab()
    return widget


def place(plot, x, y) -> QPoint:
    """Where plot coordinates lie in the viewport."""
    QCoreApplication.processEvents()
    scene = plot.item.getViewBox().mapViewToScene(QPointF(x, y))
    point: QPoint = plot.view.mapFromScene(scene)
    return point


def _move(plot, target: QPoint) -> None:
    QTest.mouseMove(plot.view.viewport(), target)


def click(plot, x, y) -> None:
    """Press and release the left button."""
    _move(plot, place(plot, x, y))
    QTest.mouseClick(plot.view.viewport(), LEFT, Qt.KeyboardModifier.NoModifier, place(plot, x, y))


def double_click(plot, x, y) -> None:
    """Two clicks as a mouse makes them."""
    click(plot, x, y)
    QTest.mouseDClick(plot.view.viewport(), LEFT, Qt.KeyboardModifier.NoModifier, place(plot, x, y))
    QTest.mouseRelease(plot.view.viewport(), LEFT, Qt.KeyboardModifier.NoModifier, place(plot, x, y))


def press(plot, x, y) -> None:
    """Hover and press."""
    _move(plot, place(plot, x, y))
    QTest.mousePress(plot.view.viewport(), LEFT, Qt.KeyboardModifier.NoModifier, place(plot, x, y))


def move(plot, x, y) -> None:
    """Move with the button held, in two steps so that a drag begins."""
    target = place(plot, x, y)
    _move(plot, target - QPoint(1, 0))
    _move(plot, target)


def release(plot, x, y) -> None:
    """Let go."""
    QTest.mouseRelease(plot.view.viewport(), LEFT, Qt.KeyboardModifier.NoModifier, place(plot, x, y))
