"""The tables of a project file, as numbered steps from an empty database to the present version.

A step, once released, is never edited: a change is a new step.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from quantstudio.project.first_format import carry_over

# "QSTP", at byte 68 of the file.
APPLICATION_ID = 0x51535450

_V1 = (
    "CREATE TABLE model (id INTEGER PRIMARY KEY CHECK (id = 1), path TEXT NOT NULL, digest TEXT NOT NULL,"
    " factory TEXT NOT NULL, state TEXT NOT NULL, summary TEXT NOT NULL)",
    "CREATE TABLE data (kind TEXT PRIMARY KEY, path TEXT NOT NULL, digest TEXT NOT NULL, spec TEXT NOT NULL)",
    # Recipes by content: a history of a thousand edits of one plan does not repeat the other plans.
    "CREATE TABLE recipe (digest TEXT PRIMARY KEY, recipe TEXT NOT NULL)",
    "CREATE TABLE history (id INTEGER PRIMARY KEY, label TEXT NOT NULL, merge_key TEXT NOT NULL,"
    " active TEXT NOT NULL, created REAL NOT NULL)",
    "CREATE TABLE history_plan (step INTEGER NOT NULL REFERENCES history (id) ON DELETE CASCADE,"
    " position INTEGER NOT NULL, name TEXT NOT NULL, recipe TEXT NOT NULL REFERENCES recipe (digest),"
    " PRIMARY KEY (step, position)) WITHOUT ROWID",
    "CREATE INDEX history_plan_recipe ON history_plan (recipe)",
    "CREATE TABLE present (id INTEGER PRIMARY KEY CHECK (id = 1),"
    " step INTEGER NOT NULL REFERENCES history (id))",
    "CREATE TABLE result (kind TEXT NOT NULL, key TEXT NOT NULL, created REAL NOT NULL, value TEXT NOT NULL,"
    " PRIMARY KEY (kind, key)) WITHOUT ROWID",
    "CREATE TABLE layer_result (kind TEXT NOT NULL, key TEXT NOT NULL, layer TEXT NOT NULL,"
    " value TEXT NOT NULL, PRIMARY KEY (kind, key, layer)) WITHOUT ROWID",
    "CREATE TABLE variant (variant TEXT PRIMARY KEY, name TEXT NOT NULL, plan TEXT NOT NULL,"
    " recipe TEXT NOT NULL, statistics TEXT NOT NULL, path TEXT NOT NULL, build TEXT NOT NULL, result TEXT,"
    " created REAL NOT NULL)",
    "CREATE TABLE log (id INTEGER PRIMARY KEY, created REAL NOT NULL, severity TEXT NOT NULL,"
    " text TEXT NOT NULL)",
    "CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
)

_V2 = (
    "CREATE TABLE finding (kind TEXT NOT NULL, key TEXT NOT NULL, row TEXT NOT NULL, created REAL NOT NULL,"
    " value TEXT NOT NULL, PRIMARY KEY (kind, key, row))",
    carry_over,
    "DROP TABLE result",
    "DROP TABLE layer_result",
    "DROP TABLE variant",
    # Nothing ever wrote into these.
    "DROP TABLE log",
    "DROP TABLE setting",
)

Step = str | Callable[[sqlite3.Connection], None]

# Position i holds the steps that lead from version i to version i + 1.
MIGRATIONS: tuple[tuple[Step, ...], ...] = (_V1, _V2)


def present_version() -> int:
    """The version this program writes."""
    return len(MIGRATIONS)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database to the present version, in one transaction: killed half-way, it is as it was.

    Args:
        connection: In autocommit mode, at a version not above the present.
    """
    if connection.execute("PRAGMA user_version").fetchone()[0] == present_version():
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for steps in MIGRATIONS[version:]:
            for step in steps:
                if isinstance(step, str):
                    connection.execute(step)
                else:
                    step(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {present_version()}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
