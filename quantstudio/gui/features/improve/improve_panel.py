"""The page of the recipe's steps: blocks above, what each gained and what it does to every layer below."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from quantstudio.gui.facts.export_notice import tell_export_failed
from quantstudio.gui.facts.needs import needs_float_weights
from quantstudio.gui.facts.variant_facts import quality_of
from quantstudio.gui.features.improve.needs import why_not_measure, why_not_recover
from quantstudio.gui.features.improve.step_gains import axis_of, levels_of, story_of
from quantstudio.gui.features.improve.steps_panel import StepsPanel
from quantstudio.gui.features.improve.trial_lines import trial_labels, trial_rows, trial_sentence
from quantstudio.gui.plots.layer_recovery import LayerRecoveryPlot
from quantstudio.gui.plots.training_curve import TrainingCurvePlot
from quantstudio.gui.plots.waterfall import WaterfallPlot
from quantstudio.gui.session import Session
from quantstudio.gui.theme import icon, theme_hub
from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.gui.widgets.enabling import allow
from quantstudio.gui.widgets.refresher import Refresher
from quantstudio.gui.widgets.small_button import SmallButton
from quantstudio.workspace.runs.improvement import running_steps

SECONDS_PX, PLOTS_MIN_PX = 92, 480
DEFAULT_SECONDS, MAX_SECONDS = 60, 24 * 3600
GAP = 8
EXPLAINED = (
    "tries further steps one after the other and keeps those that measure better; Ctrl+Z takes it back"
)
NO_MODEL = "Open a model to see what steps gain."
NO_DATA = "What a step gains is measured: choose data first."
NO_STEPS = "Without steps there is nothing to compare. Add one, or let them be tried for you."
TRIED = "Steps tried"
NOT_RUN = "Build the plan to see what its steps do to every layer, while they run."
NOT_TOLD = "This step did not say how single layers fared."
NO_CHOICE = "Choose a step that is switched on."


class ImprovePanel(QWidget):
    """Steps, a line of what can be done with them, and two plots.

    Signals:
        data_asked(): whoever chooses data is asked for.
        model_asked(): a model is to be opened.
    """

    data_asked = Signal()
    model_asked = Signal()

    def __init__(
        self,
        session: Session,
        plots: tuple[WaterfallPlot, LayerRecoveryPlot, TrainingCurvePlot] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("panel.improve")
        self._session = session
        self._refresher = Refresher(self)
        self.steps = StepsPanel(session)
        self.waterfall, self.layers, self.curve = plots or (
            WaterfallPlot(),
            LayerRecoveryPlot(),
            TrainingCurvePlot(),
        )
        self._build()
        self._connect()
        self._retheme()
        self._refresher.request()

    def _build(self) -> None:
        self.steps.add(self._bar(), 0)
        self.story = ElidedLabel()
        self.story.setObjectName("improve.story")
        self.story.setProperty("role", "caption")
        self.waterfall.add(self.story, 0)
        splitter = QSplitter(Qt.Orientation.Horizontal)
        splitter.setObjectName("improve.splitter")
        splitter.setHandleWidth(GAP)
        splitter.setChildrenCollapsible(False)
        splitter.addWidget(self.waterfall)
        self.right = QStackedWidget()
        self.right.setObjectName("improve.right")
        self.right.addWidget(self.layers)
        self.right.addWidget(self.curve)
        splitter.addWidget(self.right)
        splitter.setSizes([500, 500])
        # Its own minimum: the longest words of two plots would keep the window from getting narrow.
        splitter.setMinimumWidth(PLOTS_MIN_PX)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(GAP)
        column.addWidget(self.steps)
        column.addWidget(splitter, 1)

    def _bar(self) -> QWidget:
        self.add = self._button("improve.add", "Add step", "Add a step to the recipe")
        self.recover = self._button("improve.recover", "Recover automatically", EXPLAINED.capitalize())
        self.within = QLabel("within")
        self.within.setProperty("role", "muted")
        self.seconds = QSpinBox()
        self.seconds.setObjectName("improve.seconds")
        self.seconds.setAccessibleName("Seconds for trying steps")
        self.seconds.setRange(1, MAX_SECONDS)
        self.seconds.setValue(DEFAULT_SECONDS)
        self.seconds.setSuffix(" s")
        self.seconds.setToolTip("What is best when this time is over is kept")
        self.said = ElidedLabel()
        self.said.setObjectName("improve.said")
        self.said.setProperty("role", "caption")
        self.measure = SmallButton(
            "improve.measure",
            "Measure each step",
            "Build the plan up to each of its steps and measure them all",
        )
        self.waterfall.add_to_header(self.measure)
        self.stop = self._button("improve.stop", "Stop", "Stop what runs; what is finished of it stays")
        self.keep = self._button(
            "improve.keep",
            "Keep the best",
            "End the training with the best it has; the recipe says where",
        )
        bar = QWidget()
        row = QHBoxLayout(bar)
        row.setContentsMargins(0, 4, 0, 2)
        row.setSpacing(GAP)
        for widget in (self.add, self.recover, self.within, self.seconds):
            row.addWidget(widget)
        self.seconds.setFixedWidth(SECONDS_PX)
        row.addWidget(self.said, 1)
        row.addWidget(self.keep)
        row.addWidget(self.stop)
        return bar

    @staticmethod
    def _button(name: str, text: str, tip: str) -> QPushButton:
        made = QPushButton(text)
        made.setObjectName(name)
        made.setAccessibleName(text)
        made.setToolTip(tip)
        made.setIconSize(QSize(16, 16))
        return made

    def _connect(self) -> None:
        session, runs = self._session, self._session.workspace.runs
        for signal in (
            session.model_changed,
            session.data_changed,
            session.recipe_changed,
            session.plans_changed,
            session.variants_changed,
            session.steps_changed,
            session.improvement_changed,
            session.jobs_changed,
        ):
            signal.connect(self._refresher.request)
        self._refresher.due.connect(self.refresh)
        self.steps.step_chosen.connect(self._on_step_chosen)
        self.add.clicked.connect(self._on_add)
        self.recover.clicked.connect(self.start_recovery)
        self.measure.clicked.connect(self._on_measure)
        self.stop.clicked.connect(self._on_stop)
        self.keep.clicked.connect(session.workspace.improvement.keep_best)
        self.waterfall.action_asked.connect(self._on_waterfall_asked)
        self.layers.action_asked.connect(runs.quantize)
        self.layers.layer_chosen.connect(self._on_layer_chosen)
        for plot in (self.waterfall, self.layers, self.curve):
            plot.export_failed.connect(self._on_export_failed)
        theme_hub().theme_changed.connect(self._retheme)

    # What is shown.

    def refresh(self) -> None:
        """Show what is known now."""
        session = self._session
        row = session.workspace.jobs.running
        job = session.workspace.improvement.job
        allow(self.add, needs_float_weights(session))
        allow(self.recover, why_not_recover(session))
        allow(self.seconds, why_not_recover(session))
        allow(self.measure, why_not_measure(session))
        is_building = session.workspace.improvement.running_step is not None
        is_running = job is not None or is_building
        self.stop.setVisible(is_running)
        self.keep.setVisible(session.workspace.improvement.can_keep)
        for widget in (self.within, self.seconds):
            widget.setVisible(not is_running)
        if job is not None or (is_building and row is not None):
            shown = row or job
            assert shown is not None
            counted = f" · {shown.done} of {shown.total} {shown.unit}" if shown.total else ""
            self.said.set_wordings(f"{self._named(shown.label) or shown.title}{counted}", shown.title)
        else:
            trial = session.workspace.improvement.trial
            ended = trial_sentence(trial, session.workspace.steps) if trial is not None else ()
            self.said.set_wordings(*(ended or (EXPLAINED, "keeps what measures better", "")))
        self._mark_recover()
        self._show_waterfall()
        self._show_layers()

    def _named(self, label: str) -> str:
        """What runs, with the layer in it as the table calls it."""
        before, _, name = label.rpartition(" ")
        model = self._session.workspace.model
        layer = model.layer(name) if model is not None else None
        return f"{before} {layer.label}" if layer is not None else label

    def _mark_recover(self) -> None:
        """The way out stands out where accuracy was lost and no step wins it back yet."""
        workspace = self._session.workspace
        variant = workspace.current_variant
        quality = quality_of(variant) if variant is not None else None
        has_lost = quality is not None and quality.loss is not None and quality.loss.value > quality.floor
        is_primary = has_lost and not running_steps(workspace.recipe)
        if bool(self.recover.property("primary")) != is_primary:
            self.recover.setProperty("primary", is_primary)
            self.recover.style().unpolish(self.recover)
            self.recover.style().polish(self.recover)
            self._retheme()

    def _show_waterfall(self) -> None:
        session, workspace = self._session, self._session.workspace
        stages = workspace.improvement.stages
        is_measured = any(one.variant is not None and one.variant.result is not None for one in stages)
        story: tuple[str, ...] = ()
        self.waterfall.subtitle.setText("")
        if workspace.model is None:
            self.waterfall.show_empty(NO_MODEL, "Open a model…")
        elif workspace.calibration_data is None and not is_measured:
            self.waterfall.show_empty(NO_DATA, "Choose data…")
        elif not is_measured:
            why = why_not_measure(session)
            if running_steps(workspace.recipe):
                text = "The gain of each step is measured, never guessed." + (f" {why}." if why else "")
                self.waterfall.show_empty(text, "" if why else "Measure each step")
            else:
                self.waterfall.show_empty(NO_STEPS, "Add a step")
        else:
            self.waterfall.show_levels(levels_of(workspace.base, stages), axis_of(stages))
            self.waterfall.subtitle.set_wordings("measured, points behind one another", "measured", "")
            story = story_of(stages)
        self.story.set_wordings(*(story or ("",)))
        self.story.setVisible(bool(story))

    def _show_layers(self) -> None:
        workspace = self._session.workspace
        improvement, model = workspace.improvement, workspace.model
        on = running_steps(workspace.recipe)
        running = improvement.running_step
        place = running if running is not None and running < len(on) else self._chosen_place()
        trial = improvement.trial
        is_trying = trial is not None and not trial.is_over and improvement.job is not None
        curve = improvement.curve(place) if place is not None and model is not None else ()
        self.right.setCurrentWidget(self.curve if curve and not is_trying else self.layers)
        if curve and not is_trying and place is not None:
            self.curve.show_curve(improvement.stages[place + 1].label, curve)
            return
        if trial is not None and trial.tried[1:] and (is_trying or not on):
            self.layers.show_layers("", trial_rows(trial), trial_labels(trial), TRIED)
        elif model is None or not on:
            self.layers.show_empty(
                NO_MODEL if model is None else "Steps say layer by layer what they win back."
            )
        elif place is None:
            self.layers.show_empty(NO_CHOICE)
        else:
            rows = improvement.layers(place)
            if rows:
                names = [layer.label for row in rows if (layer := model.layer(row.layer)) is not None]
                labels = names if len(names) == len(rows) else [row.layer for row in rows]
                self.layers.show_layers(improvement.stages[place + 1].label, rows, labels)
            elif workspace.current_variant is None:
                is_idle = workspace.jobs.running is None
                self.layers.show_empty(NOT_RUN, "Quantize" if is_idle else "")
            else:
                self.layers.show_empty(NOT_TOLD)

    def _chosen_place(self) -> int | None:
        """The chosen block's place among the steps that are on; None where it is off or there is none."""
        steps, row = self._session.workspace.recipe.steps, self.steps.list.currentRow()
        if not (0 <= row < len(steps) and steps[row].is_on):
            return None
        return sum(step.is_on for step in steps[:row])

    # What can be done.

    def start_recovery(self) -> None:
        """Try further steps within the time that is set."""
        if not why_not_recover(self._session):
            self._session.workspace.improvement.recover(float(self.seconds.value()))

    def _on_measure(self) -> None:
        self._session.workspace.improvement.measure_steps()

    def _on_stop(self) -> None:
        workspace = self._session.workspace
        if workspace.improvement.job is not None:
            workspace.improvement.cancel()
        elif workspace.jobs.running is not None:
            workspace.jobs.cancel(workspace.jobs.running.job_id)

    def _on_add(self) -> None:
        self.steps.open_menu(self.add)

    def _on_waterfall_asked(self) -> None:
        workspace = self._session.workspace
        if workspace.model is None:
            self.model_asked.emit()
        elif workspace.calibration_data is None:
            self.data_asked.emit()
        elif running_steps(workspace.recipe):
            self._on_measure()
        else:
            self.steps.open_menu(self.waterfall.empty.button)

    def _on_step_chosen(self, _row: int) -> None:
        self._refresher.request()

    def _on_layer_chosen(self, name: str) -> None:
        self._session.select([name])

    def _on_export_failed(self, error: object) -> None:
        tell_export_failed(self._session, error)

    def _retheme(self, _theme: object = None) -> None:
        for button, name in (
            (self.add, "plus"), (self.recover, "improve"), (self.measure, "measure"), (self.stop, "stop")
        ):  # fmt: skip
            button.setIcon(icon(name, "on_accent" if button.property("primary") else "text", 16))
