"""How good against what it costs: variants and the plans of a search, as a plot and as tables."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QSize, QSortFilterProxyModel, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QTableView,
    QVBoxLayout,
    QWidget,
)
from typing_extensions import override

from quantstudio.core.data_spec import ON_CALIBRATION
from quantstudio.core.search_results import PlanPoint
from quantstudio.core.variants import Variant
from quantstudio.gui.facts.export_notice import tell_export_failed
from quantstudio.gui.facts.variant_facts import quality_of
from quantstudio.gui.features.tradeoff.check_panel import CheckPanel
from quantstudio.gui.features.tradeoff.plan_table import PLAN_SORT_ROLE, PlanColumn, PlanTableModel
from quantstudio.gui.features.tradeoff.tradeoff_points import COST_NAMES, PLAN_KEY, Cost, TradeoffPoints
from quantstudio.gui.features.tradeoff.variant_table import (
    SORT_ROLE,
    VARIANT_ROLE,
    VariantColumn,
    VariantTableModel,
)
from quantstudio.gui.plots.trade_off import TradeOffPlot
from quantstudio.gui.session import Session
from quantstudio.gui.theme import icon, theme_hub
from quantstudio.gui.widgets.budget_panel import BudgetPanel
from quantstudio.gui.widgets.card import Card
from quantstudio.gui.widgets.enabling import allow
from quantstudio.gui.widgets.refresher import Refresher
from quantstudio.gui.widgets.row_table import fit_columns, row_table
from quantstudio.gui.widgets.segmented import Segmented
from quantstudio.gui.widgets.small_button import SmallButton

VARIANTS, PLANS = "variants", "plans"
TRADE_OFF, CHECK = "tradeoff", "check"
SQNR_NAME = "Output SQNR"
# A panel at least this wide shows the search beside the plot without being asked.
SEARCH_ROOM_PX = 800
_GAP_PX = 8
_NAME_GIVES_PX = 20
_VARIANT_WIDTHS = {
    VariantColumn.CONTENTS: 112,
    VariantColumn.QUALITY: 78,
    VariantColumn.CHANGE: 192,
    VariantColumn.SIZE: 72,
    VariantColumn.LATENCY: 92,
    VariantColumn.SPEEDUP: 140,
    VariantColumn.STATE: 176,
}
_VARIANT_GIVING_WAY = (
    VariantColumn.STATE,
    VariantColumn.SPEEDUP,
    VariantColumn.CONTENTS,
    VariantColumn.LATENCY,
)
_PLAN_WIDTHS = {
    PlanColumn.CHANGE: 94,  # "−53.52 pp"
    PlanColumn.BITS: 56,
    PlanColumn.FILE: 84,
    PlanColumn.LATENCY: 66,
    PlanColumn.KL: 90,  # "3.2×10⁻⁵"
    PlanColumn.STATE: 84,
}
_PLAN_GIVING_WAY = (PlanColumn.KL, PlanColumn.LATENCY, PlanColumn.FILE, PlanColumn.STATE)


class TradeoffPanel(QWidget):
    """Scatter above, tables below, a budget beside; a click on a dot or a row loads that recipe.

    Signals:
        data_asked(): whoever chooses data is asked for.
        model_asked(): a model is to be opened.
    """

    data_asked = Signal()
    model_asked = Signal()

    def __init__(
        self,
        session: Session,
        beside: BudgetPanel,
        plots: tuple[TradeOffPlot, CheckPanel] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("panel.tradeoff")
        self._session = session
        self._bits: dict[str, float] = {}
        self._is_search_wanted: bool | None = None
        self._had_plans = False
        self._refresher = Refresher(self)
        self.plot, self.check = plots or (TradeOffPlot(), CheckPanel(session))
        self.cost = Segmented(
            (
                (Cost.SIZE.value, "File"),
                (Cost.LATENCY.value, "Latency"),
                (Cost.BITS.value, "Bits"),
            ),
            "Cost shown",
            pixels=11,
        )
        self.cost.setObjectName("tradeoff.cost")
        self.view = Segmented(
            ((TRADE_OFF, "Trade-off"), (CHECK, "Prediction check")), "Plot shown", pixels=11
        )
        self.view.setObjectName("tradeoff.view")
        self.beside = beside
        self.model = VariantTableModel(session, self)
        self.sorted = _sorted(self.model, SORT_ROLE, self)
        self.table = row_table("tradeoff.table", "Variants", self.sorted, _VARIANT_WIDTHS)
        self.plan_model = PlanTableModel(session, self)
        self.sorted_plans = _sorted(self.plan_model, PLAN_SORT_ROLE, self)
        self.plans = row_table("tradeoff.plans", "Plans of the search", self.sorted_plans, _PLAN_WIDTHS)
        self._build()
        self._connect()
        self._retheme()
        self._refresher.request()

    def _build(self) -> None:
        # From the outside in: each new parent styles all that is inside anew.
        splitter = QSplitter(Qt.Orientation.Vertical, self)
        splitter.setObjectName("tradeoff.splitter")
        splitter.setHandleWidth(8)
        splitter.setChildrenCollapsible(False)
        self.plots = QStackedWidget(splitter)
        self.card = Card("Variants", "", splitter)
        self.plots.addWidget(self.plot)
        self.plots.addWidget(self.check)
        self._build_tables()
        splitter.setSizes([320, 210])
        splitter.setStretchFactor(0, 3)
        splitter.setStretchFactor(1, 1)
        row = QHBoxLayout(self)
        left = QVBoxLayout()
        left.setSpacing(6)
        left.addLayout(self._build_top())
        left.addWidget(splitter, 1)
        # A search shown because there was room for it must not hold that room: see minimumSizeHint.
        row.setSizeConstraint(QHBoxLayout.SizeConstraint.SetNoConstraint)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(_GAP_PX)
        row.addLayout(left, 1)
        row.addWidget(self.beside)

    def _build_tables(self) -> None:
        self.card.subtitle.set_wordings("double-click a row to load its recipe", "double-click to load", "")
        self.rows = Segmented(((VARIANTS, "Variants"), (PLANS, "Search plans")), "Rows shown", pixels=11)
        self.rows.setObjectName("tradeoff.rows")
        self.card.replace_title(self.rows)
        self.load = SmallButton("tradeoff.load", "Load", "Load the recipe of the chosen row")
        self.load_as = SmallButton(
            "tradeoff.load_as", "Load as plan", "Load the chosen row as a plan of its own"
        )
        self.measure_all = SmallButton(
            "tradeoff.measure_all", "Measure all", "Measure every variant, interleaved"
        )
        self.card.body.setContentsMargins(0, 8, 0, 2)
        self.card.header.setContentsMargins(14, 0, 12, 0)
        self.card.add_to_header(self.measure_all, self.load_as, self.load)
        self.stack = QStackedWidget(self.card)
        self.stack.addWidget(self.table)
        self.stack.addWidget(self.plans)
        self.card.add(self.stack)

    def _build_top(self) -> QHBoxLayout:
        self.show_search = QPushButton("Search…")
        self.show_search.setObjectName("tradeoff.search")
        self.show_search.setAccessibleName("Find the best precision of every layer")
        self.show_search.setToolTip("Find the best precision of every layer")
        top = QHBoxLayout()
        top.setContentsMargins(2, 0, 2, 0)
        top.setSpacing(8)
        top.addWidget(self.view)
        top.addStretch(1)
        top.addWidget(self.cost)
        top.addWidget(self.show_search)
        return top

    def _connect(self) -> None:
        session = self._session
        self._refresher.due.connect(self._on_variants_changed)
        for signal in (
            session.variants_changed,
            session.model_changed,
            session.prediction_changed,
            session.recipe_changed,
            session.search_changed,
        ):
            signal.connect(self._refresher.request)
        session.model_changed.connect(self._bits.clear)
        self.beside.terms_changed.connect(self._show_limits)
        self.beside.asked.connect(self.open_search)
        self.beside.closed.connect(self._on_search_closed)
        self.show_search.clicked.connect(self._on_search_asked)
        self.plot.variant_chosen.connect(self._on_dot_chosen)
        self.plot.action_asked.connect(self._on_empty_asked)
        for plot in (self.plot, self.check):
            plot.export_failed.connect(self._on_export_failed)
        self.view.chosen.connect(self._on_view_chosen)
        self.cost.chosen.connect(self._on_cost_chosen)
        self.rows.chosen.connect(self._on_rows_chosen)
        for table in (self.table, self.plans):
            table.doubleClicked.connect(self._on_row_activated)
            table.activated.connect(self._on_row_activated)
            table.selectionModel().currentRowChanged.connect(self._on_row_changed)
        self.load.clicked.connect(self._on_load)
        self.load_as.clicked.connect(self._on_load_as)
        self.measure_all.clicked.connect(session.workspace.runs.measure_every)
        theme_hub().theme_changed.connect(self._retheme)

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._place_search()
        self._fit_columns()

    @override
    def minimumSizeHint(self) -> QSize:
        hint = super().minimumSizeHint()
        if self._is_search_wanted is None and self.beside.isVisibleTo(self):
            beside = self.beside.minimumSizeHint().width() + _GAP_PX
            hint.setWidth(hint.width() - beside)
        return hint

    def _fit_columns(self) -> None:
        room = self.width() - (self.beside.width() + 8 if self.beside.isVisibleTo(self) else 0)
        # What a variant contains says more of it than the end of its name.
        fit_columns(self.table, room + _NAME_GIVES_PX, _VARIANT_WIDTHS, _VARIANT_GIVING_WAY)
        fit_columns(self.plans, room, _PLAN_WIDTHS, _PLAN_GIVING_WAY)

    # ------------------------------------------------------------------ the search beside

    def open_search(self) -> None:
        """Show the search and put the cursor on its first bound."""
        self._is_search_wanted = True
        self._place_search()
        self.beside.take_focus()

    def _place_search(self) -> None:
        wanted = self._is_search_wanted
        shown = self.width() >= SEARCH_ROOM_PX if wanted is None else wanted
        self.show_search.setVisible(not shown)
        if shown != self.beside.isVisibleTo(self):
            self.beside.setVisible(shown)
            self._fit_columns()
            self._show_limits()

    def _on_search_asked(self) -> None:
        self.open_search()

    def _on_search_closed(self) -> None:
        self._is_search_wanted = False
        self._place_search()

    # ------------------------------------------------------------------ content

    def _on_variants_changed(self) -> None:
        built = [v for v in self._session.workspace.variants if v.build is not None]
        self.plan_model.refresh()
        has_plans = self.plan_model.rowCount() > 0
        self.rows.set_choice_enabled(
            PLANS, has_plans, "" if has_plans else "Search first: its plans appear here"
        )
        self.measure_all.setVisible(bool(built))
        self._on_row_changed()
        if has_plans and not self._had_plans:
            self._turn_to_plans()
        self._had_plans = has_plans
        makes = self._points()
        points = makes.all()
        if not points:
            self._show_empty()
            return
        quality, unit = (SQNR_NAME, "dB") if makes.is_sqnr else (self._quality_name(), "%")
        where = f" {ON_CALIBRATION}" if self._session.workspace.is_measured_on_calibration else ""
        title = f"{quality}{where} against {COST_NAMES[self._cost()]}"
        self.plot.show_points(points, title, makes.axis, f"{quality} ({unit})")
        self._show_limits()

    def _turn_to_plans(self) -> None:
        """The first front."""
        self.rows.set_current(PLANS)
        self.stack.setCurrentWidget(self.plans)

    def _show_limits(self) -> None:
        """What the dial forbids while it is open."""
        is_asked = self.beside.isVisibleTo(self) and not self.plot.is_empty
        self.plot.show_limits(self._points().limits(self.beside.budget if is_asked else None))

    def _cost(self) -> Cost:
        return Cost(self.cost.current)

    def _on_empty_asked(self) -> None:
        workspace = self._session.workspace
        if workspace.model is None:
            self.model_asked.emit()
        elif workspace.test_data is None and workspace.calibration_data is None:
            self.data_asked.emit()
        else:
            workspace.runs.measure()

    def _points(self) -> TradeoffPoints:
        return TradeoffPoints(self._session, self._cost(), self._bits)

    def _show_empty(self) -> None:
        self.plot.set_title(f"Quality against {COST_NAMES[self._cost()]}")
        if self._session.workspace.model is None:
            self.plot.show_empty("Open a model to compare its variants.", "Open a model…")
        elif self._session.workspace.test_data is None and self._session.workspace.calibration_data is None:
            self.plot.show_empty(
                "Choose data to measure on, then build and measure a variant.", "Choose data…"
            )
        elif self._session.workspace.searches.job is not None:
            self.plot.show_empty("The front is drawn here as soon as the first plans are measured.")
        else:
            self.plot.show_empty(
                "Nothing has been measured yet. Measure this recipe, or search for the best plans.",
                "Measure",
            )

    def _quality_name(self) -> str:
        base = self._session.workspace.base
        quality = quality_of(base) if base is not None else None
        return quality.name if quality is not None else "Accuracy"

    # ------------------------------------------------------------------ commands

    def _shown(self) -> QTableView:
        return self.plans if self.stack.currentWidget() is self.plans else self.table

    def _chosen(self) -> Variant | PlanPoint | None:
        index = self._shown().currentIndex()
        return _row_value(index) if index.isValid() else None

    def _load(self, chosen: Variant | PlanPoint | None, *, as_plan: bool = False) -> None:
        if isinstance(chosen, PlanPoint):
            self._session.workspace.searches.load(chosen, as_plan=as_plan)
        elif chosen is not None and not chosen.is_base:
            if as_plan:
                self._session.workspace.edits.add_plan(chosen.name, chosen.recipe)
            else:
                self._session.workspace.edits.load_variant(chosen)

    def _on_dot_chosen(self, key: str) -> None:
        if key.startswith(PLAN_KEY):
            self._load(self._points().plan(key))
        else:
            self._load(next((v for v in self._session.workspace.variants if v.key == key), None))

    def _on_row_activated(self, index: QModelIndex) -> None:
        self._load(_row_value(index))

    def _on_row_changed(self, *_args: object) -> None:
        chosen = self._chosen()
        is_base = isinstance(chosen, Variant) and chosen.is_base
        can_load = chosen is not None and not is_base
        is_loaded = chosen is not None and chosen.recipe == self._session.workspace.recipe
        missing = "" if can_load else "FP32 has no recipe to load" if is_base else "Choose a row first"
        allow(self.load, missing or ("The plan has this recipe already" if is_loaded else ""))
        allow(self.load_as, missing)

    def _on_load(self) -> None:
        self._load(self._chosen())

    def _on_load_as(self) -> None:
        self._load(self._chosen(), as_plan=True)

    def _on_view_chosen(self, key: str) -> None:
        self.plots.setCurrentWidget(self.check if key == CHECK else self.plot)
        allow(self.cost, "" if key == TRADE_OFF else "Of the trade-off; the check has measures of its own")

    def _on_rows_chosen(self, key: str) -> None:
        self.stack.setCurrentWidget(self.plans if key == PLANS else self.table)
        self._on_row_changed()

    def _on_cost_chosen(self, _key: str) -> None:
        self._on_variants_changed()

    def _on_export_failed(self, error: object) -> None:
        tell_export_failed(self._session, error)

    def _retheme(self) -> None:
        self.show_search.setIcon(icon("search", "accent", 14))


def _sorted(model: VariantTableModel | PlanTableModel, role: int, parent: QWidget) -> QSortFilterProxyModel:
    proxy = QSortFilterProxyModel(parent)
    proxy.setSourceModel(model)
    proxy.setSortRole(role)
    return proxy


def _row_value(index: QModelIndex) -> Variant | PlanPoint | None:
    """What stands behind a row of either table; both use one role."""
    value = index.data(VARIANT_ROLE)
    return value if isinstance(value, Variant | PlanPoint) else None
