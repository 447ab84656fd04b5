"""The table view of the layers: chips open on one click, keys set precisions, columns give way to width."""

from __future__ import annotations

from collections.abc import Iterable

from PySide6.QtCore import (
    QEvent,
    QItemSelectionModel,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    Qt,
    Signal,
)
from PySide6.QtGui import QAction, QKeyEvent, QKeySequence, QMouseEvent, QResizeEvent
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QMenu, QTableView, QWidget
from typing_extensions import override

from quantstudio.core.precision import keyed_formats
from quantstudio.gui.features.layers.layer_filter import LayerFilterModel
from quantstudio.gui.features.layers.layer_names import LayerNameDelegate
from quantstudio.gui.features.layers.layer_table import HEADERS, LayerColumn
from quantstudio.gui.features.layers.precision_chip import PrecisionChipDelegate, stored_chip_px
from quantstudio.gui.features.layers.sensitivity_bar import SensitivityBarDelegate
from quantstudio.gui.features.layers.sparkline import SparklineDelegate
from quantstudio.gui.widgets.card import FocusEdge

ROW_PX = 28
NAME_MIN_PX = 132
WIDTHS = {
    LayerColumn.NUMBER: 38,
    LayerColumn.TYPE: 88,
    LayerColumn.WEIGHTS: 84,
    LayerColumn.PRECISION: 84,
    LayerColumn.SQNR: 72,
    LayerColumn.SENSITIVITY: 124,
    LayerColumn.PARAMETERS: 72,
    LayerColumn.KERNEL: 132,
}
SENSITIVITY_NARROW_PX = 112
NAME_COMFORT_PX = 190
# The first to go where there is no room.
GIVING_WAY = (
    LayerColumn.KERNEL,
    LayerColumn.PARAMETERS,
    LayerColumn.TYPE,
    LayerColumn.WEIGHTS,
    LayerColumn.NUMBER,  # the axis of the sensitivity plot speaks of it
)
# What the list of keys says beside the commands.
LAYER_KEYS = (("Choose a precision from the list", "Enter"), ("Copy the names of the selection", "Ctrl+C"))


