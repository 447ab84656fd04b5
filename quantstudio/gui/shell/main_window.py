"""The window: layers on the left, key figures and tabs on the right, plans, jobs and log below."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PySide6.QtCore import QByteArray, QObject, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent, QGuiApplication, QShowEvent
from PySide6.QtWidgets import (
    QApplication,
    QDockWidget,
    QFrame,
    QMainWindow,
    QTabWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from shiboken6 import isValid

from quantstudio.gui.features.jobs.jobs_panel import JobsPanel
from quantstudio.gui.features.jobs.log_panel import LogPanel
from quantstudio.gui.features.layers.layers_panel import LayersPanel
from quantstudio.gui.features.plans.key_figures_panel import KeyFiguresPanel
from quantstudio.gui.features.plans.plans_panel import PlansPanel
from quantstudio.gui.session import Session
from quantstudio.gui.shell.actions import Actions
from quantstudio.gui.shell.commands import Commands
from quantstudio.gui.shell.menus import Menus, ToolBar
from quantstudio.gui.shell.settings import ENGINE_KEYS, Settings
from quantstudio.gui.shell.status_line import StatusLine
from quantstudio.gui.theme import current_theme, icon, resolve_choice, restyle, theme_hub
from quantstudio.gui.widgets.card import Card
from quantstudio.gui.widgets.command_palette import CommandPalette
from quantstudio.gui.widgets.toast import ToastStack
from quantstudio.jobs.rows import LogLine, NoticeLevel
from quantstudio.workspace.values import Notification

MARGIN = 12
GAP = 8
DOCK_SHARE = 0.43
TABS_MINIMUM_PX = 220
PLAN_PX = 84


class MainWindow(QMainWindow):
    """The one window of the program. Emits `plots_shown` when the tabs are filled, after the first paint."""

    plots_shown = Signal()

    def __init__(self, session: Session, settings: Settings, application: QApplication) -> None:
        super().__init__()
        self._application = application
        self.session = session
        self.settings = settings
        self.setObjectName("window")
        self.setAcceptDrops(True)
        self.setDockNestingEnabled(False)
        self.toasts = ToastStack(self, self.statusBar())
        self.palette_dialog = CommandPalette(self)
        self.actions_list = Actions(settings, self)
        self.commands = Commands(self)
        for spec in self.commands.specs():
            self.actions_list.add(spec)
        self.layers_panel = LayersPanel(session)
        self._build_centre()
        self._build_docks()
        self.menus = Menus(self, session, settings, self.actions_list)
        self.tool_bar = ToolBar(self, self.actions_list, self.menus.plan)
        self.addToolBar(self.tool_bar)
        self.status_line = StatusLine(self.statusBar(), session)
        self.status_line.jobs_asked.connect(self._on_jobs_asked)
        self._connect()
        self._refresh_actions()
        self._refresh_title()
        self._retheme()
        self._restore_layout()
        self._are_plots_shown = False
        # Timers of its own: PySide at times frees those of QTimer.singleShot while they wait to be deleted.
        self._docks_timer = _once(self, self._size_docks)
        self._plots_timer = _once(self, self.show_plots)
        self._next_plot_timer = _once(self, self._build_next_plot)
        self._plots_built = 0

    # Building.

    def _build_centre(self) -> None:
        centre = QWidget(self)
        centre.setObjectName("centre")
        column = QVBoxLayout(centre)
        column.setContentsMargins(0, MARGIN - 2, MARGIN, GAP)
        column.setSpacing(GAP)
        self.key_figures = KeyFiguresPanel(self.session)
        column.addWidget(self.key_figures)
        self.tabs = QTabWidget(centre)
        self.tabs.setObjectName("tabs")
        self.tabs.setAccessibleName("Views")
        self.tabs.tabBar().setAccessibleName("Views")
        self.tabs.setDocumentMode(True)
        # Less than the plots ask for: on a small screen, with the panel below open, they give way first.
        self.tabs.setMinimumHeight(TABS_MINIMUM_PX)
        self.tabs.addTab(self._page("inspect"), "Inspect")
        self.tabs.addTab(self._page("tradeoff"), "Trade-off")
        self.tabs.addTab(self._page("compare"), "Compare")
        column.addWidget(self.tabs, 1)
        self.setCentralWidget(centre)

    def _page(self, name: str) -> QWidget:
        page = QWidget()
        page.setObjectName(f"tab.{name}")
        layout = QVBoxLayout(page)
        layout.setContentsMargins(0, GAP, 0, 0)
        layout.setSpacing(GAP)
        layout.addWidget(Card())
        return page

    def _build_docks(self) -> None:
        holder = QWidget()
        column = QVBoxLayout(holder)
        column.setContentsMargins(MARGIN, MARGIN - 2, 0, GAP)
        column.addWidget(self.layers_panel)
        self.layers_dock = self._dock("layers", "Layers", holder, Qt.DockWidgetArea.LeftDockWidgetArea)
        self.layers_dock.setTitleBarWidget(QWidget())
        self.setCorner(Qt.Corner.BottomLeftCorner, Qt.DockWidgetArea.BottomDockWidgetArea)
        self.below = QTabWidget()
        self.below.setObjectName("below")
        self.below.setAccessibleName("Plans, jobs and log")
        self.below.tabBar().setAccessibleName("Plans, jobs and log")
        self.below.setDocumentMode(True)
        self.plans_panel = PlansPanel(self.session)
        self.jobs_panel = JobsPanel(self.session)
        self.log_panel = LogPanel(self.session)
        for panel, title in ((self.plans_panel, "Plans"), (self.jobs_panel, "Jobs"), (self.log_panel, "Log")):
            self.below.addTab(panel, title)
        self.below_close = QToolButton()
        self.below_close.setObjectName("below.close")
        self.below_close.setAccessibleName("Hide plans, jobs and log")
        self.below_close.setToolTip("Hide this panel")
        self.below_close.setAutoRaise(True)
        self.below_close.setIconSize(QSize(14, 14))
        self.below_close.clicked.connect(self._hide_below)
        self.below.setCornerWidget(self.below_close)
        card = QFrame()
        card.setProperty("card", True)
        card_column = QVBoxLayout(card)
        card_column.setContentsMargins(6, 2, 6, 4)
        card_column.addWidget(self.below)
        below_holder = QWidget()
        below_column = QVBoxLayout(below_holder)
        below_column.setContentsMargins(MARGIN, 0, MARGIN, GAP)
        below_column.addWidget(card)
        self.below_dock = self._dock(
            "below", "Plans, jobs, log", below_holder, Qt.DockWidgetArea.BottomDockWidgetArea
        )
        self.below_dock.setTitleBarWidget(QWidget())
        self.below_dock.hide()
        self.below_dock.visibilityChanged.connect(self._on_below_shown)
        self._columns = (column, self.centralWidget().layout())

    def _on_below_shown(self, shown: bool) -> None:
        """The separator above the panel is the gap; without the panel the margin is."""
        for layout in self._columns:
            if layout is not None:
                margins = layout.contentsMargins()
                if margins.bottom() != (0 if shown else GAP):
                    margins.setBottom(0 if shown else GAP)
                    layout.setContentsMargins(margins)

    def _dock(self, name: str, title: str, widget: QWidget, area: Qt.DockWidgetArea) -> QDockWidget:
        dock = QDockWidget(title, self)
        dock.setObjectName(f"dock.{name}")
        dock.setAccessibleName(title)
        dock.setFeatures(QDockWidget.DockWidgetFeature.DockWidgetClosable)
        dock.setWidget(widget)
        self.addDockWidget(area, dock)
        return dock

    def _connect(self) -> None:
        session = self.session
        session.notified.connect(self._on_notified)
        for signal in (
            session.plans_changed,
            session.recipe_changed,
            session.model_changed,
            session.data_changed,
            session.selection_changed,
            session.variants_changed,
            session.jobs_changed,
        ):
            signal.connect(self._refresh_actions)
        session.model_changed.connect(self._refresh_title)
        session.project_changed.connect(self._refresh_title)
        session.project_changed.connect(self._remember_project)
        self.settings.changed.connect(self._on_setting_changed)
        QGuiApplication.styleHints().colorSchemeChanged.connect(self._follow_theme)
        theme_hub().theme_changed.connect(self._retheme)
        self.layers_panel.open_asked.connect(self.commands.open_file)
        session.workflow.options = self.settings.engine

    # The plots, after the first paint.

    def showEvent(self, event: QShowEvent) -> None:
        """Fills the tabs once the window is on the screen."""
        super().showEvent(event)
        self._docks_timer.start(0)
        if not self._are_plots_shown:
            self._are_plots_shown = True
            self._plots_timer.start(30)

    def show_plots(self) -> None:
        """Put the views that draw into the tabs, one a turn of the event loop: the window stays usable.

        Importing what they draw with takes a third of a second: another thread does it.
        """
        self.session.background.run(_import_plots, self._build_next_plot, self._build_next_plot)

    def _build_next_plot(self, _nothing: object = None) -> None:
        if not isValid(self):
            return
        from quantstudio.gui.features.compare.compare_panel import ComparePanel
        from quantstudio.gui.features.inspect.inspect_panel import InspectPanel
        from quantstudio.gui.features.tradeoff.tradeoff_panel import TradeoffPanel

        match self._plots_built:
            case 0:
                self.inspect_panel = InspectPanel(self.session)
                self._fill_page(0, self.inspect_panel)
            case 1:
                self.tradeoff_panel = TradeoffPanel(self.session)
                self._fill_page(1, self.tradeoff_panel)
            case _:
                self.compare_panel = ComparePanel(self.session)
                self.compare_panel.data_asked.connect(self.commands.choose_data)
                self._fill_page(2, self.compare_panel)
                self.plots_shown.emit()
                return
        self._plots_built += 1
        self._next_plot_timer.start(0)

    def _fill_page(self, index: int, widget: QWidget) -> None:
        page = self.tabs.widget(index)
        layout = page.layout() if page is not None else None
        if layout is None:
            return
        old = layout.takeAt(0)
        placeholder = old.widget() if old is not None else None
        if placeholder is not None:
            placeholder.deleteLater()
        layout.addWidget(widget)

    # What the commands use.

    def focus_filter(self) -> None:
        """Put the cursor into the filter of the layer table."""
        self.layers_dock.show()
        self.layers_panel.focus_search()

    def show_notes(self, notes: Sequence[str]) -> None:
        """Write notes into the log and show it."""
        for note in notes:
            self.session.job_queue.logged.emit(LogLine(time.time(), NoticeLevel.INFO, note))
        self.show_below(self.log_panel)

    def show_tab(self, index: int) -> None:
        """Show one of the tabs: inspect, trade-off, compare."""
        self.tabs.setCurrentIndex(index)

    def show_threshold(self) -> None:
        """Show the line over the sensitivity bars, the arrow keys on it."""
        self.show_tab(0)
        if self._plots_built > 0:
            self.inspect_panel.sensitivity.show_threshold()

    def show_classes(self) -> None:
        """Show which layer hurts which class."""
        self.show_tab(0)
        if self._plots_built > 0:
            self.inspect_panel.sensitivity.show_classes()

    def show_search(self) -> None:
        """Show the trade-off with the search beside it."""
        self.show_tab(1)
        if self._plots_built > 1:
            self.tradeoff_panel.open_search()

    def focus_next_area(self) -> None:
        """Move the focus on: the layers, the tabs, the panel below where it is open."""
        areas = (
            (self.layers_dock, self.layers_panel.table),
            (self.tabs, self.tabs.tabBar()),
            (self.below_dock, self.below.tabBar()),
        )
        shown = [(area, target) for area, target in areas if area.isVisible()]
        focused = self.focusWidget()
        now = next(
            (i for i, (area, _) in enumerate(shown) if focused is not None and area.isAncestorOf(focused)), -1
        )
        shown[(now + 1) % len(shown)][1].setFocus(Qt.FocusReason.TabFocusReason)

    def toggle_layers(self) -> None:
        """Show or hide the layer table."""
        self.layers_dock.setVisible(not self.layers_dock.isVisible())

    def toggle_below(self, name: str) -> None:
        """Show "plans", "jobs" or "log" below; hide it if it is shown already."""
        panel = {"plans": self.plans_panel, "jobs": self.jobs_panel, "log": self.log_panel}[name]
        if self.below_dock.isVisible() and self.below.currentWidget() is panel:
            self.below_dock.hide()
        else:
            self.show_below(panel)

    def _on_jobs_asked(self) -> None:
        self.toggle_below("jobs")

    def _hide_below(self) -> None:
        self.below_dock.hide()

    def show_below(self, panel: QWidget) -> None:
        """Show a panel below the rest."""
        self.below.setCurrentWidget(panel)
        if not self.below_dock.isVisible():
            # Now, not when Qt says that it is visible: every plot would be drawn once more.
            self._on_below_shown(shown=True)
            self.below_dock.show()
            self.resizeDocks([self.below_dock], [max(190, self.height() // 5)], Qt.Orientation.Vertical)

    # Keeping up.

    def _refresh_actions(self) -> None:
        session, actions = self.session, self.actions_list
        has_model, has_data = session.model is not None, session.calibration_data is not None
        has_selection = bool(session.selection)
        busy = session.job_queue.is_busy
        enabled = {
            "edit.undo": session.can_undo,
            "edit.redo": session.can_redo,
            "edit.rules": has_model,
            "edit.threshold": has_model,
            "view.classes": has_model,
            "edit.find": has_model,
            "model.data": has_model,
            "model.notes": has_model,
            "file.export": has_model,
            "file.report": has_model,
            "file.export_recipe": has_model,
            "file.save": has_model,
            "file.save_as": has_model,
            "run.all": has_model and has_data,
            "run.calibrate": has_model and has_data,
            "run.sensitivity": has_model and has_data,
            "run.exact": has_data and has_selection,
            "run.measure": has_model and has_data,
            "run.search": has_model,
            "run.measure_every": has_data and len(session.variants) > 1,
            "run.quantize": has_model,
            "run.stop": busy,
            "plan.delete": len(session.plans) > 1,
        }
        for spec in actions.specs:
            if spec.name in enabled:
                actions[spec.name].setEnabled(enabled[spec.name])
            elif spec.name.startswith("run.preset."):
                actions[spec.name].setEnabled(has_model and has_data)
            elif spec.name in ("edit.int8", "edit.int4", "edit.fp16", "edit.fp32"):
                actions[spec.name].setEnabled(has_selection)
        actions["edit.undo"].setText(f"&Undo {session.undo_text}".rstrip())
        actions["edit.redo"].setText(f"&Redo {session.redo_text}".rstrip())
        words = self.tool_bar.plan.fontMetrics()
        name = session.active_plan
        self.tool_bar.plan.setText(words.elidedText(name, Qt.TextElideMode.ElideRight, PLAN_PX))
        self.tool_bar.plan.setToolTip(f"{name}: the plan being edited; several stand side by side")

    def _refresh_title(self) -> None:
        model, project = self.session.model, self.session.project
        name = "" if project.is_temporary else project.path.stem
        parts = [name, Path(model.source_path).name if model else "", "QuantStudio"]
        self.setWindowTitle(" — ".join(part for part in parts if part))

    def _remember_project(self) -> None:
        project = self.session.project
        self.settings.last_project = "" if project.is_temporary else str(project.path.resolve())

    def _on_notified(self, notice: Notification) -> None:
        text = f"{Path(notice.where).name}: {notice.text}" if notice.where else notice.text
        self.toasts.show(notice.severity.value, text, notice.hint)
        self.log_panel.add(LogLine(time.time(), notice.severity, f"{text} {notice.hint}".strip()))

    def _on_setting_changed(self, key: str) -> None:
        if key == "theme":
            self._follow_theme()
        elif key in ENGINE_KEYS:
            self.session.workflow.options = self.settings.engine

    def _follow_theme(self) -> None:
        theme = resolve_choice(self.settings.theme, QGuiApplication.styleHints().colorScheme())
        if theme is not current_theme():
            restyle(self._application, self, theme)

    def _retheme(self) -> None:
        self.actions_list.set_icon("view.theme", "sun" if current_theme().is_dark else "moon")
        self.tool_bar.plan.setIcon(icon("plan"))
        self.below_close.setIcon(icon("close", "muted", 14))

    # Layout and leaving.

    def _size_docks(self) -> None:
        width = min(690, round(self.width() * DOCK_SHARE))
        self.resizeDocks([self.layers_dock], [width], Qt.Orientation.Horizontal)

    def _restore_layout(self) -> None:
        geometry: QByteArray = self.settings.layout("geometry")
        if geometry.isEmpty() or not self.restoreGeometry(geometry):
            screen = self.screen().availableGeometry()
            self.resize(min(1600, screen.width()), min(1000, screen.height()))

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Files may be dropped anywhere."""
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Open what was dropped."""
        urls = event.mimeData().urls()
        self.session.documents.open_paths([url.toLocalFile() for url in urls if url.isLocalFile()])
        event.acceptProposedAction()

    def closeEvent(self, event: QCloseEvent) -> None:
        """Nothing to ask: everything is on disk. Ends the worker."""
        self.settings.save_layout("geometry", self.saveGeometry())
        self.session.close()
        super().closeEvent(event)


def _import_plots() -> None:
    # numpy.ma comes with the first call of np.unique, which the first prediction makes.
    import numpy.ma  # noqa: F401
    import pyqtgraph  # noqa: F401  makes no object that belongs to a thread


def _once(parent: QObject, slot: Callable[[], None]) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.timeout.connect(slot)
    return timer
