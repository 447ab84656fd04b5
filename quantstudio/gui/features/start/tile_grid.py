"""Tiles in as many columns as there is room for; arrow keys go from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QGridLayout, QWidget
from typing_extensions import override

from quantstudio.gui.features.start.tile import WIDTH_MIN_PX, Tile

GAP = 12
COLUMNS_MOST = 4


class TileGrid(QWidget):
    """Rows of tiles of one width."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName(name)
        self._tiles: list[Tile] = []
        self._columns = 0
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(GAP)
        self._grid.setAlignment(Qt.AlignmentFlag.AlignTop)

    @property
    def tiles(self) -> Sequence[Tile]:
        """From left to right, from the top down."""
        return self._tiles

    def set_tiles(self, tiles: Sequence[Tile]) -> None:
        """Show other tiles; the ones before are deleted."""
        for old in self._tiles:
            self._grid.removeWidget(old)
            old.hide()
            old.deleteLater()
        self._tiles = list(tiles)
        for tile in tiles:
            tile.moved.connect(partial(self._move, tile))
        self._columns = 0
        self._place()

    @override
    def minimumSizeHint(self) -> QSize:
        """One tile is enough: the page may become narrower than the columns that stand now."""
        return QSize(WIDTH_MIN_PX, super().minimumSizeHint().height())

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._place()

    def _place(self) -> None:
        columns = min(COLUMNS_MOST, max(1, (self.width() + GAP) // (WIDTH_MIN_PX + GAP)))
        # Columns without a tile keep their place and width: tiles of several grids stand below each other.
        width = max(WIDTH_MIN_PX, (self.width() - GAP * (columns - 1)) // columns)
        for column in range(COLUMNS_MOST):
            self._grid.setColumnStretch(column, 1 if column < columns else 0)
            self._grid.setColumnMinimumWidth(column, width if column < columns else 0)
        if columns == self._columns:
            return
        self._columns = columns
        for i, tile in enumerate(self._tiles):
            self._grid.addWidget(tile, i // columns, i % columns)

    def _move(self, tile: Tile, direction: str) -> None:
        step = {"left": -1, "right": 1, "up": -self._columns, "down": self._columns}[direction]
        target = self._tiles.index(tile) + step
        if 0 <= target < len(self._tiles):
            self._tiles[target].setFocus(Qt.FocusReason.TabFocusReason)