class LayerTableView(QTableView):
    """Rows of layers.

    Signals:
        precision_key_pressed(WeightFormat): the key of a format, such as 8, 4, F or 3.
        copy_asked(): the names of the selected layers are wanted on the clipboard.
    """

    precision_key_pressed = Signal(object)
    copy_asked = Signal()

    def __init__(self, model: LayerFilterModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("layers.table")
        self.setAccessibleName("Layers")
        self.setModel(model)
        self._chosen: dict[LayerColumn, bool] = {}
        self._chips_px = 0
        self._set_up_delegates()
        self.setAlternatingRowColors(True)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setSortingEnabled(True)
        self.sortByColumn(LayerColumn.NUMBER, Qt.SortOrder.AscendingOrder)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.EditKeyPressed)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMouseTracking(True)
        self.setTabKeyNavigation(False)
        FocusEdge(self)
        self._set_up_headers()

    def _set_up_delegates(self) -> None:
        self.setItemDelegateForColumn(LayerColumn.NAME, LayerNameDelegate(self))
        self.setItemDelegateForColumn(LayerColumn.WEIGHTS, SparklineDelegate(self))
        self.setItemDelegateForColumn(LayerColumn.PRECISION, PrecisionChipDelegate(self))
        self.setItemDelegateForColumn(LayerColumn.SENSITIVITY, SensitivityBarDelegate(self))

    def _set_up_headers(self) -> None:
        rows = self.verticalHeader()
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(ROW_PX)
        columns = self.horizontalHeader()
        # Its own, always empty: with many rows selected a repaint would ask thousands of cells for flags.
        columns.setSelectionModel(QItemSelectionModel(self.model(), columns))
        columns.setObjectName("layers.header")
        columns.setAccessibleName("Columns of the layer table")
        columns.setHighlightSections(False)
        columns.setMinimumSectionSize(36)
        columns.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        columns.setSectionResizeMode(LayerColumn.NAME, QHeaderView.ResizeMode.Stretch)
        for column, width in WIDTHS.items():
            self.setColumnWidth(column, width)
        columns.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        columns.customContextMenuRequested.connect(self._on_header_menu)

    # ------------------------------------------------------------------ columns

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.fit_columns()

    def fit_columns(self) -> None:
        """Hide columns, least needed first, until the names have room; a choice of the user stands."""
        room = self.viewport().width() - NAME_MIN_PX
        widths = {**WIDTHS, LayerColumn.PRECISION: max(WIDTHS[LayerColumn.PRECISION], self._chips_px)}
        shown = {c: self._chosen.get(c, True) for c in WIDTHS}
        for column in GIVING_WAY:
            if sum(widths[c] for c, is_shown in shown.items() if is_shown) <= room:
                break
            if column not in self._chosen:
                shown[column] = False
        for column, is_shown in shown.items():
            self.setColumnHidden(column, not is_shown)
        self.setColumnWidth(LayerColumn.PRECISION, widths[LayerColumn.PRECISION])
        used = sum(widths[c] for c, is_shown in shown.items() if is_shown)
        is_tight = self.viewport().width() - used < NAME_COMFORT_PX
        narrow = SENSITIVITY_NARROW_PX if is_tight else WIDTHS[LayerColumn.SENSITIVITY]
        self.setColumnWidth(LayerColumn.SENSITIVITY, narrow)

    def make_room_for(self, chips: Iterable[str]) -> None:
        """Widen the column of precisions to what the file says of itself, such as "codebook, 2 bits"."""
        self._chips_px = max(map(stored_chip_px, chips), default=0)
        self.fit_columns()

    def choose_column(self, column: LayerColumn, *, is_shown: bool) -> None:
        """Show or hide a column, whatever the width."""
        self._chosen[column] = is_shown
        self.fit_columns()

    def layout_state(self) -> str:
        """Columns the user showed or hid, by name: "SQNR=1 WEIGHTS=0"."""
        return " ".join(f"{column.name}={int(is_shown)}" for column, is_shown in self._chosen.items())

    def restore_layout_state(self, text: str) -> None:
        """Show and hide columns again; names that are no columns any more are ignored."""
        for part in text.split():
            name, _, is_shown = part.partition("=")
            if name in LayerColumn.__members__:
                self._chosen[LayerColumn[name]] = is_shown == "1"
        self.fit_columns()

    def header_menu(self) -> QMenu:
        """Which columns to show."""
        menu = QMenu(self)
        menu.setObjectName("layers.columns")
        for column in WIDTHS:
            action = menu.addAction(HEADERS[column])
            action.setCheckable(True)
            action.setChecked(not self.isColumnHidden(column))
            action.setData(int(column))
        menu.triggered.connect(self._on_column_toggled)
        return menu

    def _on_header_menu(self, position: QPoint) -> None:
        menu = self.header_menu()
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(self.horizontalHeader().mapToGlobal(position))

    def _on_column_toggled(self, action: QAction) -> None:
        self.choose_column(LayerColumn(action.data()), is_shown=action.isChecked())

    # ------------------------------------------------------------------ mouse and keys

    @override
    def mousePressEvent(self, event: QMouseEvent) -> None:
        index = self.indexAt(event.position().toPoint())
        is_plain = (
            event.button() == Qt.MouseButton.LeftButton
            and event.modifiers() == Qt.KeyboardModifier.NoModifier
        )
        if not (is_plain and index.isValid() and self._opens(index)):
            super().mousePressEvent(event)
            return
        # A click on a chip of the selection must not shrink the selection to one row first.
        if self.selectionModel().isSelected(index):
            flag = self.selectionModel().SelectionFlag.NoUpdate
            self.selectionModel().setCurrentIndex(index, flag)
        else:
            self.selectRow(index.row())
        self.setFocus(Qt.FocusReason.MouseFocusReason)
        self.edit(index)

    @override
    def selectionCommand(
        self, index: QModelIndex | QPersistentModelIndex, event: QEvent | None = None
    ) -> QItemSelectionModel.SelectionFlag:
        if event is not None and not index.isValid():
            # A click below the last row must not undo a selection that took work to make.
            return QItemSelectionModel.SelectionFlag.NoUpdate
        return super().selectionCommand(index, event)

    @staticmethod
    def _opens(index: QModelIndex) -> bool:
        return index.column() == LayerColumn.PRECISION and bool(index.flags() & Qt.ItemFlag.ItemIsEditable)

    @override
    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.matches(QKeySequence.StandardKey.Copy):
            self.copy_asked.emit()
            event.accept()
            return
        key = next((r for r in keyed_formats() if event.key() == ord(r.key)), None)
        plain = event.modifiers() in (Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.KeypadModifier)
        if key is not None and plain:
            self.precision_key_pressed.emit(key)
            event.accept()
            return
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and plain and self.currentIndex().isValid():
            index = self.currentIndex().siblingAtColumn(LayerColumn.PRECISION)
            if self._opens(index):
                self.edit(index)
                event.accept()
                return
        super().keyPressEvent(event)

    def open_precisions(self) -> bool:
        """Open the list of precisions of the current row, or of the first selected one that has any."""
        index = self._first_choice()
        if index is None:
            return False
        self.scrollTo(index)
        self.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.edit(index)
        return True

    @property
    def has_precisions(self) -> bool:
        """Whether any of the selected layers has a precision to choose."""
        return self._first_choice() is not None

    def _first_choice(self) -> QModelIndex | None:
        rows = [self.currentIndex(), *(self.selectionModel().selectedRows() if self.selectionModel() else ())]
        cells = (row.siblingAtColumn(LayerColumn.PRECISION) for row in rows)
        return next((cell for cell in cells if cell.isValid() and self._opens(cell)), None)

    @override
    def keyboardSearch(self, search: str) -> None:
        """Letters are precisions here, not a search; the search field is one key away."""
