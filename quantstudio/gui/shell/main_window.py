"""The window: places what the features bring and keeps title, theme and notifications."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent, QGuiApplication, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QApplication, QMainWindow

from quantstudio.gui.feature import Feature
from quantstudio.gui.session import Session
from quantstudio.gui.shell.actions import Actions
from quantstudio.gui.shell.context import WindowContext
from quantstudio.gui.shell.features import FEATURES
from quantstudio.gui.shell.file_actions import file_commands
from quantstudio.gui.shell.late_modules import DIALOGS, MACHINE, PAGES, import_late
from quantstudio.gui.shell.layout_memory import LayoutMemory
from quantstudio.gui.shell.menus import Menus
from quantstudio.gui.shell.settings import ENGINE_KEYS, Settings
from quantstudio.gui.shell.status_line import StatusLine
from quantstudio.gui.shell.tool_bar import ToolBar
from quantstudio.gui.shell.views import Views
from quantstudio.gui.shell.window_actions import window_commands
from quantstudio.gui.theme import current_theme, resolve_choice, restyle, theme_hub
from quantstudio.jobs.rows import LogLine
from quantstudio.project.store import is_session_file
from quantstudio.workspace.values import Notification

if TYPE_CHECKING:
    from quantstudio.gui.widgets.command_palette import CommandPalette

FIRST_PAINT_MS = 30
KEEP_MS = 5000


class MainWindow(QMainWindow):
    """The one window of the program. Emits `plots_shown` when the pages are filled, after the first paint.

    Its views are its children: `window.findChild(PlansPanel)`.
    """

    plots_shown = Signal()

    def __init__(
        self,
        session: Session,
        settings: Settings,
        application: QApplication,
        features: Sequence[Feature] = FEATURES,
    ) -> None:
        super().__init__()
        self._application = application
        self._features = features
        self.session = session
        self.settings = settings
        self.setObjectName("window")
        self.setAcceptDrops(True)
        self.setDockNestingEnabled(False)
        self.context = WindowContext(self, session, settings)
        self.toasts = self.context.toasts
        self.actions_list = self._make_actions()
        self.context.actions = self.actions_list
        self.views = Views(self, self.context, [view for one in features for view in one.views])
        self.context.views = self.views
        self.views.add_below_pages(self.toasts)
        menus = Menus(self, self.actions_list, self.context)
        self.tool_bar = ToolBar(self, session, self.actions_list, menus)
        self.addToolBar(self.tool_bar)
        self.status_line = StatusLine(self.statusBar(), session)
        self.status_line.jobs_asked.connect(lambda: self.toggle_view("jobs"))
        self._connect()
        self._refresh_title()
        self._retheme()
        self._layout = LayoutMemory(self, settings, self.views)
        self._layout.restore_window()
        self._layout.restore(self)
        self.views.built.connect(self._layout.restore)
        if settings.page in self.views.page_names:
            self.views.show(settings.page)
        self._are_plots_shown = self._is_let_go = False
        self._keep_timer = QTimer(self)
        self._keep_timer.setInterval(KEEP_MS)
        self._keep_timer.timeout.connect(self._keep_layout)
        self._keep_timer.start()
        # Timers of its own: PySide at times frees those of QTimer.singleShot while they wait to be deleted.
        self._docks_timer = _once(self, self.views.size_docks)
        self._plots_timer = _once(self, self.show_plots)
        self._model_timer = _once(self, self._show_what_is_open)

    # What is in it.

    def show_view(self, name: str) -> None:
        """Bring a view to the front: "inspect", "plans".

        Raises:
            KeyError: there is no such view.
        """
        self.views.show(name)

    def toggle_view(self, name: str) -> None:
        """Show a view; hide it if it is shown already.

        Raises:
            KeyError: there is no such view.
        """
        self.views.toggle(name)

    @property
    def palette_dialog(self) -> CommandPalette:
        """The command palette."""
        return self.context.palette

    def show_plots(self) -> None:
        """Put the views that draw into the pages, one per turn of the event loop: the window stays usable.

        Another thread imports them before, and what opens when it is asked for afterwards.
        """
        self._import_late(MACHINE, self.status_line.show_machine)
        self._import_late(PAGES, self.views.build_next)
        self._import_late(DIALOGS, lambda: None)

    def _import_late(self, names: Sequence[str], then: Callable[[], object]) -> None:
        def done(_nothing: object) -> None:
            then()

        self.session.workspace.background.run(partial(import_late, names), done, done)

    def _make_actions(self) -> Actions:
        widget_keys = tuple(row for feature in self._features for row in feature.keys)
        commands = (
            *file_commands(self.context),
            *window_commands(self.context, widget_keys),
            *(command for feature in self._features for command in feature.commands()),
        )
        return Actions(commands, self.context, self.settings, self)

    def _connect(self) -> None:
        session = self.session
        for feature in self._features:
            feature.listen(self.context)
        session.notified.connect(self._on_notified)
        session.model_changed.connect(self._refresh_title)
        session.model_changed.connect(self._on_model_changed)
        session.project_changed.connect(self._refresh_title)
        session.project_changed.connect(self._remember_project)
        session.opened.connect(self._add_recent)
        self.settings.changed.connect(self._on_setting_changed)
        QGuiApplication.styleHints().colorSchemeChanged.connect(self._follow_theme)
        theme_hub().theme_changed.connect(self._retheme)
        self.views.all_built.connect(self.plots_shown)
        session.workspace.options = self.settings.engine

    # Keeping up.

    def _refresh_title(self) -> None:
        model, project = self.session.workspace.model, self.session.workspace.project
        name = "" if project.is_temporary else project.path.stem
        parts = [name, Path(model.source_path).name if model else "", "QuantStudio"]
        self.setWindowTitle(" — ".join(part for part in parts if part))

    def _remember_project(self) -> None:
        self.settings.last_project = str(self.session.workspace.project.path.resolve())

    def _add_recent(self, path: str) -> None:
        if not is_session_file(Path(path)):  # those are listed as long as they are there
            self.settings.add_recent(path)

    def _on_model_changed(self) -> None:
        """A moment later: on the way to another model there is none for a moment."""
        self._model_timer.start(0)

    def _show_what_is_open(self) -> None:
        if self.session.workspace.model is None:
            self.views.show_start()
        else:
            self.views.leave_start()

    def _on_notified(self, notice: Notification) -> None:
        text = f"{Path(notice.where).name}: {notice.text}" if notice.where else notice.text
        self.context.tell(notice.severity.value, text, notice.hint)
        line = ". ".join(part.rstrip(".") for part in (text, notice.hint.text) if part)
        self.session.workspace.jobs.logged.emit(LogLine(time.time(), notice.severity, line))

    def _on_setting_changed(self, key: str) -> None:
        if key == "theme":
            self._follow_theme()
        elif key in ENGINE_KEYS:
            self.session.workspace.options = self.settings.engine

    def _follow_theme(self) -> None:
        theme = resolve_choice(self.settings.theme, QGuiApplication.styleHints().colorScheme())
        if theme is not current_theme():
            restyle(self._application, self, theme)

    def _retheme(self) -> None:
        self.actions_list.set_icon("view.theme", "sun" if current_theme().is_dark else "moon")

    # Layout and leaving.

    def showEvent(self, event: QShowEvent) -> None:
        """Fills the pages once the window is on the screen."""
        super().showEvent(event)
        self._docks_timer.start(0)
        if not self._are_plots_shown:
            self._are_plots_shown = True
            self._plots_timer.start(FIRST_PAINT_MS)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """The layers keep their share of the window."""
        super().resizeEvent(event)
        if self.isVisible():
            self._docks_timer.start(0)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Files may be dropped anywhere."""
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Open what was dropped."""
        urls = event.mimeData().urls()
        self.session.workspace.documents.open_paths([url.toLocalFile() for url in urls if url.isLocalFile()])
        event.acceptProposedAction()

    def closeEvent(self, event: QCloseEvent) -> None:
        """Asks only before work is stopped: everything else is on disk. Ends the worker."""
        leaving = self.session.workspace.documents.leaving
        if leaving.asks and not self._is_let_go:
            event.ignore()
            leaving.then("", self._let_go)
            return
        self._model_timer.stop()
        self._keep_timer.stop()
        self.views.leave_start()  # what stands behind it is what is remembered
        self._keep_layout()
        self.session.close()
        super().closeEvent(event)

    def _let_go(self) -> None:
        self._is_let_go = True
        self.close()

    def _keep_layout(self) -> None:
        """Now and then, too: a program that is killed has no other moment."""
        if self.views.is_start_shown:
            return  # what stands behind it is what is remembered
        self._layout.save()
        self.settings.page = self.views.page


def _once(parent: QObject, slot: Callable[[], None]) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.timeout.connect(slot)
    return timer
