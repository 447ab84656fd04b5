"""Every variant of the session: how good against what it costs, as a plot and as a table."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QSortFilterProxyModel, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QPushButton,
    QSplitter,
    QTableView,
    QVBoxLayout,
    QWidget,
)
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.data_spec import ON_CALIBRATION
from quantstudio.core.results import Interval
from quantstudio.gui.itemmodels.variant_facts import latency_of, predicted_share, quality_of, size_of
from quantstudio.gui.itemmodels.variant_table import SORT_ROLE, VARIANT_ROLE, VariantColumn, VariantTableModel
from quantstudio.gui.panels.export_notice import tell_export_failed
from quantstudio.gui.plots.trade_off import TradeOffPlot, TradeOffPoint
from quantstudio.gui.session import Session, Variant
from quantstudio.gui.widgets.card import Card
from quantstudio.gui.widgets.refresher import Refresher
from quantstudio.gui.widgets.segmented import Segmented

SIZE = "size"
LATENCY = "latency"
PREDICTED_KEY = "predicted"
ROW_PX = 30
NAME_LEAST_PX = 110
_GIVING_WAY = (VariantColumn.STATE, VariantColumn.SPEEDUP)
_WIDTHS = {
    VariantColumn.QUALITY: 80,
    VariantColumn.CHANGE: 194,
    VariantColumn.SIZE: 84,
    VariantColumn.LATENCY: 96,
    VariantColumn.SPEEDUP: 140,
    VariantColumn.STATE: 176,
}


class TradeoffPanel(QWidget):
    """Scatter above, table below; a click on a dot or a double click on a row loads that recipe."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("panel.tradeoff")
        self._session = session
        self._refresher = Refresher(self)
        self.plot = TradeOffPlot()
        self.cost = Segmented(((SIZE, "Size"), (LATENCY, "Latency")), "Cost shown", pixels=11)
        self.cost.setObjectName("tradeoff.cost")
        self.plot.add_to_header(self.cost)
        self.model = VariantTableModel(session, self)
        self.sorted = QSortFilterProxyModel(self)
        self.sorted.setSourceModel(self.model)
        self.sorted.setSortRole(SORT_ROLE)
        self.card = Card("Variants", "double-click a row to load its recipe")
        self.table = self._make_table()
        self._build()
        self._connect()
        self._refresher.request()

    def _make_table(self) -> QTableView:
        table = QTableView()
        table.setObjectName("tradeoff.table")
        table.setAccessibleName("Variants")
        table.setModel(self.sorted)
        table.setAlternatingRowColors(True)
        table.setShowGrid(False)
        table.setWordWrap(False)
        table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        table.setSortingEnabled(True)
        table.horizontalHeader().setSortIndicatorClearable(True)
        table.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(ROW_PX)
        header = table.horizontalHeader()
        header.setHighlightSections(False)
        header.setObjectName("tradeoff.header")
        header.setAccessibleName("Columns of the variants")
        header.setSectionResizeMode(VariantColumn.NAME, QHeaderView.ResizeMode.Stretch)
        for column, width in _WIDTHS.items():
            table.setColumnWidth(column, width)
        return table

    def _build(self) -> None:
        self.load = QPushButton("Load recipe")
        self.load.setObjectName("tradeoff.load")
        self.load.setAccessibleName("Load the recipe of the chosen variant")
        self.load.setEnabled(False)
        self.measure_all = QPushButton("Measure all")
        self.measure_all.setObjectName("tradeoff.measure_all")
        self.measure_all.setAccessibleName("Measure every variant, interleaved")
        self.card.body.setContentsMargins(0, 8, 0, 2)
        self.card.header.setContentsMargins(14, 0, 12, 0)
        self.card.add_to_header(self.measure_all)
        self.card.add_to_header(self.load)
        self.card.add(self.table)
        splitter = QSplitter(Qt.Orientation.Vertical)
        splitter.setObjectName("tradeoff.splitter")
        splitter.setHandleWidth(8)
        splitter.setChildrenCollapsible(False)
        splitter.addWidget(self.plot)
        splitter.addWidget(self.card)
        splitter.setSizes([320, 210])
        splitter.setStretchFactor(0, 3)
        splitter.setStretchFactor(1, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(splitter)

    def _connect(self) -> None:
        session = self._session
        self._refresher.due.connect(self._on_variants_changed)
        for signal in (session.variants_changed, session.model_changed, session.prediction_changed):
            signal.connect(self._refresher.request)
        self.plot.variant_chosen.connect(self._on_dot_chosen)
        self.plot.action_asked.connect(session.measure)
        self.plot.export_failed.connect(self._on_export_failed)
        self.cost.chosen.connect(self._on_cost_chosen)
        self.table.doubleClicked.connect(self._on_row_activated)
        self.table.selectionModel().currentRowChanged.connect(self._on_row_changed)
        self.load.clicked.connect(self._on_load)
        self.measure_all.clicked.connect(session.measure_every)

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        room = event.size().width() - NAME_LEAST_PX - 14
        shown = dict(_WIDTHS)
        for column in _GIVING_WAY:
            if sum(shown.values()) > room:
                shown.pop(column)
        for column in _WIDTHS:
            self.table.setColumnHidden(column, column not in shown)

    # ------------------------------------------------------------------ content

    def _on_variants_changed(self) -> None:
        built = [v for v in self._session.variants if v.build is not None]
        self.measure_all.setVisible(bool(built))
        self.load.setVisible(bool(built))
        self._on_row_changed()
        points = self._points()
        if not any(not p.is_predicted for p in points):
            self._show_empty()
            return
        is_size = self.cost.current == SIZE
        quality = self._quality_name()
        self.plot.show_points(
            points,
            f"{quality} against {'size' if is_size else 'latency'}",
            "Model size (MB)" if is_size else "Latency p50 (ms)",
            f"{quality} (%)",
        )

    def _show_empty(self) -> None:
        if self._session.model is None:
            self.plot.show_empty("Open a model to compare its variants.")
        elif self._session.test_data is None and self._session.calibration_data is None:
            self.plot.show_empty("Choose data to measure on, then build and measure a variant.")
        else:
            self.plot.show_empty(
                "Nothing has been measured yet. Build this recipe and measure it: it becomes the first dot.",
                "Measure",
            )

    def _quality_name(self) -> str:
        base = self._session.base
        quality = quality_of(base) if base is not None else None
        name = quality.name if quality is not None else "Accuracy"
        return f"{name} {ON_CALIBRATION}" if self._session.is_measured_on_calibration else name

    def _points(self) -> list[TradeOffPoint]:
        points = [self._point(variant) for variant in self._session.variants]
        predicted = self._predicted_point()
        return [p for p in (*points, predicted) if p is not None]

    def _point(self, variant: Variant) -> TradeOffPoint | None:
        quality = quality_of(variant)
        cost = self._cost_of(variant)
        if quality is None or cost is None or self._session.model is None:
            return None
        value = quality.value
        lines = [f"{quality.name} {figures.percent(value.value)}"]
        if quality.has_interval:
            lines[0] += f"  [{figures.percent(value.low)}, {figures.percent(value.high)}]"
        lines.append(figures.size(size_of(variant, self._session.model.file_bytes)))
        latency = latency_of(variant, self._session.base)
        if latency is not None:
            lines.append(figures.milliseconds(latency.value))
        lines.append("measured" if variant.is_base else "measured — click to load this recipe")
        return TradeOffPoint(
            key=variant.variant_hash,
            name=variant.name,
            cost=cost,
            quality=Interval(value.value * 100, value.low * 100, value.high * 100),
            is_base=variant.is_base,
            is_current=variant.is_current,
            detail="\n".join(lines),
        )

    def _cost_of(self, variant: Variant) -> Interval | None:
        if self.cost.current == LATENCY:
            return latency_of(variant, self._session.base)
        model = self._session.model
        if model is None:
            return None
        megabytes = size_of(variant, model.file_bytes) / 1e6
        return Interval(megabytes, megabytes, megabytes)

    def _predicted_point(self) -> TradeOffPoint | None:
        """The recipe as it is now, as a hollow diamond, until it has been measured."""
        prediction, current = self._session.prediction, self._session.current_variant
        if prediction is None or prediction.accuracy is None or (current is not None and current.result):
            return None
        if self.cost.current == LATENCY:
            value = prediction.latency_ms
        else:
            value = prediction.size_bytes / 1e6 if prediction.size_bytes is not None else None
        if value is None:
            return None
        base = self._session.base
        accuracy = predicted_share(
            prediction.accuracy,
            self._session.sensitivity_curve,
            quality_of(base) if base is not None else None,
        )
        return TradeOffPoint(
            key=PREDICTED_KEY,
            name="this recipe, predicted",
            cost=Interval(value, value, value),
            quality=Interval(accuracy.value * 100, accuracy.low * 100, accuracy.high * 100),
            is_current=True,
            is_predicted=True,
            detail=f"{figures.percent(accuracy.value)} predicted\nmeasure to know",
        )

    # ------------------------------------------------------------------ commands

    def _variant_of(self, key: str) -> Variant | None:
        return next((v for v in self._session.variants if v.variant_hash == key), None)

    def _chosen(self) -> Variant | None:
        index = self.table.currentIndex()
        return index.data(VARIANT_ROLE) if index.isValid() else None

    def _load_variant(self, variant: Variant | None) -> None:
        if variant is not None and not variant.is_base:
            self._session.load_variant(variant)

    def _on_dot_chosen(self, key: str) -> None:
        self._load_variant(self._variant_of(key))

    def _on_row_activated(self, index: QModelIndex) -> None:
        self._load_variant(index.data(VARIANT_ROLE))

    def _on_row_changed(self, *_args: object) -> None:
        chosen = self._chosen()
        self.load.setEnabled(chosen is not None and not chosen.is_base and not chosen.is_current)

    def _on_load(self) -> None:
        self._load_variant(self._chosen())

    def _on_cost_chosen(self, _key: str) -> None:
        self._on_variants_changed()

    def _on_export_failed(self, error: object) -> None:
        tell_export_failed(self._session, error)
