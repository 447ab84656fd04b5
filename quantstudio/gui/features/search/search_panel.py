"""The budget dial: what the best plan may cost, what single precisions would, and the search itself."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.precision import LayerScheme
from quantstudio.core.search_results import ANY_CLASS_DROP, ActivationFamily, Recover, SearchBudget
from quantstudio.gui.facts.plan_facts import change_text, figures_of, time_ratio
from quantstudio.gui.features.search.reference_list import ReferenceList
from quantstudio.gui.features.search.search_bounds import (
    CLASS_DROP,
    bounds_for,
    obstacle_text,
    reachable_text,
)
from quantstudio.gui.session import Session
from quantstudio.gui.theme import theme_hub
from quantstudio.gui.widgets.bound_row import BoundRow
from quantstudio.gui.widgets.budget_panel import BudgetPanel
from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.gui.widgets.enabling import allow
from quantstudio.gui.widgets.refresher import Refresher
from quantstudio.gui.widgets.small_button import SmallButton
from quantstudio.workspace.runs.searches import plan_name
from quantstudio.workspace.search_references import (
    FAMILY_TEXTS,
    Reference,
    references,
)
from quantstudio.workspace.search_terms import (
    RECOVER_TEXTS,
    SMALLEST_FILE,
    SearchTerms,
    pins_for,
    relaxed,
    set_by_hand,
)

WIDTH_PX = 298


class SearchPanel(BudgetPanel):
    """Bounds above, what they mean below, one button."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__("Search", "", parent)
        self.setObjectName("panel.search")
        self.setFixedWidth(WIDTH_PX)
        self._session = session
        self._refresher = Refresher(self, 1)
        self._references: tuple[Reference, ...] = ()
        self._made_of: tuple[object, ...] = ()
        self._bounds = bounds_for(())
        self.rows = {bound.key: BoundRow(bound) for bound in self._bounds}
        for key in ("max_drop", CLASS_DROP):
            self.rows[key].set_value(next(b.usual for b in self._bounds if b.key == key))
        self._last_drop = self.rows["max_drop"].value
        hide = SmallButton("search.close", "Hide", "Hide the search panel")
        hide.clicked.connect(self.closed)
        self.add_to_header(hide)
        most = figures.number(SMALLEST_FILE.max_drop or 0.0, 1)
        self.smallest = QPushButton(f"Smallest file, {most} points at most")
        self.smallest.setToolTip(f"Search the smallest file that loses at most {most} points")
        self.smallest.setObjectName("search.smallest")
        self.smallest.setAccessibleName(self.smallest.text())
        self.body.addWidget(self.smallest)
        self._build_dial()
        self.references = ReferenceList()
        self.body.addWidget(self.references)
        self._build_verdict()
        self._build_foot()
        self._connect()
        self._on_result()
        self._refresh()

    # What is asked for.

    @property
    @override
    def budget(self) -> SearchBudget:
        """The bounds as they stand."""
        values = {key: row.value for key, row in self.rows.items()}
        size = values["max_size_bytes"]
        return SearchBudget(
            max_drop=values["max_drop"],
            max_size_bytes=None if size is None else round(size),
            max_latency_ratio=values["max_latency_ratio"],
            average_bits=values["average_bits"],
            max_share_above_8=values["max_share_above_8"],
            max_class_drop=self._class_drop(),
        )

    def _class_drop(self) -> float | None:
        """The bound on a class; None is the default, which follows the bound on all classes together."""
        own = self.rows[CLASS_DROP].value
        if self._follows(self.rows["max_drop"].value):
            return None
        return ANY_CLASS_DROP if own is None else own

    @override
    def take_focus(self) -> None:
        self.rows["max_drop"].check.setFocus()

    @property
    def terms(self) -> SearchTerms:
        """Everything a search is asked for."""
        pins = pins_for(self._by_hand()) if self.keep.isChecked() else ()
        return SearchTerms(self.budget, self._family(), pins, self.judge.isChecked(), self._recover())

    def set_budget(self, budget: SearchBudget) -> None:
        """Show other bounds."""
        for key, row in self.rows.items():
            row.set_value(budget.class_drop if key == CLASS_DROP else getattr(budget, key))
        self._last_drop = budget.max_drop
        self._on_terms_changed()

    # Building.

    def _build_dial(self) -> None:
        inside = QWidget()
        inside.setObjectName("search.dial")
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 2, 8, 0)
        column.setSpacing(6)
        for row in self.rows.values():
            column.addWidget(row)
        self.family = _choice("search.family", "Activations in the plans", FAMILY_TEXTS)
        column.addLayout(_labelled("Activations", self.family))
        self.recover = _choice(
            "search.recover", "What wins back what few bits lose, before a plan is measured", RECOVER_TEXTS
        )
        column.addLayout(_labelled("Recover", self.recover))
        self.keep = QCheckBox("Keep layers I set by hand")
        self.keep.setObjectName("search.keep")
        self.judge = QCheckBox("Judge on the test data")
        self.judge.setObjectName("search.judge")
        self.judge.setChecked(True)
        self.judge.setToolTip("The chosen plan must keep the accuracy bound on the test data too")
        column.addWidget(self.keep)
        column.addWidget(self.judge)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setObjectName("search.scroll")
        scroll.setAccessibleName("Bounds")
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        # A scroll area paints the window's colour; the card shows through.
        scroll.viewport().setAutoFillBackground(False)
        inside.setAutoFillBackground(False)
        self.add(scroll)

    def _build_verdict(self) -> None:
        """What the last search said: the bound in the way, or the plan it chose."""
        self.verdict = QFrame()
        self.verdict.setObjectName("search.verdict")
        self.verdict_text = QLabel()
        self.verdict_text.setObjectName("search.verdict.text")
        self.verdict_text.setWordWrap(True)
        self.verdict_text.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        self.nearest = QPushButton()
        self.nearest.setObjectName("search.nearest")
        self.load = QPushButton("Load this plan")
        self.load.setObjectName("search.load")
        self.load.setAccessibleName("Load the chosen plan")
        column = QVBoxLayout(self.verdict)
        column.setContentsMargins(0, 4, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.verdict_text)
        column.addWidget(self.nearest)
        column.addWidget(self.load)
        self.body.addWidget(self.verdict)

    def _build_foot(self) -> None:
        self.progress = QProgressBar()
        self.progress.setObjectName("search.progress")
        self.progress.setAccessibleName("Progress of the search")
        self.progress.setTextVisible(False)
        self.status = ElidedLabel()
        self.status.setObjectName("search.status")
        self.status.setProperty("role", "caption")
        self.start = QPushButton("Search")
        self.start.setObjectName("search.start")
        self.start.setProperty("primary", True)
        self.stop = QPushButton("Stop")
        self.stop.setObjectName("search.stop")
        self.stop.setAccessibleName("Stop the search")
        for widget in (self.progress, self.status, self.start, self.stop):
            self.body.addWidget(widget)

    def _connect(self) -> None:
        session = self._session
        self.rows["max_drop"].changed.connect(self._on_drop_changed)
        for row in self.rows.values():
            row.changed.connect(self._on_terms_changed)
        self.family.currentIndexChanged.connect(self._on_choice_changed)
        self.recover.currentIndexChanged.connect(self._on_choice_changed)
        self.smallest.clicked.connect(self._on_smallest)
        self.start.clicked.connect(self._on_start)
        self.stop.clicked.connect(session.workspace.searches.cancel)
        self.nearest.clicked.connect(self._on_nearest)
        self.load.clicked.connect(self._on_load)
        self._refresher.due.connect(self._refresh)
        for signal in (
            session.model_changed,
            session.data_changed,
            session.recipe_changed,
            session.prediction_changed,
            session.search_changed,
        ):
            signal.connect(self._refresher.request)
        session.model_changed.connect(self._on_result)
        session.jobs_changed.connect(self._show_foot)
        theme_hub().theme_changed.connect(self._on_theme_changed)

    # Keeping up.

    def _family(self) -> ActivationFamily:
        return ActivationFamily(self.family.currentData())

    def _recover(self) -> Recover:
        return Recover(self.recover.currentData())

    def _by_hand(self) -> dict[str, LayerScheme]:
        return set_by_hand(
            self._session.workspace.recipe,
            self._session.workspace.layers,
            self._session.workspace.searches.found,
        )

    def _refresh(self) -> None:
        session = self._session
        self._refresh_references()
        by_hand = self._by_hand()
        self.keep.setEnabled(bool(by_hand))
        self.keep.setText(
            f"Keep {len(by_hand)} layers I set by hand" if by_hand else "Keep layers I set by hand"
        )
        self.keep.setToolTip(", ".join(list(by_hand)[:12]) or "No layer of this plan was set by hand")
        allow(self.judge, "" if session.workspace.test_data is not None else "Choose test data first")
        self._show_references()
        self._show_verdict()
        self._show_foot()

    def _refresh_references(self) -> None:
        """Single precisions are predicted anew only where what they are made of has changed."""
        known = self._session.workspace
        measured = (one.result for one in known.variants)
        tables = (known.model, known.costs, known.sensitivity_curve, known.sensitivity_run)
        made_of = (self._family(), self._recover(), *tables, known.search_result, *measured)
        if len(made_of) == len(self._made_of) and all(map(operator.is_, made_of, self._made_of)):
            return
        self._made_of = made_of
        self._references = references(self._session.workspace, self._family(), self._recover())
        self._bounds = bounds_for(self._references)
        for bound in self._bounds:
            self.rows[bound.key].set_bound(bound)

    def _show_references(self) -> None:
        self.references.show_references(self._references, self.budget)

    def _show_verdict(self) -> None:
        search = self._session.workspace.searches
        obstacle, chosen = search.obstacle, search.chosen
        is_searching = search.job is not None
        self.verdict.setVisible(not is_searching and (obstacle is not None or chosen is not None))
        self.nearest.setVisible(obstacle is not None)
        is_loaded = chosen is not None and chosen.recipe == self._session.workspace.recipe
        self.load.setVisible(obstacle is None and chosen is not None and not is_loaded)
        if obstacle is not None:
            self.verdict_text.setProperty("role", "error")
            self.verdict_text.setText(obstacle_text(obstacle, self._bounds))
            value = getattr(relaxed(self.budget, obstacle), obstacle.bound)
            bound = next(b for b in self._bounds if b.key == obstacle.bound)
            self.nearest.setText(
                f"Search without {bound.title.lower()}"
                if value is None
                else f"Use nearest budget: {reachable_text(bound, value)}"
            )
            self.nearest.setAccessibleName(self.nearest.text())
        elif chosen is not None:
            plan = figures_of(chosen)
            self.verdict_text.setProperty("role", "muted")
            ratio = time_ratio(chosen, self._session.workspace.variant_of(chosen.recipe))
            speed = f", {figures.ratio(ratio)} the time" if ratio else ""
            notes = (
                self._session.workspace.searches.result.notes
                if self._session.workspace.searches.result is not None
                else ()
            )
            file = f"{figures.size(plan.size_bytes)} file, " if plan.size_bytes is not None else ""
            sentence = f"Chosen: {plan_name(chosen)}, {file}{change_text(plan)} measured{speed}."
            self.verdict_text.setText(" ".join((sentence, *notes)))
        self.verdict_text.style().unpolish(self.verdict_text)
        self.verdict_text.style().polish(self.verdict_text)

    def _show_foot(self) -> None:
        session = self._session
        row = session.workspace.searches.job
        is_ready = session.workspace.model is not None and session.workspace.calibration_data is not None
        self.progress.setVisible(row is not None)
        self.stop.setVisible(row is not None)
        self.start.setVisible(row is None)
        is_bounded = any(row.value is not None for row in self.rows.values())
        missing = "Open a model first" if session.workspace.model is None else "Turn on at least one bound"
        can_start = session.workspace.model is not None and (is_bounded or not is_ready)
        allow(self.start, "" if can_start else missing)
        is_idle, has_model = row is None, session.workspace.model is not None
        allow(self.smallest, "" if is_idle and has_model else "A search is running" if has_model else missing)
        self.start.setText("Search" if is_ready or session.workspace.model is None else "Choose data…")
        self.start.setAccessibleName(self.start.text())
        idle = self._idle_text(is_bounded=is_bounded)
        self.status.setVisible(row is not None or bool(idle))
        if row is None:
            self.status.setText(idle)
            return
        now = session.workspace.jobs.running or row
        fraction = now.fraction
        self.progress.setRange(0, 0 if fraction is None else 1000)
        self.progress.setValue(0 if fraction is None else round(1000 * fraction))
        parts = [now.label or now.title]
        if now.total:
            parts.append(f"{now.done} / {now.total}")
        if now.seconds_left is not None and now.seconds_left >= 1:
            parts.append(f"{figures.number(now.seconds_left, 0)} s left")
        self.status.setText(" · ".join(parts))

    def _idle_text(self, *, is_bounded: bool) -> str:
        session = self._session
        if session.workspace.model is None:
            return "Open a model to search for its best precisions."
        if session.workspace.calibration_data is None:
            return "A search measures its plans: choose data first."
        return "" if is_bounded else "Turn on at least one bound."

    # What the user does.

    def _on_terms_changed(self) -> None:
        self._show_references()
        self._show_foot()
        self.terms_changed.emit()

    def _on_drop_changed(self) -> None:
        """The bound on a class keeps to twice the one on all, unless somebody set it."""
        drop = self.rows["max_drop"].value
        if self._follows(self._last_drop):
            self.rows[CLASS_DROP].set_value(SearchBudget(max_drop=drop).class_drop)
        self._last_drop = drop

    def _follows(self, drop: float | None) -> bool:
        """Whether the bound on a class is the default beside a bound on all classes together."""
        own, usual = self.rows[CLASS_DROP].value, SearchBudget(max_drop=drop).class_drop
        return own is usual if own is None or usual is None else math.isclose(own, usual)

    def _on_choice_changed(self, _index: int) -> None:
        self._refresh()
        self.terms_changed.emit()

    def _on_start(self) -> None:
        if self._session.workspace.calibration_data is None:
            self._session.data_offered.emit("")
        else:
            self._session.workspace.searches.start(self.terms)

    def _on_smallest(self) -> None:
        """Ask for the smallest file and nothing else, whatever the dial said."""
        self.set_budget(SMALLEST_FILE)
        self._on_start()

    def _on_nearest(self) -> None:
        obstacle = self._session.workspace.searches.obstacle
        if obstacle is not None:
            self.set_budget(relaxed(self.budget, obstacle))
            self._on_start()

    def _on_load(self) -> None:
        chosen = self._session.workspace.searches.chosen
        if chosen is not None:
            self._session.workspace.searches.load(chosen)

    def _on_result(self) -> None:
        """Another model: the dial stands where its last search had it."""
        found = self._session.workspace.searches.result
        self._refresh_references()
        if found is not None:
            self.set_budget(found.budget)

    def _on_theme_changed(self, _theme: object) -> None:
        self._show_references()


def _choice(name: str, accessible: str, texts: Mapping[Any, str]) -> QComboBox:
    """A drop-down whose longest words do not widen the card."""
    box = QComboBox()
    box.setObjectName(name)
    box.setAccessibleName(accessible)
    box.setToolTip(accessible)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)
    for value, text in texts.items():
        box.addItem(text, value)
    return box


def _labelled(text: str, box: QComboBox) -> QHBoxLayout:
    label = QLabel(text)
    label.setProperty("role", "caption")
    label.setBuddy(box)
    line = QHBoxLayout()
    line.setSpacing(8)
    line.addWidget(label)
    line.addWidget(box, 1)
    return line
