"""The layers of the model, filtered, sorted, selected, and set."""

from __future__ import annotations

from PySide6.QtCore import QItemSelection, QItemSelectionModel, QModelIndex, QPoint, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QGuiApplication
from PySide6.QtWidgets import (
    QComboBox,
    QLabel,
    QLineEdit,
    QMenu,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from quantstudio.core import figures
from quantstudio.core.precision import WeightFormat
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.gui.facts.job_facts import opening_text
from quantstudio.gui.facts.precision_facts import precision_places
from quantstudio.gui.features.layers.layer_filter import ALL_TYPES, LayerFilterModel
from quantstudio.gui.features.layers.layer_table import CHOICES_ROLE, LayerColumn, LayerTableModel
from quantstudio.gui.features.layers.layer_view import LayerTableView
from quantstudio.gui.session import Session
from quantstudio.gui.theme import icon, theme_hub
from quantstudio.gui.widgets.card import Card
from quantstudio.gui.widgets.empty_state import EmptyState

RESORT_MS = 500
SEARCH_PX = 190
TYPES_LIST_PX = 170
NO_MODEL = ("Open a model to see its layers.", "Open a model…")
_STREAMED = (LayerColumn.WEIGHTS, LayerColumn.SQNR, LayerColumn.SENSITIVITY)


class LayersPanel(QWidget):
    """A card with the layer table; shares the session's selection.

    Signals:
        open_asked(): no model is open and the user wants one.
    """

    open_asked = Signal()

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("panel.layers")
        self._session = session
        self._is_syncing = False
        self.model = LayerTableModel(session, self)
        self.filter = LayerFilterModel(self.model, self)
        self.table = LayerTableView(self.filter)
        self._build()
        self._resort = QTimer(self)
        self._resort.setSingleShot(True)
        self._resort.setInterval(RESORT_MS)
        self._resort.timeout.connect(self._on_resort_due)
        self._connect()
        self._on_model_reset()
        self._on_theme_changed(None)

    def _build(self) -> None:
        self.card = Card("Layers")
        self.card.body.setContentsMargins(0, 10, 0, 2)
        self.card.body.setSpacing(6)
        self.card.header.setContentsMargins(14, 0, 12, 0)
        self.card.subtitle.hide()
        self.count = QLabel()
        self.count.setObjectName("layers.count")
        self.count.setProperty("role", "caption")
        self.types = QComboBox()
        self.types.setObjectName("layers.types")
        self.types.setAccessibleName("Type of the layers shown")
        self.types.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.types.setMinimumContentsLength(7)
        self.types.view().setMinimumWidth(TYPES_LIST_PX)
        self.search = QLineEdit()
        self.search.setObjectName("layers.search")
        self.search.setAccessibleName("Filter layers")
        self.search.setPlaceholderText("Filter layers")
        self.search.setClearButtonEnabled(True)
        self.search.setAcceptDrops(False)  # files are for the window
        self.search.setMaximumWidth(SEARCH_PX)
        self.search.setMinimumWidth(96)
        self._search_icon = QAction(self)
        self.search.addAction(self._search_icon, QLineEdit.ActionPosition.LeadingPosition)
        for button, name in zip(self.search.findChildren(QToolButton), ("clear", "search"), strict=False):
            button.setObjectName(f"layers.search.{name}")
            button.setAccessibleName(f"{name.capitalize()} the filter")
        header = self.card.header
        header.addWidget(self.count)
        header.addStretch(1)
        header.addWidget(self.types)
        header.addWidget(self.search, 2)
        self.empty = EmptyState("layers")
        self.empty.setObjectName("layers.empty")
        self.empty.set_message(*NO_MODEL)
        self.stack = QStackedWidget()
        self.stack.addWidget(self.table)
        self.stack.addWidget(self.empty)
        self.card.add(self.stack)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.card)
        self.table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)

    def _connect(self) -> None:
        self.search.textChanged.connect(self._on_text_changed)
        self.types.activated.connect(self._on_type_chosen)
        self.empty.asked.connect(self.open_asked)
        self.table.precision_key_pressed.connect(self._on_precision_key)
        self.table.copy_asked.connect(self._on_copy_names)
        self.table.customContextMenuRequested.connect(self._on_context_menu)
        selection = self.table.selectionModel()
        selection.selectionChanged.connect(self._on_table_selection)
        selection.currentRowChanged.connect(self._on_table_selection)
        self.model.modelReset.connect(self._on_model_reset)
        self.model.dataChanged.connect(self._on_data_changed)
        self._session.selection_changed.connect(self._on_session_selection)
        self._session.jobs_changed.connect(self._show_opening)
        theme_hub().theme_changed.connect(self._on_theme_changed)

    # ------------------------------------------------------------------ content

    def focus_search(self) -> None:
        """Put the cursor into the filter field."""
        self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.search.selectAll()

    def _on_model_reset(self) -> None:
        has_model = self._session.workspace.model is not None
        self.stack.setCurrentWidget(self.table if has_model else self.empty)
        current = self.types.currentData()
        self.types.clear()
        self.types.addItem("All types", ALL_TYPES)
        for op_type in self.model.op_types:
            self.types.addItem(op_type, op_type)
        self.types.setCurrentIndex(max(0, self.types.findData(current)))
        self.filter.set_op_type(self.types.currentData() or ALL_TYPES)
        for control in (self.types, self.search):
            control.setEnabled(has_model)
        self.table.make_room_for({layer.stored_label for layer in self._session.workspace.layers})
        self._show_count()
        self._on_session_selection()

    def _show_opening(self) -> None:
        """While nothing is open yet, what is being opened and how far that is."""
        row = self._session.workspace.documents.under_way
        if self._session.workspace.model is None:
            self.empty.set_message(*(("\n".join(opening_text(row)),) if row is not None else NO_MODEL))

    def _show_count(self) -> None:
        total, shown = self.model.rowCount(), self.filter.rowCount()
        text = figures.count(total) if shown == total else f"{figures.count(shown)} of {figures.count(total)}"
        self.count.setText(text if self._session.workspace.model is not None else "")
        self.count.setAccessibleName(f"{text} layers")

    def _on_text_changed(self, text: str) -> None:
        # A filter hides rows; it must not deselect layers.
        self._is_syncing = True
        try:
            self.filter.set_text(text)
        finally:
            self._is_syncing = False
        self._show_count()
        self._on_session_selection()

    def _on_type_chosen(self, _index: int) -> None:
        self._is_syncing = True
        try:
            self.filter.set_op_type(self.types.currentData())
        finally:
            self._is_syncing = False
        self._show_count()
        self._on_session_selection()

    def _on_data_changed(self, first: QModelIndex, last: QModelIndex) -> None:
        # Only figures that stream in sort anew: rows set by hand must stay under the pointer.
        column = self.filter.sortColumn()
        is_streamed = first.column() in _STREAMED and last.column() <= LayerColumn.SENSITIVITY
        if column in _STREAMED and is_streamed and first.column() <= column <= last.column():
            self._resort.start()

    def _on_resort_due(self) -> None:
        self._sort_again()

    def _sort_again(self) -> None:
        self.filter.sort(self.filter.sortColumn(), self.filter.sortOrder())

    # ------------------------------------------------------------------ selection

    def _on_table_selection(self, *_args: object) -> None:
        if self._is_syncing:
            return
        # Whole rows are selected: `selectedRows` would ask every cell of the table for its flags.
        selection = self.table.selectionModel().selection()
        parts = [selection.at(i) for i in range(selection.count())]
        rows = [row for part in parts for row in range(part.top(), part.bottom() + 1)]
        names = [self._name_of(self.filter.index(row, 0)) for row in rows]
        current = self.table.currentIndex()
        now = self._name_of(current) if current.isValid() else None
        self._is_syncing = True
        try:
            self._session.select(names, now)
        finally:
            self._is_syncing = False

    def _name_of(self, index: QModelIndex) -> str:
        return self.model.layer_at(self.filter.mapToSource(index).row()).name

    def _index_of(self, name: str) -> QModelIndex:
        row = self.model.row_of(name)
        return QModelIndex() if row is None else self.filter.mapFromSource(self.model.index(row, 0))

    def _on_session_selection(self) -> None:
        if self._is_syncing:
            return
        self._is_syncing = True
        try:
            indexes = (self._index_of(name) for name in self._session.selection)
            chosen = self._rows_together(sorted(index.row() for index in indexes if index.isValid()))
            flags = QItemSelectionModel.SelectionFlag
            selection = self.table.selectionModel()
            selection.select(chosen, flags.ClearAndSelect | flags.Rows)
            current = self._index_of(self._session.current_layer or "")
            if current.isValid():
                selection.setCurrentIndex(current, flags.NoUpdate)
                self.table.scrollTo(current)
        finally:
            self._is_syncing = False

    def _rows_together(self, rows: list[int]) -> QItemSelection:
        """Rows as few ranges: every cell that is painted looks through all of them."""
        chosen = QItemSelection()
        shown = set(rows)
        starts = [row for row in rows if row - 1 not in shown]
        ends = [row for row in rows if row + 1 not in shown]
        for first, last in zip(starts, ends, strict=True):
            chosen.select(self.filter.index(first, 0), self.filter.index(last, 0))
        return chosen

    # ------------------------------------------------------------------ commands

    def open_precisions(self) -> bool:
        """Open the list of precisions of the selected layers; False where none of them has a choice."""
        return self.table.open_precisions()

    def _on_precision_key(self, weights: WeightFormat) -> None:
        if self._session.selection:
            self._session.workspace.edits.set_precision(self._session.selection, weights)

    def context_menu(self) -> QMenu:
        """What can be done with the selected layers."""
        menu = QMenu(self)
        menu.setObjectName("layers.menu")
        menu.setToolTipsVisible(True)
        names = self._session.selection
        current = self._session.current_layer
        row = self.model.row_of(current) if current is not None else None
        if row is None or not names:
            return menu
        op_type = self.model.layer_at(row).op_type
        several = "" if len(names) == 1 else f" of {len(names)} layers"
        listed = menu.addAction(f"Choose precision{several}…")
        listed.setEnabled(self.table.has_precisions)
        listed.triggered.connect(self.open_precisions)
        title = f"Set precision{several}"
        self._add_precisions(menu.addMenu(title), "selection")
        self._add_precisions(menu.addMenu(f"Set every {op_type}"), "type")
        menu.addSeparator()
        menu.addAction(f"Select every {op_type}").triggered.connect(self._on_select_type)
        menu.addAction("Copy names").triggered.connect(self._on_copy_names)
        menu.addSeparator()
        exact = menu.addAction("Exact sensitivity of selection")
        if self._session.workspace.calibration_data is None:
            exact.setEnabled(False)
            exact.setToolTip("Choose data first")
        exact.triggered.connect(self._on_exact)
        return menu

    def _add_precisions(self, menu: QMenu, scope: str) -> None:
        menu.setObjectName(f"layers.menu.{scope}")
        op_type = self._current_type()
        names = (
            self._session.selection
            if scope == "selection"
            else [layer.name for layer in self._session.workspace.layers if layer.op_type == op_type]
        )
        rows = [self.model.row_of(name) for name in names]
        legal = {
            choice
            for row in rows
            if row is not None
            for choice in self.model.index(row, LayerColumn.PRECISION).data(CHOICES_ROLE)
        }
        groups: dict[tuple[str, ...], QMenu] = {(): menu}
        for under, name in precision_places(legal):
            if under not in groups:
                groups[under] = menu.addMenu(under[0])
                groups[under].setObjectName(f"layers.menu.{scope}.{under[0]}")
            groups[under].addAction(NAMED_SCHEMES[name].text).setData((scope, name))
        menu.menuAction().setEnabled(bool(legal))
        menu.triggered.connect(self._on_precision_chosen)

    def _on_context_menu(self, position: QPoint) -> None:
        menu = self.context_menu()
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(self.table.viewport().mapToGlobal(position))

    def _on_precision_chosen(self, action: QAction) -> None:
        scope, name = action.data()
        if scope == "type":
            op_type = self._current_type()
            if op_type:
                self._session.workspace.edits.set_scheme_by_type(op_type, name)
        else:
            self._session.workspace.edits.set_scheme(self._session.selection, name)

    def _current_type(self) -> str:
        row = self.model.row_of(self._session.current_layer or "")
        return self.model.layer_at(row).op_type if row is not None else ""

    def _on_select_type(self) -> None:
        op_type = self._current_type()
        if op_type:
            names = [layer.name for layer in self._session.workspace.layers if layer.op_type == op_type]
            self._session.select(names, self._session.current_layer)

    def _on_copy_names(self) -> None:
        model = self._session.workspace.model
        titles = model.titles if model is not None else {}
        QGuiApplication.clipboard().setText("\n".join(titles[name] for name in self._session.selection))

    def _on_exact(self) -> None:
        self._session.workspace.runs.exact_sensitivity(self._session.selection)

    def _on_theme_changed(self, _theme: object) -> None:
        self._search_icon.setIcon(icon("search", "muted", 16))
        self.table.viewport().update()
