"""Undo and redo without limit, kept in the project file itself."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from functools import partial

from quantstudio.core.recipe import Recipe
from quantstudio.project.database import Database
from quantstudio.project.state import HistoryStep, Plan, ProjectState
from quantstudio.project.values import dump, read

FIRST_LABEL = "New project"
# Steps that begin like this are nobody's edits.
START_LABEL = "Start with "


class History:
    """The states a project went through, and where in them it stands.

    Args:
        database: An open project; a fresh one gets its first step here.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        if not database.rows("SELECT 1 FROM present"):
            with database.transaction() as connection:
                _append(connection, ProjectState(), FIRST_LABEL, "")
        self._state = self._load()

    @property
    def state(self) -> ProjectState:
        """The present state."""
        return self._state

    @property
    def undo_label(self) -> str:
        """What undo would take back; empty when there is nothing."""
        rows = self._database.rows(
            "SELECT label FROM history JOIN present ON history.id = present.step"
            " WHERE EXISTS (SELECT 1 FROM history AS older WHERE older.id < present.step)"
        )
        return str(rows[0][0]) if rows else ""

    @property
    def redo_label(self) -> str:
        """What redo would do again; empty when there is nothing."""
        rows = self._database.rows(
            "SELECT label FROM history WHERE id > (SELECT step FROM present) ORDER BY id LIMIT 1"
        )
        return str(rows[0][0]) if rows else ""

    def steps(self) -> tuple[HistoryStep, ...]:
        """Every step, the oldest first."""
        rows = self._database.rows(
            "SELECT label, created, id = (SELECT step FROM present) FROM history ORDER BY id"
        )
        return tuple(HistoryStep(label, created, bool(present)) for label, created, present in rows)

    def edit(self, state: ProjectState, label: str, merge_key: str) -> bool:
        """Append a state; see `Project.edit`."""
        if state == self._state:
            return False
        with self._database.transaction() as connection:
            (present,) = connection.execute("SELECT step FROM present").fetchone()
            dropped = connection.execute("DELETE FROM history WHERE id > ?", (present,)).rowcount
            (last_key,) = connection.execute(
                "SELECT merge_key FROM history WHERE id = ?", (present,)
            ).fetchone()
            merges = bool(merge_key) and merge_key == last_key and not dropped
            if merges:
                _replace(connection, present, state, label)
            else:
                _append(connection, state, label, merge_key)
            if dropped or merges:
                connection.execute("DELETE FROM recipe WHERE digest NOT IN (SELECT recipe FROM history_plan)")
        self._state = state
        return True

    def undo(self) -> bool:
        """Step back; False at the beginning."""
        return self._move("SELECT max(id) FROM history WHERE id < (SELECT step FROM present)")

    def redo(self) -> bool:
        """Step forward; False at the end."""
        return self._move("SELECT min(id) FROM history WHERE id > (SELECT step FROM present)")

    def _move(self, query: str) -> bool:
        with self._database.transaction() as connection:
            (step,) = connection.execute(query).fetchone()
            if step is None:
                return False
            connection.execute("UPDATE present SET step = ?", (step,))
            # A drag that goes on after an undo is a new edit.
            connection.execute("UPDATE history SET merge_key = '' WHERE id = ?", (step,))
        self._state = self._load()
        return True

    def _load(self) -> ProjectState:
        where = str(self._database.path)
        rows = self._database.rows(
            "SELECT name, recipe.recipe FROM history_plan JOIN recipe ON digest = history_plan.recipe"
            " WHERE step = (SELECT step FROM present) ORDER BY position"
        )
        plans = []
        for name, text in rows:
            recipe = self._database.readable(f"plan {name!r}", partial(read, Recipe, text, where))
            if recipe is not None:
                plans.append(Plan(name, recipe))
        if not plans:
            return ProjectState()
        ((active,),) = self._database.rows("SELECT active FROM history WHERE id = (SELECT step FROM present)")
        names = [plan.name for plan in plans]
        return ProjectState(tuple(plans), active if active in names else names[0])


def _append(connection: sqlite3.Connection, state: ProjectState, label: str, merge_key: str) -> None:
    step = connection.execute(
        "INSERT INTO history (label, merge_key, active, created) VALUES (?, ?, ?, ?)",
        (label, merge_key, state.active, time.time()),
    ).lastrowid
    _put_plans(connection, step, state)
    connection.execute("INSERT OR REPLACE INTO present (id, step) VALUES (1, ?)", (step,))


def _replace(connection: sqlite3.Connection, step: int, state: ProjectState, label: str) -> None:
    connection.execute(
        "UPDATE history SET label = ?, active = ?, created = ? WHERE id = ?",
        (label, state.active, time.time(), step),
    )
    connection.execute("DELETE FROM history_plan WHERE step = ?", (step,))
    _put_plans(connection, step, state)


def _put_plans(connection: sqlite3.Connection, step: int | None, state: ProjectState) -> None:
    for position, plan in enumerate(state.plans):
        text = dump(plan.recipe)
        digest = hashlib.sha256(text.encode()).hexdigest()
        connection.execute("INSERT OR IGNORE INTO recipe VALUES (?, ?)", (digest, text))
        connection.execute(
            "INSERT INTO history_plan VALUES (?, ?, ?, ?)", (step, position, plan.name, digest)
        )
