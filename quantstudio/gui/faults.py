"""Faults of our own: into a rotating log, and to a dialog that never blocks. Nothing is sent anywhere."""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType

from PySide6.QtCore import QMessageLogContext, QObject, Qt, QtMsgType, Signal, qInstallMessageHandler

from quantstudio.core.folders import config_folder
from quantstudio.jobs.execution import save_report

logger = logging.getLogger(__name__)

LOG_BYTES = 1_000_000
LOGS_KEPT = 3

_QT_LEVELS = {
    QtMsgType.QtDebugMsg: logging.DEBUG,
    QtMsgType.QtInfoMsg: logging.INFO,
    QtMsgType.QtWarningMsg: logging.WARNING,
    QtMsgType.QtCriticalMsg: logging.ERROR,
    QtMsgType.QtFatalMsg: logging.CRITICAL,
}


class Faults(QObject):
    """Takes over the hooks Python and Qt call when something fails.

    Emits `failed(summary, details)` on the event loop's thread.
    """

    failed = Signal(str, str)
    _posted = Signal(str, str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._posted.connect(self.failed, Qt.ConnectionType.QueuedConnection)
        self._restore: list[Callable[[], None]] = []

    @property
    def log_path(self) -> Path:
        """The log file."""
        return config_folder() / "quantstudio.log"

    def install(self) -> None:
        """Begin to log, and catch what nothing else caught."""
        handler = RotatingFileHandler(
            self.log_path, maxBytes=LOG_BYTES, backupCount=LOGS_KEPT, encoding="utf-8"
        )
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger("quantstudio")
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        crash_file = (config_folder() / "crash.log").open("a", encoding="utf-8")
        faulthandler.enable(crash_file)
        except_hook, thread_hook = sys.excepthook, threading.excepthook
        sys.excepthook = self._on_exception
        threading.excepthook = self._on_thread_exception
        previous = qInstallMessageHandler(_on_qt_message)

        def restore() -> None:
            sys.excepthook, threading.excepthook = except_hook, thread_hook
            qInstallMessageHandler(previous)
            faulthandler.disable()
            crash_file.close()
            root.removeHandler(handler)
            handler.close()

        self._restore.append(restore)

    def uninstall(self) -> None:
        """Give the hooks back."""
        while self._restore:
            self._restore.pop()()

    def _on_exception(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        details = "".join(traceback.format_exception(kind, error, trace))
        logger.error("uncaught exception\n%s", details)
        sys.stderr.write(details)
        path = save_report(kind.__name__, details)
        self._posted.emit(f"{kind.__name__}: {error}", f"{details}\nSaved as {path}" if path else details)

    def _on_thread_exception(self, hook: threading.ExceptHookArgs) -> None:
        if hook.exc_value is not None:
            self._on_exception(hook.exc_type, hook.exc_value, hook.exc_traceback)


def _on_qt_message(kind: QtMsgType, context: QMessageLogContext, text: str) -> None:
    del context
    logging.getLogger("quantstudio.qt").log(_QT_LEVELS.get(kind, logging.WARNING), "%s", text)
