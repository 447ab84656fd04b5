"""What can still be read of a damaged project, written into a new one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from quantstudio.core.errors import ProjectError
from quantstudio.project.database import Database, create_database, in_words
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
    try:
        source = sqlite3.connect(f"{Path(damaged).resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    except sqlite3.Error as error:
        raise in_words(error, Path(damaged)) from error
    try:
        found = {table: _readable_rows(source, table) for table in _TABLES}
    finally:
        source.close()
    if not any(found.values()):
        raise ProjectError(
            "nothing can be read of the damaged project", where=str(damaged), hint="Restore a backup"
        )
    create_database(Path(target))
    database = Database(Path(target))
    try:
        rescued = {table: _insert(database, table, rows) for table, rows in found.items()}
        _drop_broken_history(database)
    finally:
        database.close()
    Project.open(target).close()
    return rescued


def _readable_rows(source: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    try:
        for row in source.execute(f"SELECT * FROM {table}"):
            rows.append(row)  # noqa: PERF402  rows before the fault are kept
    except sqlite3.Error:
        return rows
    return rows


def _insert(database: Database, table: str, rows: list[tuple[object, ...]]) -> int:
    with database.transaction() as connection:
        # Rows whose partner is lost are sorted out afterwards.
        connection.execute("PRAGMA defer_foreign_keys = ON")
        count = 0
        for row in rows:
            marks = ", ".join("?" * len(row))
            try:
                connection.execute(f"INSERT INTO {table} VALUES ({marks})", row)
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
