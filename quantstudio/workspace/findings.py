"""Everything known, in memory over the project's file: one way in, one way out, one signal per kind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, TypeVar, cast

from quantstudio.core.errors import ProjectError
from quantstudio.core.findings import KINDS, FindingKind
from quantstudio.core.signals import Signal
from quantstudio.project.findings import FindingTable
from quantstudio.workspace.background import Background

T = TypeVar("T")

# A few hundred rows with a thousand classes each would hold the project's file for a second.
ROWS_AT_ONCE = 16

_BY_NAME = {kind.name: kind for kind in KINDS}


class Findings:
    """Findings by kind, key and row. A value that is put is known at once, and on disk a moment later.

    Nothing is ever taken away: what was made from other inputs lies under another key, and is found again
    when its inputs come back.

    Args:
        table: Where they are kept.
        background: Writes them, in the order they came.
        on_error: Told on the owner's thread when something could not be written.
    """

    def __init__(
        self, table: FindingTable, background: Background, on_error: Callable[[ProjectError], None]
    ) -> None:
        self._table = table
        self._background = background
        self._on_error = on_error
        self._known: dict[tuple[str, str], dict[str, Any]] = {}
        self._whole: dict[str, dict[str, None]] = {}
        self._changed: dict[str, Signal[[str]]] = {kind.name: Signal() for kind in KINDS}
        self._guard = threading.Lock()
        self._unwritten: dict[tuple[FindingTable, str, str], dict[str, Any]] = {}
        self._is_failing = False

    def changed(self, kind: FindingKind[T]) -> Signal[[str]]:
        """Emitted with the key whenever something of that kind was put."""
        return self._changed[kind.name]

    def put(self, kind: FindingKind[T], key: str, value: T, *, row: str = "") -> None:
        """Keep a value; an older one under the same name is replaced."""
        self.put_rows(kind, key, {row: value})

    def put_rows(self, kind: FindingKind[T], key: str, values: Mapping[str, T]) -> None:
        """Keep values by row; listeners are told once."""
        if not values:
            return
        known = self._rows(kind, key)
        for row, value in values.items():
            known.pop(row, None)  # the newest is last
            known[row] = value
        if kind.name in self._whole:
            self._whole[kind.name].setdefault(key)
        self._write_soon(kind, key, values)
        self._changed[kind.name].emit(key)

    def get(self, kind: FindingKind[T], key: str, row: str = "") -> T | None:
        """A value, or None where it is not known."""
        return cast("T | None", self._rows(kind, key).get(row))

    def rows(self, kind: FindingKind[T], key: str) -> Mapping[str, T]:
        """Values by row, the newest last; a view that follows what is put."""
        return MappingProxyType(self._rows(kind, key))

    def newest(self, kind: FindingKind[T], key: str) -> T | None:
        """The value that was put last, whatever its row."""
        known = self._rows(kind, key)
        return cast("T", known[next(reversed(known))]) if known else None

    def all(self, kind: FindingKind[T]) -> tuple[T, ...]:
        """Every value of a kind without rows."""
        if kind.name not in self._whole:
            stored = self._table.all(kind)
            self._whole[kind.name] = dict.fromkeys(stored)
            for key, value in stored.items():
                self._known.setdefault((kind.name, key), {"": value})
            for name, key in tuple(self._known):
                if name == kind.name and self._known[name, key]:
                    self._whole[kind.name].setdefault(key)
        values = (self._known[kind.name, key].get("") for key in self._whole[kind.name])
        return tuple(cast("T", value) for value in values if value is not None)

    def move(self, table: FindingTable) -> None:
        """Go on over another project's table; tells nobody."""
        self.flush()
        self._table = table
        self._known.clear()
        self._whole.clear()

    def follow(self, table: FindingTable) -> None:
        """Go on over a copy of the table, which holds the same."""
        self.flush()
        self._table = table

    def flush(self) -> None:
        """Return once everything is on disk."""
        self._background.wait(timeout_s=None)

    def _rows(self, kind: FindingKind[T], key: str) -> dict[str, Any]:
        name = (kind.name, key)
        if name not in self._known:
            self._known[name] = dict(self._table.rows(kind, key))
        return self._known[name]

    def _write_soon(self, kind: FindingKind[T], key: str, values: Mapping[str, T]) -> None:
        with self._guard:
            is_first = not self._unwritten
            # To the end: a run is worth nothing without the rows that came before it.
            name = (self._table, kind.name, key)
            rows = self._unwritten.pop(name, {})
            rows.update(values)
            self._unwritten[name] = rows
        if is_first:
            self._background.run(self._write_all, self._on_written, self._on_trouble)

    def _write_all(self) -> None:
        """Called on the background's thread."""
        kinds = _BY_NAME
        while True:
            with self._guard:
                if not self._unwritten:
                    return
                name = next(iter(self._unwritten))
                table, kind, key = name
                waiting = self._unwritten[name]
                batch = {row: waiting.pop(row) for row in tuple(islice(waiting, ROWS_AT_ONCE))}
            try:
                table.put(kinds[kind], key, batch)
            finally:
                with self._guard:
                    if not self._unwritten.get(name, True):
                        del self._unwritten[name]

    def _on_written(self, _nothing: None) -> None:
        self._is_failing = False

    def _on_trouble(self, error: Exception) -> None:
        if not isinstance(error, ProjectError):
            raise error
        if not self._is_failing:  # a full disk is told of once
            self._on_error(error)
        self._is_failing = True
        with self._guard:
            is_more = bool(self._unwritten)
        if is_more:
            self._background.run(self._write_all, self._on_written, self._on_trouble)
