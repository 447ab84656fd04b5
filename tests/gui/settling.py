"""Waiting until a window has done all it was going to do, by looking at what is still pending."""

from __future__ import annotations

import time
from collections.abc import Iterator

from PySide6.QtCore import QCoreApplication, QEvent, QEventLoop, QObject, QTimer
from PySide6.QtWidgets import QApplication

from tests.waiting import PATIENCE_S

# Throttles and turns are shorter than this; a toast's time on the screen and a blinking cursor are longer.
_SHORT_MS = 200
_CALM_TURNS = 20  # views are redrawn one per turn


def settled(*roots: object) -> None:
    """Turn the event loop until nothing is posted and no short timer of a window or of the roots runs."""
    end = time.monotonic() + PATIENCE_S
    calm = 0
    while calm < _CALM_TURNS:
        assert time.monotonic() < end, "the window never comes to rest"
        if any(True for _ in _pending(roots)):
            calm = 0
            QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
        else:
            calm += 1
            QCoreApplication.processEvents()
            # Only a running event loop deletes what asked for it, and here none runs.
            QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def _pending(roots: tuple[object, ...]) -> Iterator[QTimer]:
    objects = [root for root in roots if isinstance(root, QObject)]
    # Menus and dialogs are top-level, too, and children of a window that is looked through anyway.
    windows = [widget for widget in QApplication.topLevelWidgets() if widget.parent() is None]
    for owner in (*windows, *objects):
        for timer in owner.findChildren(QTimer):
            if timer.isActive() and timer.isSingleShot() and timer.interval() <= _SHORT_MS:
                yield timer
