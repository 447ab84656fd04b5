"""The composition root: makes the application, the worker, the session and the window, and runs them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("PYQTGRAPH_QT_LIB", "PySide6")

from PySide6.QtCore import QObject, QTimer
from PySide6.QtGui import QGuiApplication, QIcon
from PySide6.QtWidgets import QApplication

from quantstudio.core.errors import ProjectError, QuantStudioError
from quantstudio.core.version import VERSION
from quantstudio.gui.collector import MainThreadCollector
from quantstudio.gui.faults import Faults
from quantstudio.gui.session import Session
from quantstudio.gui.shell.main_window import MainWindow
from quantstudio.gui.shell.settings import Settings
from quantstudio.gui.theme import apply_theme, resolve_choice, ui_font
from quantstudio.gui.theme.icons import pixmap
from quantstudio.jobs.backends.process import ProcessBackend
from quantstudio.project.store import Project

GUARD_CALLS = 1000
# A paint asks Python for a thousand values. While another thread reads a file or a message, each of them may
# have to wait this long for Python's lock; the usual 5 ms add up to what can be seen.
SWITCH_SECONDS = 0.0005


def main(path: str = "", demo: str = "") -> int:
    """Open the window and stay until it is closed.

    Args:
        path: Project, model, data or recipe to open; empty for what was open last, or the start page.
        demo: Bundled sample to open instead.

    Returns:
        What the process exits with.

    Raises:
        QuantStudioError: this PySide6 corrupts Python, or there is no screen to draw on.
    """
    check_reference_counts()
    # Qt's loop never returns to Python for Ctrl+C; everything is on disk at any moment.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.setswitchinterval(SWITCH_SECONDS)
    app = make_application(sys.argv[:1])
    faults = Faults()
    faults.install()
    collector = MainThreadCollector()
    collector.start()
    try:
        settings = Settings()
        apply_theme(app, resolve_choice(settings.theme, app.styleHints().colorScheme()))
        session = Session(ProcessBackend, project=first_project(settings))
        window = MainWindow(session, settings, app)
        window.plots_shown.connect(collector.exempt_what_lives)
        faults.failed.connect(lambda what, details: tell_fault(what, details, window))
        if not path and not demo and session.workspace.model is None:
            window.show_view("start")
        window.show()
        first = QTimer(window)
        first.setSingleShot(True)
        first.timeout.connect(lambda: open_first(session, path, demo))
        first.start(0)
        return app.exec()
    finally:
        collector.stop()
        faults.uninstall()


def tell_fault(what: str, details: str, window: MainWindow) -> None:
    """Open the dialog that says what failed inside the window."""
    from quantstudio.gui.shell.help_dialogs import FaultDialog

    FaultDialog(what, details, window).open()


def make_application(arguments: list[str]) -> QApplication:
    """The application with its style, font and icon."""
    existing = QApplication.instance()
    app = existing if isinstance(existing, QApplication) else QApplication(arguments)
    app.setApplicationName("QuantStudio")
    app.setApplicationDisplayName("QuantStudio")
    app.setApplicationVersion(VERSION)
    app.setOrganizationName("QuantStudio")
    QGuiApplication.setDesktopFileName("quantstudio")
    app.setStyle("Fusion")
    app.setFont(ui_font())
    icon = QIcon()
    for edge in (16, 32, 64, 128):
        icon.addPixmap(pixmap("app", "#000000", edge))
    app.setWindowIcon(icon)
    return app


def first_project(settings: Settings) -> Project:
    """What was open last; a new session where that is gone, or open elsewhere."""
    last = settings.last_project
    if last:
        try:
            return Project.open(Path(last))
        except ProjectError:
            # Open elsewhere or damaged: the window says so when the user opens it by hand.
            settings.last_project = ""
            return Project.temporary(restore=False)
    return Project.temporary(restore=not settings.has_last_project)


def open_first(session: Session, path: str, demo: str) -> None:
    """What the window shows first: what was asked for, else what was there last, else the start page."""
    if demo:
        session.workspace.documents.open_sample(demo)
    elif path:
        session.workspace.documents.open_path(path)
    elif session.workspace.project.model is not None:
        session.workspace.opening.open_project(session.workspace.project)
        session.workspace.documents.resume()


def check_reference_counts() -> None:
    """Refuse a PySide6 that loses references: PySide6 6.12 on Python 3.11 aborts within minutes.

    Raises:
        QuantStudioError: calls that return nothing change the count of None.
    """
    target = QObject()
    before = sys.getrefcount(None)
    for _ in range(GUARD_CALLS):
        target.setObjectName("guard")
    lost = before - sys.getrefcount(None)
    if abs(lost) > GUARD_CALLS // 2:
        raise QuantStudioError(
            "this version of PySide6 corrupts this version of Python",
            hint="Install PySide6-Essentials 6.10.3 and shiboken6 6.10.3",
        )
