"""The sensitivity of every layer, as bars or class by class, with its controls, bound to the session."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QStackedWidget, QVBoxLayout, QWidget
from typing_extensions import override

from quantstudio.core.sensitivity_rows import EXACT
from quantstudio.gui.facts.export_notice import tell_export_failed
from quantstudio.gui.facts.needs import needs_float_weights, needs_float_weights_and_data
from quantstudio.gui.features.sensitivity.sensitivity_menu import MeasureChoices, SensitivityMenu, show_menu
from quantstudio.gui.features.sensitivity.threshold_bar import ThresholdBar
from quantstudio.gui.plots.plot import Plot
from quantstudio.gui.plots.sensitivity_classes import ClassSensitivityPlot
from quantstudio.gui.plots.sensitivity_scale import (
    REFERENCE,
    SensitivityScale,
    StripRow,
    direction_words,
    precision_names,
    precision_text,
    scale_for,
    strip_row,
)
from quantstudio.gui.plots.sensitivity_strip import SensitivityStrip
from quantstudio.gui.session import Session
from quantstudio.gui.theme import icon, theme_hub
from quantstudio.gui.widgets.elided_combo import ElidedComboBox
from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.gui.widgets.refresher import Refresher
from quantstudio.gui.widgets.segmented import Segmented
from quantstudio.gui.widgets.small_button import SmallButton
from quantstudio.gui.widgets.tag import MEASURED, PREDICTED, Tag

BARS = "bars"
CLASSES = "classes"
MORE = "more"
_LIST_PX = 190
_ICON_PX = 16
STRIP_TURN = 4
LEGEND_FROM_PX = 820
NARROW_PX = 600
_COMBO_PX, _COMBO_NARROW_PX = 120, 80
QWIDGETSIZE_MAX = (1 << 24) - 1  # Qt's own, which its Python names leave out
_LOW = "QComboBox { padding: 1px 6px; min-height: 18px; font-size: 11px; }"


class SensitivityPanel(QWidget):
    """Every layer's divergence as bars, or by class as a table of colours; a click selects the layer.

    With the threshold on, everything above a line gets one precision. The menu measures layers exactly and
    analyses them at further precisions.
    """

    def __init__(
        self,
        session: Session,
        plots: tuple[SensitivityStrip, ClassSensitivityPlot] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("panel.sensitivity")
        self._session = session
        self._was_analyzed = False
        self._refresher = Refresher(self, STRIP_TURN)
        self._recolour = Refresher(self, STRIP_TURN)
        self._choices = MeasureChoices()
        self._precision = REFERENCE
        self.strip, self.classes = plots or (SensitivityStrip(), ClassSensitivityPlot())
        self._make_controls()
        self.threshold_bar = ThresholdBar(session, self.strip)
        self.strip.body.insertWidget(1, self.threshold_bar)
        self.reading = ElidedLabel()
        self.reading.setObjectName("sensitivity.reading")
        self.reading.setProperty("role", "caption")
        self.strip.body.insertWidget(1, self.reading)
        self.stack = QStackedWidget()
        self.switches = {kind: self._switch(kind, plot) for kind, plot in self._plots.items()}
        for plot in self._plots.values():
            self.stack.addWidget(plot)
        self.strip.add_to_header(self.tag, self.precision, self.sorted, self.log, self.threshold, self.more)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.stack)
        self._connect()
        self._on_theme_changed(None)
        self._on_sensitivity_changed()

    def _make_controls(self) -> None:
        self.tag = Tag()
        self.tag.setObjectName("sensitivity.tag")
        self.precision = ElidedComboBox()
        self.precision.setObjectName("sensitivity.precision")
        self.precision.setAccessibleName("Precision the layers are judged at")
        self.precision.view().setMinimumWidth(_LIST_PX)
        self.precision.setStyleSheet(_LOW)
        self.sorted = SmallButton("sensitivity.sorted", "Sorted", "Most sensitive first")
        self.log = SmallButton("sensitivity.log", "Log", "Logarithmic scale")
        self.threshold = SmallButton(
            "sensitivity.threshold", "Threshold", "Set everything above a line to one precision"
        )
        for button in (self.sorted, self.log, self.threshold):
            button.setCheckable(True)
        self.more = SmallButton("sensitivity.more", "", "Measure exactly, analyze at more precisions")
        self.more.setIconSize(QSize(_ICON_PX, _ICON_PX))

    @property
    def _plots(self) -> dict[str, Plot]:
        return {BARS: self.strip, CLASSES: self.classes}

    def _switch(self, kind: str, plot: Plot) -> Segmented:
        """Bars or classes, where the title of a plot stands."""
        switch = Segmented(((BARS, "Sensitivity"), (CLASSES, "By class")), "Sensitivity shown")
        switch.setObjectName(f"sensitivity.switch.{kind}")
        switch.set_current(kind)
        switch.chosen.connect(self.show_kind)
        plot.replace_title(switch)
        return switch

    def _connect(self) -> None:
        session = self._session
        self._refresher.due.connect(self._on_sensitivity_changed)
        session.model_changed.connect(self._refresher.request)
        session.jobs_changed.connect(self._on_jobs_changed)
        session.sensitivity_changed.connect(self._refresher.request)
        session.selection_changed.connect(self._on_selection_changed)
        session.recipe_changed.connect(self._on_recipe_changed)
        session.prediction_changed.connect(self._recolour.request)
        self._recolour.due.connect(self._on_prediction_changed)
        for plot in (self.strip, self.classes):
            plot.layer_chosen.connect(self._on_layer_chosen)
            plot.action_asked.connect(self._on_action_asked)
            plot.export_failed.connect(self._on_export_failed)
        self.precision.activated.connect(self._on_precision_chosen)
        self.sorted.toggled.connect(self._on_sorted)
        self.log.toggled.connect(self._on_log)
        self.threshold.toggled.connect(self._on_threshold)
        self.more.clicked.connect(self._on_more)
        theme_hub().theme_changed.connect(self._on_theme_changed)

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.precision.setFixedWidth(_COMBO_NARROW_PX if self.width() < NARROW_PX else _COMBO_PX)
        self._fit_legend()

    def _fit_legend(self) -> None:
        """The limit wears its own name: where the header is short its legend goes before the controls do."""
        is_short = self.width() < (NARROW_PX if self.threshold_bar.is_on else LEGEND_FROM_PX)
        self.strip.legend.setMaximumWidth(0 if is_short else QWIDGETSIZE_MAX)

    # ------------------------------------------------------------------ bars or classes

    @property
    def kind(self) -> str:
        """What is shown: BARS or CLASSES."""
        return CLASSES if self.stack.currentWidget() is self.classes else BARS

    def show_kind(self, kind: str) -> None:
        """Show bars or classes; the controls both have go with them."""
        for own, switch in self.switches.items():
            switch.set_current(own)
        plot = self._plots[kind]
        self.stack.setCurrentWidget(plot)
        for widget in (self.tag, self.sorted, self.log, self.threshold, self.more):
            plot.add_to_header(widget)
        self._on_sensitivity_changed()

    def show_threshold(self) -> None:
        """Show the line over the bars and let the arrow keys move it."""
        self.show_kind(BARS)
        if self._session.workspace.layer_sensitivity:
            self.threshold.setChecked(True)
            self.strip.view.setFocus()

    def show_classes(self) -> None:
        """Show which layer hurts which class."""
        self.show_kind(CLASSES)

    # ------------------------------------------------------------------ content

    def _on_sensitivity_changed(self) -> None:
        has_any = bool(self._session.workspace.layer_sensitivity)
        is_bars = self.kind == BARS
        for control in (self.sorted, self.log, self.more):
            control.setVisible(has_any)
        self.precision.setVisible(has_any and is_bars)
        self.threshold.setVisible(has_any and is_bars)
        if not has_any:
            self.threshold.setChecked(False)
            self.reading.hide()
            self._show_empty()
            return
        self._fill_precisions()
        if is_bars:
            self._show_rows()
        else:
            self._show_classes()

    @property
    def _is_analyzed_now(self) -> bool:
        works = self._session.workspace.jobs.under_way
        return any(work.key.startswith("sensitivity") for work in works)

    def _on_jobs_changed(self) -> None:
        if not self._session.workspace.layer_sensitivity and self._was_analyzed != self._is_analyzed_now:
            self._was_analyzed = self._is_analyzed_now
            self._show_empty()

    def _show_empty(self) -> None:
        self.tag.set_text("")
        for plot in self._plots.values():
            plot.subtitle.setText("")
            if self._session.workspace.model is None:
                plot.show_empty("Open a model to see which of its layers suffer when quantized.")
            elif missing := needs_float_weights(self._session):
                plot.show_empty(f"{missing}.")
            elif self._session.workspace.calibration_data is None:
                plot.show_empty("Sensitivity needs calibration data.", "Choose data…")
            elif self._is_analyzed_now:
                plot.show_empty("The analysis is under way: layers appear here as they are known.")
            else:
                plot.show_empty(
                    "Not analyzed yet: one pass over the data shows how much each layer would suffer.",
                    "Run Sensitivity",
                )

    def _on_action_asked(self) -> None:
        """The button of the empty state was pressed."""
        if self._session.workspace.calibration_data is None:
            self._session.data_offered.emit("")
        else:
            self._session.workspace.runs.analyze()

    def _fill_precisions(self) -> None:
        keys = list(
            dict.fromkeys(
                k for row in self._session.workspace.layer_sensitivity.values() for k in row.by_precision
            )
        )
        listed = precision_names()
        others = [k for k in keys if k not in listed]
        wanted = [REFERENCE, *(k for k in listed if k in keys), *others]
        have = [key for i in range(self.precision.count()) if (key := self.precision.itemData(i))]
        if [*wanted, MORE] == have:
            return
        if self._precision not in wanted:  # of another model, or of data that is gone
            self._precision = REFERENCE
        self.precision.clear()
        for key in wanted:
            self.precision.addItem("Reference" if key == REFERENCE else precision_text(key), key)
        self.precision.insertSeparator(self.precision.count())
        self.precision.addItem("More…", MORE)
        self.precision.setCurrentIndex(self.precision.findData(self._precision))

    def _show_rows(self) -> None:
        session, precision = self._session, self._precision
        kl_all, known_rows = session.workspace.kl_of_all_layers, session.workspace.layer_sensitivity
        rows = [
            strip_row(layer.name, known_rows.get(layer.name), precision, kl_all, layer.label)
            for layer in session.workspace.layers
        ]
        scale = self._scale_of(rows)
        exact = sum(row.method == EXACT for row in rows)
        known = sum(row.kl is not None for row in rows)
        self._tell_provenance(exact, known)
        self._tell_what(known)
        self._tell_reading()
        self.strip.show_rows(rows, scale)
        self.threshold_bar.refresh()
        self.strip.set_selection(session.selection)

    def _scale_of(self, rows: Sequence[StripRow]) -> SensitivityScale | None:
        kls = {row.layer: row.kl for row in rows if row.kl is not None}
        return scale_for(kls, self._session.workspace.losses)

    def _tell_provenance(self, exact: int, known: int) -> None:
        self.tag.set_text(
            MEASURED if exact == known and known else PREDICTED,
            detail=f"{exact} of {known} layers measured one at a time" if exact else "",
        )

    def _tell_what(self, known: int) -> None:
        """What the bars mean and how many are there."""
        session, precision = self._session, self._precision
        is_finished = (
            session.workspace.sensitivity_curve is not None or session.workspace.sensitivity_run is not None
        )
        missing = sum(
            layer.quantizable and layer.name not in session.workspace.layer_sensitivity
            for layer in (() if is_finished else session.workspace.layers)
        )
        progress = f"{known} of {known + missing} layers  ·  " if missing else ""
        what = "at the reference precision" if precision == REFERENCE else f"to {precision_text(precision)}"
        self.strip.subtitle.set_wordings(
            f"{progress}KL of the output when this layer alone goes {what} — click a bar",
            f"{progress}KL when this layer alone is quantized",
            f"{progress}one layer at a time",
            f"{known} of {known + missing}" if missing else "",
        )

    def _tell_reading(self) -> None:
        """Both directions and both errors of the layer looked at, where they were measured."""
        row = self._session.workspace.layer_sensitivity.get(self._session.current_layer or "")
        words = direction_words(row, self._session.workspace.kl_of_all_layers) if row is not None else ""
        self.reading.setVisible(bool(words))
        if row is not None and words:
            model = self._session.workspace.model
            title = model.titles.get(row.name, row.name) if model is not None else row.name
            self.reading.set_wordings(f"{title}:  {words}", words)

    def _show_classes(self) -> None:
        session = self._session
        rows = session.workspace.layer_sensitivity
        by_class = {name: row.by_class for name, row in rows.items() if row.by_class}
        if not by_class:
            self.tag.set_text("")
            self.classes.subtitle.setText("")
            self.classes.show_empty(
                "No figures by class: they come with Sensitivity, for outputs that are class scores.",
                "" if needs_float_weights_and_data(session) else "Run Sensitivity",
            )
            return
        count = max(len(values) for values in by_class.values())
        names = session.workspace.sensitivity_classes
        classes = names if len(names) == count else tuple(f"class {i}" for i in range(count))
        shown = {layer.name: rows[layer.name].kl for layer in session.workspace.layers if layer.name in rows}
        self._tell_provenance(sum(rows[name].method == EXACT for name in shown), len(shown))
        self.classes.subtitle.set_wordings(
            "mean KL over each class when this layer alone is quantized — click a cell",
            "mean KL over each class",
            "",
        )
        model = session.workspace.model
        self.classes.show_table(shown, by_class, classes, model.titles if model is not None else {})
        self.classes.set_selection(session.selection)

    # ------------------------------------------------------------------ commands

    def menu(self) -> SensitivityMenu:
        """The menu of measurements and precisions, for what is known now."""
        return SensitivityMenu(
            self._session,
            self._choices,
            ranked=self._ranked(),
            above=self.threshold_bar.above,
            precision=self._precision,
            parent=self,
        )

    def _ranked(self) -> Sequence[str]:
        rows = [row for row in self.strip.rows if row.kl is not None]
        return [row.layer for row in sorted(rows, key=lambda row: -(row.kl or 0.0))]

    def _on_more(self) -> None:
        menu = self.menu()
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        show_menu(menu, self.more)

    def _on_more_precisions(self) -> None:
        menu = self.menu()
        # The submenu stands alone here; what holds it goes with it.
        menu.analyze_menu.aboutToHide.connect(menu.deleteLater)
        show_menu(menu.analyze_menu, self.precision)

    def _on_selection_changed(self) -> None:
        self.strip.set_selection(self._session.selection)
        self.classes.set_selection(self._session.selection)
        self._tell_reading()

    def _on_layer_chosen(self, name: str) -> None:
        self._session.select([name])

    def _on_recipe_changed(self) -> None:
        self.threshold_bar.refresh()

    def _on_prediction_changed(self) -> None:
        """The plan loses by other layers now."""
        if self.kind == BARS and self.strip.rows and not self.strip.is_empty:
            self.strip.set_scale(self._scale_of(self.strip.rows))

    def _on_precision_chosen(self, _index: int) -> None:
        if self.precision.currentData() == MORE:
            self.precision.setCurrentIndex(max(0, self.precision.findData(self._precision)))
            self._on_more_precisions()
            return
        self._precision = str(self.precision.currentData() or REFERENCE)
        self._show_rows()
        self.threshold_bar.keep_count()

    def _on_sorted(self, is_sorted: bool) -> None:
        self.strip.set_sorted(is_sorted)
        self.classes.set_sorted(is_sorted)

    def _on_log(self, is_log: bool) -> None:
        self.strip.set_log(is_log)
        self.classes.set_log(is_log)

    def _on_threshold(self, is_on: bool) -> None:
        self.threshold_bar.set_on(is_on)
        self._fit_legend()

    def _on_export_failed(self, error: object) -> None:
        tell_export_failed(self._session, error)

    def _on_theme_changed(self, _theme: object) -> None:
        self.more.setIcon(icon("more", "text", _ICON_PX))
