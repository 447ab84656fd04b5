"""What is in a project file, read in a millisecond without opening it: for lists of sessions and projects."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from quantstudio.core.codec import CodecError, from_json
from quantstudio.core.errors import ProjectError
from quantstudio.core.findings import KNOWN_DATA, STEPS, SUMMARY, WEIGHTS
from quantstudio.core.session_summary import SessionSummary
from quantstudio.project.database import connect_to_read, in_words
from quantstudio.project.history import FIRST_LABEL, START_LABEL
from quantstudio.project.references import is_callable_name
from quantstudio.project.store import Project, is_session_file, last_written
from quantstudio.project.values import load


@dataclass(frozen=True, slots=True)
class ProjectOutline:
    """A session or project as a list shows it.

    Attributes:
        path: The file.
        model: The model's file or `module:callable`, as the user opened it; empty where there is none.
        is_model_missing: Whether that file is not there any more.
        is_session: Whether the user has given it no name yet.
        is_untouched: Whether nothing was edited, chosen or found in it.
        changed: When it was written last, seconds since the epoch.
        summary: What to show of it; None where nothing was noted.
        trouble: Why it cannot be read; empty otherwise.
    """

    path: Path
    model: str = ""
    is_model_missing: bool = False
    is_session: bool = False
    is_untouched: bool = False
    changed: float = 0.0
    summary: SessionSummary | None = None
    trouble: str = ""

    @property
    def name(self) -> str:
        """What a person calls it: a project by its file, a session by its model."""
        return Path(self.model).name if self.is_session and self.model else self.path.stem


# What comes by itself when a model is opened.
_PASSIVE = (WEIGHTS.name, STEPS.name, KNOWN_DATA.name, SUMMARY.name)
_IS_UNTOUCHED = (
    "SELECT NOT EXISTS (SELECT 1 FROM data)"
    f" AND NOT EXISTS (SELECT 1 FROM finding WHERE kind NOT IN ({', '.join('?' * len(_PASSIVE))}))"
    " AND NOT EXISTS (SELECT 1 FROM history WHERE label != ? AND label NOT LIKE ? || '%')"
)


def outline(path: Path) -> ProjectOutline:
    """What a list shows of a project file; one that cannot be read says so in `trouble`.

    Nothing is locked, converted or checked: a project that is open anywhere can be read, too.
    """
    is_session = is_session_file(path)
    try:
        changed = last_written(path)
        with closing(connect_to_read(path)) as connection:
            model = _model(connection)
            return ProjectOutline(
                path,
                model,
                bool(model) and not is_callable_name(model) and not Path(model).exists(),
                is_session,
                _is_untouched(connection),
                changed,
                _summary(connection, path),
            )
    except (OSError, sqlite3.Error, UnicodeDecodeError, ProjectError) as error:
        return ProjectOutline(path, is_session=is_session, trouble=_words(error, path))


def outlines(paths: Iterable[Path]) -> tuple[ProjectOutline, ...]:
    """Outlines of project files, the last written first; what cannot be read comes last."""
    return tuple(sorted((outline(path) for path in paths), key=lambda one: one.changed, reverse=True))


def discard_untouched(kept: Path) -> None:
    """Remove the files of sessions in which nothing was ever done, but for one and those that are open.

    They are left by processes that were killed; everybody else tidies up behind himself.
    """
    for path in Project.sessions():
        if path.resolve() == kept.resolve() or not outline(path).is_untouched:
            continue
        try:
            project = Project.open(path)
        except ProjectError:  # open in another window
            continue
        if outline(path).is_untouched:
            project.discard()
        else:
            project.close()


def _model(connection: sqlite3.Connection) -> str:
    row = connection.execute("SELECT path, state FROM model").fetchone()
    return "" if row is None else str(row[1] or row[0])


def _is_untouched(connection: sqlite3.Connection) -> bool:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'finding'").fetchone():
        return False  # of the first format: converted when it is opened
    return bool(connection.execute(_IS_UNTOUCHED, (*_PASSIVE, FIRST_LABEL, START_LABEL)).fetchone()[0])


def _summary(connection: sqlite3.Connection, path: Path) -> SessionSummary | None:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'finding'").fetchone():
        return None
    row = connection.execute(
        "SELECT value FROM finding WHERE kind = ? AND key = ?", (SUMMARY.name, SUMMARY.key())
    ).fetchone()
    if row is None:
        return None
    try:
        return from_json(SessionSummary, load(row[0], str(path)))
    except (CodecError, ProjectError):  # of another version: its figures are seen when it is opened
        return None


def _words(error: Exception, path: Path) -> str:
    if isinstance(error, sqlite3.Error | UnicodeDecodeError):
        return in_words(error, path).what
    if isinstance(error, ProjectError):
        return error.what
    return (getattr(error, "strerror", None) or str(error)).lower()
