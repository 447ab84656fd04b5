"""What can still be read of a damaged project, written into a new one."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

from quantstudio.core.errors import ProjectError
from quantstudio.project.database import Database, create_database
from quantstudio.project.store import Project

# Referenced tables first.
_TABLES = (
    "model",
    "data",
    "recipe",
    "history",
    "history_plan",
    "present",
    "result",
    "layer_result",
    "variant",
    "log",
    "setting",
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Rows:
    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]


def salvage(damaged: Path, target: Path) -> dict[str, int]:
    """Copy every readable row of a damaged project into a new project; the damaged file is not touched.

    Args:
        damaged: The file that does not open.
        target: The new project; must not exist.

    Returns:
        Rows rescued by table. Without a readable history the plans start anew.

    Raises:
        ProjectError: nothing can be read, or the target exists or cannot be written.
    """
    damaged, target = Path(damaged), Path(target)
    if not damaged.exists():
        raise ProjectError("there is no such project file", where=str(damaged))
    if target.exists():
        raise ProjectError("the file exists already", where=str(target), hint="Choose another name")
    with tempfile.TemporaryDirectory() as folder:
        found = _read_copy(damaged, Path(folder))
    if not any(found[table].rows for table in _TABLES):
        raise ProjectError(
            "nothing can be read of the damaged project", where=str(damaged), hint="Restore a backup"
        )
    create_database(target)
    database = Database(target)
    try:
        rescued = {table: _insert(database, table, rows) for table, rows in found.items()}
        _drop_broken_history(database)
    finally:
        database.close()
    Project.open(target).close()
    return rescued


def _read_copy(damaged: Path, folder: Path) -> dict[str, _Rows]:
    """Rows by table, read from a copy: reading a database with its journal writes to it."""
    copy = folder / "copy.db"
    try:
        for suffix in ("", "-wal"):
            part = damaged.with_name(damaged.name + suffix)
            if part.exists():
                shutil.copyfile(part, copy.with_name(copy.name + suffix))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ProjectError(f"the project cannot be read ({reason})", where=str(damaged)) from error
    source = sqlite3.connect(copy)
    try:
        return {table: _readable_rows(source, table) for table in _TABLES}
    finally:
        source.close()


def _readable_rows(source: sqlite3.Connection, table: str) -> _Rows:
    rows: list[tuple[object, ...]] = []
    columns: tuple[str, ...] = ()
    try:
        cursor = source.execute(f"SELECT * FROM {table}")
        columns = tuple(column[0] for column in cursor.description)
        for row in cursor:
            rows.append(row)  # noqa: PERF402  rows before the fault are kept
    except (sqlite3.Error, UnicodeDecodeError) as error:
        logger.info("Table %s is damaged after %d rows: %s", table, len(rows), error)
    return _Rows(columns, rows)


def _insert(database: Database, table: str, found: _Rows) -> int:
    with database.transaction() as connection:
        # Rows whose partner is lost are sorted out afterwards.
        connection.execute("PRAGMA defer_foreign_keys = ON")
        count = 0
        names, marks = ", ".join(found.columns), ", ".join("?" * len(found.columns))
        for row in found.rows:
            try:
                connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", row)
            except sqlite3.IntegrityError:
                continue
            count += 1
        _drop_orphans(connection, table)
        return count


def _drop_orphans(connection: sqlite3.Connection, table: str) -> None:
    if table == "history_plan":
        connection.execute(
            "DELETE FROM history_plan WHERE step NOT IN (SELECT id FROM history)"
            " OR recipe NOT IN (SELECT digest FROM recipe)"
        )
    elif table == "present":
        connection.execute("DELETE FROM present WHERE step NOT IN (SELECT id FROM history)")


def _drop_broken_history(database: Database) -> None:
    """Steps without their plans cannot be shown; if the present is one of them, stand at the newest whole."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM present WHERE step NOT IN (SELECT step FROM history_plan)")
        connection.execute(
            "DELETE FROM history WHERE id NOT IN (SELECT step FROM history_plan)"
            " OR active NOT IN (SELECT name FROM history_plan WHERE step = history.id)"
        )
        connection.execute(
            "INSERT OR IGNORE INTO present SELECT 1, max(id) FROM history HAVING max(id) IS NOT NULL"
        )
