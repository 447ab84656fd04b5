"""What every plot is drawn in: a view with a horizontal and a vertical axis, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import pyqtgraph as pg
from PySide6.QtWidgets import QGraphicsGridLayout, QSizePolicy, QWidget

MARGINS = (0, 4, 4, 0)
GRID_LEVELS = 255


class Figure(pg.GraphicsWidget):
    """A view box with two axes.

    pyqtgraph's own PlotItem brings fifty-five hidden check boxes, sliders and menus. With eight plots that
    was half of all widgets: the window took twice as long to fill and to change its theme.
    """

    def __init__(self, axes: Mapping[str, pg.AxisItem]) -> None:
        """`axes` holds "left" and "bottom"."""
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        grid = QGraphicsGridLayout(self)
        grid.setContentsMargins(*MARGINS)
        grid.setSpacing(0)
        self._view_box = pg.ViewBox(parent=self, enableMenu=False)
        grid.addItem(self._view_box, 0, 1)
        self._axes = dict(axes)
        for name, row, column in (("left", 0, 0), ("bottom", 1, 1)):
            axis = self._axes[name]
            axis.linkToView(self._view_box)
            axis.setFlag(axis.GraphicsItemFlag.ItemNegativeZStacksBehindParent)
            axis.setZValue(-1000)  # pyqtgraph puts the grid above the bars
            grid.addItem(axis, row, column)
        grid.setRowStretchFactor(0, 1)
        grid.setColumnStretchFactor(1, 1)

    def getViewBox(self) -> pg.ViewBox:
        """The part inside the axes; pyqtgraph's items ask for it by this name."""
        return self._view_box

    def getAxis(self, name: str) -> pg.AxisItem:
        """The axis "left" or "bottom"."""
        return self._axes[name]

    def addItem(self, item: pg.GraphicsObject, *, ignoreBounds: bool = False) -> None:  # noqa: N803
        """Put an item into the view; with `ignoreBounds` it does not count when everything is to be shown."""
        self._view_box.addItem(item, ignoreBounds=ignoreBounds)

    def showGrid(self, *, x: bool = False, y: bool = False, alpha: float = 1.0) -> None:
        """Lines across the view at the ticks of an axis; `alpha` from 0 to 1."""
        for name, is_shown in (("bottom", x), ("left", y)):
            self._axes[name].setGrid(int(alpha * GRID_LEVELS) if is_shown else False)


def figure_view(figure: Figure, parent: QWidget | None = None) -> pg.GraphicsView:
    """The widget that shows a figure."""
    view = pg.GraphicsView(parent)
    view.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
    view.enableMouse(False)
    view.setCentralItem(figure)
    return view
