"""A project's SQLite file: opened with care, locked against a second writer, its faults put into words."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from quantstudio.core.errors import OutputError, ProjectError
from quantstudio.core.files import written_beside
from quantstudio.core.folders import cache_folder
from quantstudio.core.hints import Hint, HintAction
from quantstudio.project.migrations import APPLICATION_ID, migrate, present_version

SQLITE_MAGIC = b"SQLite format 3\x00"
BUSY_TIMEOUT_S = 2.0
CHECKPOINT_EVERY = 200
_APPLICATION_ID_OFFSET = 68

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Lock:
    """The right to write one project, held by one process and given up by the system when that dies.

    A lock of SQLite's own on an empty file in the cache folder: it works alike everywhere, and nothing
    appears beside the user's file.

    Raises:
        ProjectError: someone else holds it.
    """

    def __init__(self, path: Path) -> None:
        name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
        folder = cache_folder() / "locks"
        folder.mkdir(exist_ok=True)
        self._connection = sqlite3.connect(
            folder / f"{name}.lock", timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            self._connection.close()
            raise ProjectError(
                "the project is open in another window",
                where=str(path),
                hint="Close it there, or save a copy under another name",
            ) from error

    def release(self) -> None:
        """Let others in; safe to call twice."""
        self._connection.close()


class Database:
    """A connection that any thread may use, one at a time; every write is a transaction of its own.

    Args:
        path: An existing project file.
        read_only: Look, do not touch: no lock, no migration.

    Raises:
        ProjectError: missing, not a project, newer, damaged, read-only, or open elsewhere.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.is_read_only = read_only
        self._unreadable: dict[str, str] = {}
        self._guard = threading.RLock()
        self._commits = 0
        self._checkpoint: threading.Thread | None = None
        # The lock first: closing a second handle of a file drops the locks its first user holds on POSIX.
        self._lock = None if read_only else Lock(path)
        try:
            check_header(path)
            self._connection = connect_to_read(path) if read_only else _connect(path)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise
        except BaseException as error:
            if self._lock is not None:
                self._lock.release()
            if isinstance(error, sqlite3.Error | UnicodeDecodeError):
                raise in_words(error, path) from error
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block or nothing, durable when it ends.

        Raises:
            ProjectError: the file cannot be written; it is as it was before the block.
        """
        if self.is_read_only:
            raise ProjectError("the project was opened for reading only", where=str(self.path))
        with self._guard:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                    self._count_commit()
                except BaseException:
                    # A full disk ends the transaction by itself.
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except (sqlite3.Error, UnicodeDecodeError) as error:
                raise in_words(error, self.path) from error
            except UnicodeEncodeError as error:
                raise ProjectError(
                    f"{error.object[:80]!r} is not valid text and cannot be saved",
                    where=str(self.path),
                    hint="Rename the file or layer",
                ) from error

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401  SQL values
        """All rows of a query.

        Raises:
            ProjectError: the file cannot be read.
        """
        with self._guard:
            try:
                return self._connection.execute(query, values).fetchall()
            except (sqlite3.Error, UnicodeDecodeError) as error:
                raise in_words(error, self.path) from error

    @property
    def unreadable(self) -> tuple[str, ...]:
        """What was left out because it cannot be read, one sentence each; it stays in the file."""
        return tuple(self._unreadable.values())

    def readable(self, what: str, make: Callable[[], T]) -> T | None:
        """A value, or None where what the file holds cannot be read: that is noted, the rest goes on.

        Args:
            what: What it is, for the user: "result 'costs'".
            make: Reads it.
        """
        try:
            return make()
        except ProjectError as error:
            self._unreadable[what] = f"{self.path.name}: {what} was left out: {error.what}. {error.hint}."
            logger.warning("%s", self._unreadable[what])
            return None

    def copy_to(self, target: Path) -> None:
        """Write a consistent copy, beside and renamed.

        Raises:
            ProjectError: the target is open elsewhere or cannot be written.
        """
        lock = Lock(target)
        try:
            with self._guard, written_beside(target) as temporary:
                copy = sqlite3.connect(temporary, isolation_level=None)
                try:
                    self._connection.backup(copy)
                finally:
                    copy.close()
                _merge_journal(target)
        except OutputError as error:
            raise ProjectError(error.what, where=error.where, hint=error.hint) from error
        except sqlite3.Error as error:
            raise in_words(error, target) from error
        finally:
            lock.release()

    def close(self) -> None:
        """Merge the journal into the file and let go of it; safe to call twice."""
        if self._checkpoint is not None:
            self._checkpoint.join()
        with self._guard:
            self._connection.close()
            if self._lock is not None:
                self._lock.release()

    def _count_commit(self) -> None:
        """Now and then merge the journal on a thread: the disk may take longer than a window may wait."""
        self._commits += 1
        if self._commits % CHECKPOINT_EVERY or (self._checkpoint and self._checkpoint.is_alive()):
            return
        self._checkpoint = threading.Thread(target=_merge, args=(self.path,), name="checkpoint", daemon=True)
        self._checkpoint.start()

    def _prepare(self) -> None:
        connection = self._connection
        # The file may come from anyone: nothing stored in its schema may call a function with effects.
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA foreign_keys = ON")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > present_version():
            raise ProjectError(
                f"the project was written by a newer version (format {version}, this program reads up to "
                f"{present_version()})",
                where=str(self.path),
                hint="Update QuantStudio",
            )
        damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise damaged(self.path, str(damage))
        foreign = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view')")
        if (found := foreign.fetchone()) is not None:
            raise ProjectError(
                f"the project holds {found[0]!r}, which no version of QuantStudio writes",
                where=str(self.path),
                hint="Do not open it; ask whoever sent it",
            )
        if self.is_read_only:
            if version < present_version():
                raise ProjectError(
                    "the project is of an older version and cannot be read without converting it",
                    where=str(self.path),
                    hint=Hint("Open it once, to convert it", HintAction.OPEN_PROJECT),
                )
            return
        if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal":
            # In this mode a commit survives the death of the process without waiting for the disk.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        migrate(connection)


def create_database(path: Path) -> None:
    """Write an empty project file, whole or not at all.

    Raises:
        ProjectError: there is a file already, or it cannot be written.
    """
    if path.exists():
        raise ProjectError("the file exists already", where=str(path), hint="Choose another name")
    try:
        with written_beside(path) as temporary:
            connection = sqlite3.connect(temporary, isolation_level=None)
            try:
                migrate(connection)
            finally:
                connection.close()
    except OutputError as error:
        raise ProjectError(error.what, where=error.where, hint=error.hint) from error
    except sqlite3.Error as error:
        raise in_words(error, path) from error


def check_header(path: Path) -> None:
    """Look at the first bytes, so that a file that is not a project is not touched at all.

    Raises:
        ProjectError: missing, unreadable, or not a project.
    """
    if not path.exists():
        raise ProjectError(
            "there is no such project file", where=str(path), hint="It may have been moved or renamed"
        )
    try:
        with path.open("rb") as file:
            header = file.read(_APPLICATION_ID_OFFSET + 4)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ProjectError(
            f"the project cannot be read ({reason})", where=str(path), hint="Give a .qstudio file"
        ) from error
    identity = int.from_bytes(header[_APPLICATION_ID_OFFSET:], "big")
    if not header.startswith(SQLITE_MAGIC) or identity != APPLICATION_ID:
        raise ProjectError(
            "the file is not a QuantStudio project",
            where=str(path),
            hint="Projects end in .qstudio; a model or data set is opened from inside a project",
        )


def in_words(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> ProjectError:
    """What an error of SQLite means for the person whose project it is.

    Damage inside a name makes SQLite's own message no valid text, which Python reports instead of it.
    """
    if isinstance(error, UnicodeDecodeError):
        return damaged(path, "a name is not text")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return ProjectError(
            "the project is in use by another program", where=str(path), hint="Close that program"
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
        return ProjectError(
            "the project, or the folder it is in, cannot be written to",
            where=str(path),
            hint="Copy it to a folder of yours and open the copy",
        )
    if code == sqlite3.SQLITE_FULL:
        return ProjectError(
            "the disk is full; the last change was not saved",
            where=str(path),
            hint="Free some space and repeat it; everything before it is saved",
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, str(error))
    if code == sqlite3.SQLITE_ERROR:
        # The queries are ours and right: a table, column or text they name is not what was written.
        return damaged(path, str(error).partition(" with text ")[0])
    return ProjectError(
        f"the project cannot be used ({error})",
        where=str(path),
        hint="Restore a backup, or copy it elsewhere",
    )


def damaged(path: Path, detail: str) -> ProjectError:
    """The error for a file whose contents contradict themselves."""
    first = detail.strip().splitlines()[-1] if detail.strip() else "no detail"
    return ProjectError(
        f"the project file is damaged ({first})",
        where=str(path),
        hint="It was left as it is. Restore a backup, or start a new project from the model",
    )


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, for a glance into a file that may be open elsewhere.

    Raises:
        sqlite3.Error: it is not there.
    """
    # Without a journal to read, a file in a folder we cannot write to opens only as unchanging.
    has_journal = path.with_name(path.name + "-wal").exists()
    uri = path.resolve().as_uri() + "?mode=ro" + ("" if has_journal else "&immutable=1")
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    # The file may come from anyone: nothing stored in its schema may call a function with effects.
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    if not _is_writable(path):
        raise ProjectError(
            "the project file is read-only",
            where=str(path),
            hint="Copy it to a folder of yours and open the copy",
        )
    uri = path.resolve().as_uri() + "?mode=rw"
    return sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )


def _merge(path: Path) -> None:
    """Merge what can be merged without waiting for anyone; the rest is for the next time."""
    try:
        connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            connection.close()
    except sqlite3.Error:
        logger.exception("Cannot merge the journal of %s now", path)


def _is_writable(path: Path) -> bool:
    try:
        with path.open("r+b"):
            return True
    except OSError:
        return False


def _merge_journal(target: Path) -> None:
    """Leave no journal of an old target behind: SQLite would apply it to the file that replaces it."""
    journal = target.with_name(target.name + "-wal")
    if journal.exists():
        with contextlib.suppress(sqlite3.Error):
            old = sqlite3.connect(target, isolation_level=None)
            try:
                old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                old.close()
    for suffix in ("-wal", "-shm"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
