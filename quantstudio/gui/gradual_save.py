"""Writes rows of results into the project a few a turn: five hundred with a thousand classes take a while."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from time import perf_counter

from PySide6.QtCore import QObject, QTimer

from quantstudio.core.results import LayerSensitivity
from quantstudio.gui.bridge import TURN_MS

WAIT_MS = 60
ROWS_AT_ONCE = 8


class GradualSave(QObject):
    """Takes rows by layer and hands them on soon; what is worth nothing without them comes after the last."""

    def __init__(self, write: Callable[[tuple[LayerSensitivity, ...]], None], parent: QObject) -> None:
        super().__init__(parent)
        self._write = write
        self._rows: dict[str, LayerSensitivity] = {}
        self._after: list[Callable[[], None]] = []
        self._next_turn = QTimer(self)
        self._next_turn.setSingleShot(True)
        self._next_turn.timeout.connect(self._on_turn)

    def add(self, rows: Mapping[str, LayerSensitivity]) -> None:
        """Write these rows soon; a newer row of a layer takes the place of one that still waits."""
        self._rows.update(rows)
        self._start()

    def after_all(self, write: Callable[[], None]) -> None:
        """Call this once every row that waits now is written."""
        self._after.append(write)
        self._start()

    def flush(self) -> None:
        """Write everything now."""
        while self._rows or self._after:
            self._write_some()

    def forget(self) -> None:
        """Write nothing of what waits."""
        self._rows.clear()
        self._after.clear()

    def _start(self) -> None:
        if not self._next_turn.isActive():
            self._next_turn.start(WAIT_MS)

    def _on_turn(self) -> None:
        end = perf_counter() + TURN_MS / 1000
        while self._rows or self._after:
            self._write_some()
            if perf_counter() >= end:
                break
        if self._rows or self._after:
            self._next_turn.start(0)

    def _write_some(self) -> None:
        if self._rows:
            names = list(islice(self._rows, ROWS_AT_ONCE))
            self._write(tuple(self._rows.pop(name) for name in names))
        elif self._after:
            self._after.pop(0)()
