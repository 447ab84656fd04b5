"""What sensitivity has already found out, kept in the cache folder so that nothing is computed twice.

Arrays by key, each group under the content it is about: model, data, number of samples. An entry is written
as soon as it is known, in a transaction of its own; a process that is killed loses at most the entry it was
writing. Deleting the file loses time, nothing else.
"""

from __future__ import annotations

import hashlib
import io
import logging
import sqlite3
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.folders import cache_folder, cache_root
from quantstudio.core.keeping import kept_if_possible

# Raised whenever the same key would mean other numbers than before.
FORMAT = 3  # 3: all 2^b levels below 8 bits
LIMIT_BYTES = 512 * 2**20
BUSY_TIMEOUT_S = 2.0

Arrays = Mapping[str, NDArray[np.generic]]
Key = tuple[str, ...]

logger = logging.getLogger(__name__)

_TABLES = """
CREATE TABLE IF NOT EXISTS contents (id TEXT PRIMARY KEY, used REAL NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
    content TEXT NOT NULL REFERENCES contents (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    arrays BLOB NOT NULL,
    PRIMARY KEY (content, key)
) WITHOUT ROWID;
"""


class Entries(Protocol):
    """Entries about one content."""

    def get(self, *key: str) -> Arrays | None:
        """The arrays of a key; None where it is not known."""

    def put(self, entries: Mapping[Key, Arrays]) -> None:
        """Keep entries, all or none."""


class NoEntries:
    """Knows nothing and keeps nothing."""

    def get(self, *key: str) -> Arrays | None:
        """Nothing."""
        del key
        return None

    def put(self, entries: Mapping[Key, Arrays]) -> None:
        """Forget them."""


class ResultStore:
    """The file, opened; closes as a context manager.

    A file that is damaged, or of another version, is replaced. Where it cannot be written, nothing is kept
    and that is logged: an analysis does not fail for want of a cache.

    Args:
        path: The file; made if missing.
        limit_bytes: Contents used longest ago are dropped beyond it, when the file is opened.
    """

    def __init__(self, path: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = _opened(path)
        except sqlite3.DatabaseError as error:
            if path.is_file():
                logger.warning("%s is damaged or of another version; it is replaced", path)
                self._start_anew()
            else:
                logger.warning("Cannot make %s (%s); results are not kept", path, error)
        if self._connection is not None:
            self._try("make room", lambda c: _make_room(c, limit_bytes))

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Release the file; safe to call twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def entries(self, *content: str) -> Entries:
        """The entries about one content.

        Args:
            content: What they depend on: digests of model and data, number of samples.
        """
        name = hashlib.sha256("\n".join((str(FORMAT), *content)).encode()).hexdigest()[:32]
        self._try(
            "note the use of entries",
            lambda c: c.execute(
                "INSERT INTO contents VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET used = excluded.used",
                (name, time.time()),
            ),
        )
        return _StoredEntries(self, name)

    def read(self, content: str, key: str) -> bytes | None:
        """The packed arrays of an entry."""
        found = self._try(
            "read",
            lambda c: c.execute(
                "SELECT arrays FROM entries WHERE content = ? AND key = ?", (content, key)
            ).fetchone(),
        )
        return found[0] if found is not None else None

    def write(self, content: str, entries: Mapping[str, bytes]) -> None:
        """Replace entries in one transaction."""
        rows = [(content, key, packed) for key, packed in entries.items()]
        self._try("write", lambda c: _insert(c, rows))

    def _try(self, what: str, action: Callable[[sqlite3.Connection], Any]) -> Any:  # noqa: ANN401
        """The action's result; None, and no further attempt, where the file refuses."""
        if self._connection is None:
            return None
        try:
            return action(self._connection)
        except sqlite3.Error as error:
            logger.warning("Cannot %s in %s (%s); results are not kept", what, self._path, error)
            self.close()
            return None

    def _start_anew(self) -> None:
        try:
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._connection = _opened(self._path)
        except (OSError, sqlite3.Error) as error:
            logger.warning("Cannot use %s (%s); results are not kept", self._path, error)


class _StoredEntries:
    def __init__(self, store: ResultStore, name: str) -> None:
        self._store = store
        self._name = name

    def get(self, *key: str) -> Arrays | None:
        packed = self._store.read(self._name, "\n".join(key))
        return None if packed is None else _unpacked(packed)

    def put(self, entries: Mapping[Key, Arrays]) -> None:
        self._store.write(self._name, {"\n".join(key): _packed(arrays) for key, arrays in entries.items()})


def default_store() -> ResultStore:
    """The store in the cache folder."""
    with kept_if_possible("results of analyses"):
        cache_folder("sensitivity")
    return ResultStore(cache_root() / "sensitivity" / "results.sqlite")


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        # Before the first table, or it does nothing: dropped contents give their space back.
        connection.execute("PRAGMA auto_vacuum = FULL")
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may cost the last entries, never the file; a killed process costs nothing.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(_TABLES)
        connection.execute("SELECT count(*) FROM contents").fetchone()
        # A file of an older version has no such column: it is started anew.
        connection.execute("SELECT content FROM entries LIMIT 1").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _make_room(connection: sqlite3.Connection, limit_bytes: int) -> None:
    sizes = connection.execute(
        "SELECT contents.id, coalesce(sum(length(entries.arrays)), 0) FROM contents "
        "LEFT JOIN entries ON entries.content = contents.id GROUP BY contents.id ORDER BY contents.used DESC"
    ).fetchall()
    total = 0
    for name, size in sizes:
        total += size
        if total > limit_bytes:
            connection.execute("DELETE FROM contents WHERE id = ?", (name,))


def _insert(connection: sqlite3.Connection, rows: list[tuple[str, str, bytes]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _packed(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(arrays))
    return buffer.getvalue()


def _unpacked(packed: bytes) -> Arrays | None:
    try:
        with closing(np.load(io.BytesIO(packed), allow_pickle=False)) as found:
            return {name: found[name] for name in found.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile):
        # Half an entry cannot be written; a file changed by other hands is computed again.
        return None
