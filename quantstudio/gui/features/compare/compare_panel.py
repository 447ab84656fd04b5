"""Variants side by side: every metric, every class, the latencies, the sizes, the answers that changed."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QSortFilterProxyModel, Qt, Signal
from PySide6.QtGui import QAction, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QGridLayout,
    QHeaderView,
    QMenu,
    QStackedWidget,
    QTableView,
    QToolButton,
    QWidget,
)
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.data_spec import ON_CALIBRATION
from quantstudio.core.variants import Variant
from quantstudio.gui.facts.export_notice import tell_export_failed
from quantstudio.gui.facts.variant_facts import size_of
from quantstudio.gui.features.compare.compare_table import CompareTableModel
from quantstudio.gui.features.compare.flip_table import SORT_ROLE, FlipTableModel
from quantstudio.gui.plots.class_accuracy import ClassAccuracyPlot
from quantstudio.gui.plots.latency import LatencyPlot
from quantstudio.gui.plots.size_bars import SizeBarsPlot
from quantstudio.gui.session import Session
from quantstudio.gui.theme import icon, theme_hub
from quantstudio.gui.widgets.card import Card, FocusEdge
from quantstudio.gui.widgets.caution import Caution
from quantstudio.gui.widgets.elided_combo import ElidedComboBox
from quantstudio.gui.widgets.empty_state import EmptyState
from quantstudio.gui.widgets.refresher import Refresher
from quantstudio.gui.widgets.segmented import Segmented
from quantstudio.gui.widgets.small_button import SmallButton
from quantstudio.workspace.names import base_name

LATENCY = "latency"
SIZES = "sizes"
FLIPS = "flips"
GAP = 8
WIDE_PX = 1080  # below it the table takes the whole width, and the plots share a row
MIN_PX = 520
SHOWN_AT_FIRST = 4  # the base and the newest three: more columns than that are chosen, not imposed
ROW_PX, LOW_ROW_PX = 28, 24
LOW_PX = 300  # of the table: in less of it rows stand closer, and headings leave room for them
ROWS_WANTED, LEAST_LINES = 8, 2
METRIC_MIN_PX, METRIC_MAX_PX = 120, 220
METRIC_AIR_PX = 24
HEADER_AIR_PX = 16
SAMPLE_PX = 92
COLUMN_MIN_PX = 118  # an interval of differences in semibold


class ComparePanel(QWidget):
    """FP32 and the measured variants, in a table and three plots.

    Signals:
        data_asked(): the user wants to choose test data.
    """

    data_asked = Signal()

    def __init__(
        self,
        session: Session,
        plots: tuple[ClassAccuracyPlot, LatencyPlot, SizeBarsPlot] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("panel.compare")
        self._session = session
        self._refresher = Refresher(self)
        self._hidden: set[str] = set()
        self._known: set[str] = set()
        self.model = CompareTableModel(self)
        self.flips = FlipTableModel(self)
        self.classes, self.latency, self.sizes = plots or (
            ClassAccuracyPlot(),
            LatencyPlot(),
            SizeBarsPlot(),
        )
        self._build_table()
        self._build_flips()
        self._lay_out()
        self._connect()
        self._refresher.request()

    # ------------------------------------------------------------------ building

    def _build_table(self) -> None:
        self.card = Card("Comparison", "", self)
        self.card.subtitle.set_wordings(
            "every figure from the same samples and interleaved runs", "same samples, interleaved runs", ""
        )
        self.card.body.setContentsMargins(0, 8, 0, 2)
        self.card.header.setContentsMargins(14, 0, 12, 0)
        self.choose = QToolButton()
        self.choose.setObjectName("compare.choose")
        self.choose.setText("Variants")
        self.choose.setAccessibleName("Choose the variants compared")
        self.choose.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.choose.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.menu = QMenu(self.choose)
        self.menu.setObjectName("compare.menu")
        self.menu.triggered.connect(self._on_variant_toggled)
        self.choose.setMenu(self.menu)
        self.again = SmallButton(
            "compare.measure_all", "Measure all", "Measure every variant again, interleaved"
        )
        self.card.add_to_header(self.again, self.choose)
        self.table = _table("compare.table", "Comparison of the variants")
        self.table.setModel(self.model)
        self.table.horizontalHeader().setMinimumSectionSize(COLUMN_MIN_PX)
        self.table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        # The metrics stand in the header of the rows: they stay while many variants scroll.
        rows = self.table.verticalHeader()
        rows.setAccessibleName("Metrics")
        rows.setFixedWidth(METRIC_MIN_PX)
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setSectionsClickable(False)
        rows.show()
        self.table.setCornerButtonEnabled(False)
        self.empty = EmptyState("compare")
        self.empty.setObjectName("compare.empty")
        self.stack = QStackedWidget(self.card)
        self.stack.installEventFilter(self)
        self.stack.addWidget(self.table)
        self.stack.addWidget(self.empty)
        self.caution = Caution("compare.caution", "Choose test data…", "Choose test data to measure on")
        self.card.add(self.caution, 0)
        self.card.add(self.stack)

    def _build_flips(self) -> None:
        self.flip_card = Card("Changed answers")
        self.flip_card.body.setContentsMargins(0, 10, 0, 2)
        self.flip_card.header.setContentsMargins(14, 0, 12, 0)
        self._sorted_flips = QSortFilterProxyModel(self)
        self._sorted_flips.setSourceModel(self.flips)
        self._sorted_flips.setSortRole(SORT_ROLE)
        self.flip_table = _table("compare.flips", "Samples whose answer changed")
        self.flip_table.setModel(self._sorted_flips)
        self.flip_table.setSortingEnabled(True)
        self.flip_table.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.flip_table.horizontalHeader().setStretchLastSection(True)
        self.flip_table.setColumnWidth(0, SAMPLE_PX)
        self.flip_empty = EmptyState("success")
        self.flip_empty.setObjectName("compare.flips.empty")
        self.flip_stack = QStackedWidget(self.flip_card)
        self.flip_stack.addWidget(self.flip_table)
        self.flip_stack.addWidget(self.flip_empty)
        self.flip_card.add(self.flip_stack)

    def _lay_out(self) -> None:
        self.variant = ElidedComboBox()
        self.variant.setObjectName("compare.variant")
        self.variant.setAccessibleName("Variant shown class by class")
        self.variant.setMinimumContentsLength(14)
        self.classes.add_to_header(self.variant)
        self.below = QStackedWidget(self)
        self._switches: dict[str, Segmented] = {}
        choices = ((LATENCY, "Latency"), (SIZES, "Size"), (FLIPS, "Changed answers"))
        for card, key in ((self.latency, LATENCY), (self.sizes, SIZES), (self.flip_card, FLIPS)):
            switch = Segmented(choices, "Shown below")
            switch.setObjectName(f"compare.switch.{key}")
            switch.set_current(key)
            switch.chosen.connect(self.show_lower)
            card.replace_title(switch)
            self.below.addWidget(card)
            self._switches[key] = switch
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(GAP)
        self._grid.setRowStretch(0, 6)
        self._grid.setRowStretch(1, 5)
        # Its own minimum: what the cards would like must not take the layer table's room.
        self.setMinimumWidth(MIN_PX)
        self._is_wide: bool | None = None
        self._arrange(is_wide=False)

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._arrange(is_wide=event.size().width() >= WIDE_PX)

    @override
    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.stack and isinstance(event, QResizeEvent):
            self._fit_rows(event.size().height())
        return super().eventFilter(watched, event)

    def _fit_rows(self, height: int) -> None:
        """Rows before headings: what a variant contains gives way where it would leave three of them."""
        header = self.table.horizontalHeader()
        row = LOW_ROW_PX if height < LOW_PX else ROW_PX
        self.table.verticalHeader().setDefaultSectionSize(row)
        room = height - ROWS_WANTED * row - HEADER_AIR_PX
        self.model.show_lines(max(LEAST_LINES, room // header.fontMetrics().lineSpacing()))

    def _arrange(self, *, is_wide: bool) -> None:
        """Four cards where there is room; else the table above, the classes and one other plot below."""
        if is_wide == self._is_wide:
            return
        self._is_wide = is_wide
        grid, latency = self._grid, self.latency
        for widget in (self.card, self.classes, latency, self.below):
            grid.removeWidget(widget)
        if is_wide:
            grid.addWidget(self.card, 0, 0)
            grid.addWidget(self.classes, 0, 1)
            grid.addWidget(latency, 1, 0)
            grid.addWidget(self.below, 1, 1)
            latency.show()
        else:
            self.below.insertWidget(0, latency)
            grid.addWidget(self.card, 0, 0, 1, 2)
            grid.addWidget(self.classes, 1, 0)
            grid.addWidget(self.below, 1, 1)
        grid.setColumnStretch(0, 13 if is_wide else 1)
        grid.setColumnStretch(1, 10 if is_wide else 1)
        for key, switch in self._switches.items():
            switch.set_choice_visible(LATENCY, not is_wide)
            switch.setVisible(key != LATENCY or not is_wide)
        latency.show_title(is_shown=is_wide)
        latency.set_narrow(not is_wide)
        self.show_lower(SIZES if is_wide else LATENCY)

    def _connect(self) -> None:
        session = self._session
        self._refresher.due.connect(self._on_variants_changed)
        session.variants_changed.connect(self._refresher.request)
        session.model_changed.connect(self._refresher.request)
        session.data_changed.connect(self._refresher.request)
        self.variant.activated.connect(self._on_variant_chosen)
        theme_hub().theme_changed.connect(self._on_theme_changed)
        self._on_theme_changed(None)
        self.again.clicked.connect(session.workspace.runs.measure_every)
        self.empty.asked.connect(session.workspace.runs.measure)
        self.caution.asked.connect(self.data_asked)
        for plot in (self.classes, self.latency, self.sizes):
            plot.export_failed.connect(self._on_export_failed)
            plot.action_asked.connect(session.workspace.runs.measure)

    # ------------------------------------------------------------------ content

    @property
    def shown(self) -> tuple[Variant, ...]:
        """Measured variants that are not hidden: the base, the recipe as it is, then the newest."""
        seen = [v for v in reversed(self._measured()) if v.key not in self._hidden]
        return tuple(sorted(seen, key=lambda v: (not v.is_base, not v.is_current)))

    def _measured(self) -> tuple[Variant, ...]:
        return tuple(v for v in self._session.workspace.variants if v.result is not None)

    def _on_variants_changed(self) -> None:
        measured = self._measured()
        self._fill_menu(measured)
        has_any = len(measured) > 0
        is_flattering = has_any and self._session.workspace.is_measured_on_calibration
        what = "Accuracy" if any(v.result.metrics for v in measured if v.result is not None) else "Agreement"
        self.caution.set_wordings(
            f"{what} {ON_CALIBRATION}, which biases it upwards", f"{what} {ON_CALIBRATION}"
        )
        self.caution.setVisible(is_flattering)
        layers = self._session.workspace.layers
        self.model.set_variants(self.shown, layers, on_calibration=is_flattering)
        self._set_widths()
        self.stack.setCurrentWidget(self.table if has_any else self.empty)
        for control in (self.choose, self.again):
            control.setVisible(has_any)
        if not has_any:
            self._show_empty()
        self._fill_variants(measured)
        self._show_latency()
        self._show_sizes()
        self._show_variant()

    def _show_empty(self) -> None:
        if self._session.workspace.model is None:
            self.empty.set_message("Open a model, build a variant and measure it to compare the two.")
        elif self._session.workspace.test_data is None and self._session.workspace.calibration_data is None:
            self.empty.set_message("Choose data to measure on, then measure this recipe against FP32.")
        else:
            self.empty.set_message(
                "Nothing measured yet. Build this recipe and run it against FP32 on the same samples.",
                "Measure",
            )

    def _fill_menu(self, measured: tuple[Variant, ...]) -> None:
        if any(v.key not in self._known for v in measured):
            seen = [v.key for v in measured if not v.is_base and v.key not in self._hidden]
            self._hidden.update(seen[: max(0, len(seen) - SHOWN_AT_FIRST + 1)])
            self._known.update(v.key for v in measured)
        self.menu.clear()
        for variant in measured:
            if variant.is_base:
                continue
            action = self.menu.addAction(variant.name)
            action.setCheckable(True)
            action.setChecked(variant.key not in self._hidden)
            action.setData(variant.key)

    def _fill_variants(self, measured: tuple[Variant, ...]) -> None:
        chosen = self.variant.currentData()
        others = [v for v in measured if not v.is_base]
        self.variant.clear()
        for variant in others:
            self.variant.addItem(variant.name, variant.key)
        current = self._session.workspace.current_variant
        if self.variant.findData(chosen) < 0 and others:
            is_measured = current is not None and current.result is not None
            chosen = current.key if current is not None and is_measured else others[-1].key
        self.variant.setCurrentIndex(self.variant.findData(chosen))
        self.variant.setVisible(len(others) > 1)

    def _focus(self) -> Variant | None:
        key = self.variant.currentData()
        return next((v for v in self._measured() if v.key == key), None)

    def _show_variant(self) -> None:
        variant = self._focus()
        result = variant.result if variant is not None else None
        if variant is not None and result is not None and result.per_class:
            where = ON_CALIBRATION if self._session.workspace.is_measured_on_calibration else ""
            name = base_name(self._session.workspace.layers)
            self.classes.show_classes(result.per_class, variant.name, where, base=name)
        elif result is not None:
            self.classes.subtitle.setText("")
            self.classes.show_empty("The data has no class labels: see the agreement with FP32 in the table.")
        else:
            self.classes.subtitle.setText("")
            self.classes.show_empty("Measure a variant on labelled data to see every class.")
        self._show_flips(variant)

    def _show_flips(self, variant: Variant | None) -> None:
        result = variant.result if variant is not None else None
        self.flips.set_result(result)
        has_any = self.flips.rowCount() > 0
        self.flip_stack.setCurrentWidget(self.flip_table if has_any else self.flip_empty)
        if variant is None or result is None:
            self.flip_empty.set_message("Measure a variant to see which answers change.")
            self.flip_card.subtitle.setText("")
            return
        what = "right in FP32, wrong here" if result.metrics else "different from FP32"
        self.flip_empty.set_message(f"No answer of {variant.name} is {what.replace(', ', ' and ')}.")
        self.flip_card.subtitle.setText(
            f"{figures.count(self.flips.rowCount())} samples {what}" if has_any else ""
        )

    def _show_latency(self) -> None:
        models = [
            (v.name, v.result.latency_ms)
            for v in self.shown
            if v.result is not None and v.result.latency_ms is not None
        ]
        if models:
            self.latency.show_models(models)
        else:
            self.latency.show_empty("Measure a variant to see its latency.")

    def _show_sizes(self) -> None:
        model = self._session.workspace.model
        shown = list(self.shown)
        if model is None or len(shown) < 2:
            self.sizes.show_empty("Build a variant to see its size beside FP32.")
            return
        self.sizes.show_sizes([(v.name, size_of(v, model.file_bytes)) for v in shown])

    def _set_widths(self) -> None:
        header = self.table.horizontalHeader()
        for section in range(self.model.columnCount()):
            header.setSectionResizeMode(section, QHeaderView.ResizeMode.Stretch)
        self.table.setColumnHidden(0, True)
        rows = self.table.verticalHeader()
        widest = max((rows.fontMetrics().horizontalAdvance(name) for name in self.model.metrics), default=0)
        rows.setFixedWidth(max(METRIC_MIN_PX, min(METRIC_MAX_PX, widest + METRIC_AIR_PX)))

    # ------------------------------------------------------------------ commands

    def show_lower(self, key: str) -> None:
        """Show the sizes, the changed answers or, where they share one card, the latencies."""
        for name, switch in self._switches.items():
            switch.set_current(name)
        self.below.setCurrentWidget({LATENCY: self.latency, SIZES: self.sizes, FLIPS: self.flip_card}[key])

    def _on_variant_toggled(self, action: QAction) -> None:
        key = action.data()
        if action.isChecked():
            self._hidden.discard(key)
        else:
            self._hidden.add(key)
        self._on_variants_changed()

    def _on_variant_chosen(self, _index: int) -> None:
        self._show_variant()

    def _on_theme_changed(self, _theme: object) -> None:
        self.choose.setIcon(icon("chevron-down", "muted", 14))

    def _on_export_failed(self, error: object) -> None:
        tell_export_failed(self._session, error)


def _table(name: str, accessible_name: str) -> QTableView:
    table = QTableView()
    table.setObjectName(name)
    table.setAccessibleName(accessible_name)
    table.setAlternatingRowColors(True)
    table.setShowGrid(False)
    table.setWordWrap(False)
    table.setTabKeyNavigation(False)  # Tab leaves the table; arrows move in it
    FocusEdge(table)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(ROW_PX)
    table.verticalHeader().setObjectName(f"{name}.rows")
    header = table.horizontalHeader()
    header.setHighlightSections(False)
    header.setObjectName(f"{name}.header")
    header.setAccessibleName(f"Columns of {accessible_name.lower()}")
    return table
