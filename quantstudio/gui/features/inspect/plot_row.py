"""Three plots in a row: all side by side where there is room, else the first and one of the others."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QSize, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QWidget
from typing_extensions import override

GAP = 8
THREE_COLUMNS_PX = 1080
ROW_MIN_PX = 520


class PlotRow(QWidget):
    """Gives each plot its place itself, whenever the row gets another size.

    A layout that is changed while it is being carried out leaves what it has not reached where it was until
    somebody resizes the window again.

    Attributes:
        width_changed: Emitted with whether all three stand side by side, before they are placed.
    """

    width_changed = Signal(bool)

    def __init__(
        self, first: QWidget, others: tuple[QWidget, QWidget], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._first, self._others = first, others
        self._chosen = others[0]
        self._is_wide = False
        # Its own minimum: that of three plots side by side would keep the window from getting narrow again.
        self.setMinimumWidth(ROW_MIN_PX)
        for plot in (first, *others):
            plot.setParent(self)
        self._place()

    @property
    def is_wide(self) -> bool:
        """Whether all three stand side by side."""
        return self._is_wide

    def choose(self, plot: QWidget) -> None:
        """Show this one of the others where there is room for one."""
        self._chosen = plot
        self._place()

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        is_wide = self.width() >= THREE_COLUMNS_PX
        if is_wide != self._is_wide:
            self._is_wide = is_wide
            self.width_changed.emit(is_wide)
        self._place()

    @override
    def event(self, event: QEvent) -> bool:
        if event.type() is QEvent.Type.LayoutRequest:  # a plot needs more or less height
            self.updateGeometry()
        return super().event(event)

    @override
    def sizeHint(self) -> QSize:
        return QSize(ROW_MIN_PX, max(plot.sizeHint().height() for plot in self._shown))

    @override
    def minimumSizeHint(self) -> QSize:
        return QSize(ROW_MIN_PX, max(_least_height(plot) for plot in self._shown))

    @property
    def _shown(self) -> tuple[QWidget, ...]:
        return (self._first, *self._others) if self._is_wide else (self._first, self._chosen)

    def _place(self) -> None:
        shown = self._shown
        left, end = 0, self.width() + GAP
        for number, plot in enumerate(shown, start=1):
            right = end * number // len(shown)
            plot.setGeometry(left, 0, right - GAP - left, self.height())
            left = right
        for plot in (self._first, *self._others):
            plot.setVisible(plot in shown)


def _least_height(plot: QWidget) -> int:
    return max(plot.minimumSizeHint().height(), plot.minimumHeight())
