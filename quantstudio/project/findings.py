"""Findings in the project file: rows of (kind, key, row), each with its value as JSON text."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

from quantstudio.core.findings import FindingKind
from quantstudio.project.database import Database
from quantstudio.project.values import dump, read

T = TypeVar("T")


class FindingTable:
    """What is known, on disk; any thread may call.

    Args:
        database: An open project.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._where = str(database.path)

    def put(self, kind: FindingKind[T], key: str, rows: Mapping[str, Any]) -> None:
        """Keep values (of core, or `Written` text) by row, all or none; older ones are replaced.

        Raises:
            ProjectError: the file cannot be written; it is as it was before.
        """
        now = time.time()
        values = [(kind.name, key, row, now, dump(value)) for row, value in rows.items()]
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO finding VALUES (?, ?, ?, ?, ?)", values)

    def rows(self, kind: FindingKind[T], key: str) -> dict[str, T]:
        """Values by row, the oldest first, without those that cannot be read (`Project.unreadable`).

        Raises:
            ProjectError: the file cannot be read at all.
        """
        found = self._database.rows(
            "SELECT row, value FROM finding WHERE kind = ? AND key = ? ORDER BY created, rowid",
            kind.name,
            key,
        )
        return self._readable(kind, found)

    def keys(self, kind: FindingKind[T]) -> tuple[str, ...]:
        """Every key that has values of this kind.

        Raises:
            ProjectError: the file cannot be read at all.
        """
        rows = self._database.rows("SELECT DISTINCT key FROM finding WHERE kind = ?", kind.name)
        return tuple(key for (key,) in rows)

    def all(self, kind: FindingKind[T]) -> dict[str, T]:
        """Values by key of a kind without rows, the oldest first, without those that cannot be read.

        Raises:
            ProjectError: the file cannot be read at all.
        """
        found = self._database.rows(
            "SELECT key, value FROM finding WHERE kind = ? ORDER BY created, rowid", kind.name
        )
        return self._readable(kind, found)

    def _readable(self, kind: FindingKind[T], rows: list[tuple[str, str]]) -> dict[str, T]:
        """Under one name of the kind: hundreds of rows that cannot be read are told of once."""
        found = {}
        for name, text in rows:
            value = self._database.readable(
                f"result {kind.name!r}", partial(read, kind.form, text, self._where)
            )
            if value is not None:
                found[name] = value
        return found
