"""A project: one SQLite file in which every edit is durable the moment it happens, undo history included."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.errors import ProjectError
from quantstudio.core.folders import config_folder
from quantstudio.core.layers import ModelSummary
from quantstudio.project.database import Database, create_database
from quantstudio.project.findings import FindingTable
from quantstudio.project.history import History
from quantstudio.project.references import (
    DataReference,
    MissingFile,
    ModelReference,
    ReferenceKind,
    check_same,
    content_digest,
    find_missing,
)
from quantstudio.project.state import HistoryStep, ProjectState
from quantstudio.project.values import dump, read

SUFFIX = ".qstudio"
NAME_LETTERS = 40


class Project:
    """An open project; made by `create`, `open` or `temporary`.

    There is nothing to save: each call that changes something is a transaction that is on disk when it
    returns, in a millisecond or so. Any thread may call. Opening runs no code of the project's: the file
    holds plain text, and the answer to a trust question is not in it.
    """

    def __init__(self, database: Database, *, is_temporary: bool = False) -> None:
        self._is_temporary = is_temporary
        self._decoded_model: tuple[tuple[str, ...], ModelReference] | None = None
        self._attach(database)

    # Opening and closing.

    @classmethod
    def create(cls, path: Path) -> Project:
        """A new project in a new file.

        Raises:
            ProjectError: there is a file already, or it cannot be written.
        """
        create_database(Path(path))
        return cls(Database(Path(path)))

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Project:
        """The project in a file; one of an older version is converted in place.

        Args:
            path: The file.
            read_only: Look only; possible while another window has it open.

        Raises:
            ProjectError: missing, not a project, of a newer version, damaged, read-only or open elsewhere.
        """
        path = Path(path)
        return cls(Database(path, read_only=read_only), is_temporary=is_session_file(path))

    @classmethod
    def temporary(cls, *, restore: bool = True, name: str = "session") -> Project:
        """A project the user has given no name yet: the one that was written last, or a new one.

        Args:
            restore: False always makes a new one.
            name: What the file of a new one is called, before the time.

        Raises:
            ProjectError: the settings folder cannot be written.
        """
        for path in reversed(cls.sessions()) if restore else ():
            try:
                return cls.open(path)
            except ProjectError:
                # In use by another window, or damaged: either way not ours to touch.
                continue
        plain = re.sub(r"[^\w.-]+", "_", name)[:NAME_LETTERS]
        full = f"{plain}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}{SUFFIX}"
        path = session_folder() / full
        create_database(path)
        return cls(Database(path), is_temporary=True)

    @staticmethod
    def sessions() -> tuple[Path, ...]:
        """Files of unsaved projects, the last used last."""
        return tuple(sorted(session_folder().glob(f"*{SUFFIX}"), key=last_written))

    def save_as(self, path: Path) -> None:
        """Copy everything into another file and go on there; an unsaved session's own file is removed.

        A file of that name is replaced, whole or not at all.

        Raises:
            ProjectError: it cannot be written, or is open elsewhere; the project stays where it was.
        """
        path = Path(path)
        if path.resolve() == self.path.resolve():
            return
        self._database.copy_to(path)
        old, was_temporary = self._database, self.is_temporary
        self._attach(Database(path))
        old.close()
        if was_temporary:
            old.path.unlink(missing_ok=True)
        self._is_temporary = False

    def discard(self) -> None:
        """Close an unsaved session's project and remove its file.

        Raises:
            ProjectError: the project is the user's own file.
        """
        if not self.is_temporary:
            raise ProjectError("only an unsaved project can be discarded", where=str(self.path))
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    @property
    def is_temporary(self) -> bool:
        """Whether the user has not given it a name yet."""
        return self._is_temporary

    @property
    def is_read_only(self) -> bool:
        """Whether it was opened to look only."""
        return self._database.is_read_only

    @property
    def unreadable(self) -> tuple[str, ...]:
        """What was asked for and left out because it cannot be read, one sentence each.

        It stays in the file until something else takes its place: a newer version may read it.
        """
        return self._database.unreadable

    # Plans, undo, redo.

    @property
    def state(self) -> ProjectState:
        """The plans as they are now."""
        return self._history.state

    @property
    def undo_label(self) -> str:
        """What undo would take back; empty when there is nothing."""
        return self._history.undo_label

    @property
    def redo_label(self) -> str:
        """What redo would do again; empty when there is nothing."""
        return self._history.redo_label

    def history(self) -> tuple[HistoryStep, ...]:
        """Every step, the oldest first."""
        return self._history.steps()

    def edit(self, state: ProjectState, label: str, *, merge_key: str = "") -> bool:
        """Replace the plans, as one step that undo takes back; what could be redone is gone.

        Args:
            state: The plans from now on.
            label: What the edit does, for the menu: "Set 3 layers to INT4".
            merge_key: Steps in a row with the same key become one: a drag is one step.

        Returns:
            False if nothing changes; then there is no step.
        """
        return self._history.edit(state, label, merge_key)

    def undo(self) -> bool:
        """Take the last step back; False if there is none."""
        return self._history.undo()

    def redo(self) -> bool:
        """Do the next step again; False if there is none."""
        return self._history.redo()

    # Model and data.

    @property
    def model(self) -> ModelReference | None:
        """The model; None where there is none or its description cannot be read."""
        rows = self._database.rows("SELECT path, digest, summary, factory, state FROM model")
        if not rows:
            return None
        row = tuple(rows[0])
        if self._decoded_model is None or self._decoded_model[0] != row:
            # Reading a summary of 500 layers takes as long as several screen frames.
            path, digest, summary, factory, state = row
            decoded = self._database.readable(
                f"the model {path!r}", lambda: read(ModelSummary, summary, str(self.path))
            )
            if decoded is None:
                return None
            self._decoded_model = (row, ModelReference(path, digest, decoded, factory, state))
        return self._decoded_model[1]

    def set_model(self, summary: ModelSummary, *, path: str = "", factory: str = "", state: str = "") -> None:
        """Point to a model (`path` defaults to the summary's); trust given to it is not kept."""
        values = (path or summary.source_path, summary.source_digest, factory, state, dump(summary))
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO model VALUES (1, ?, ?, ?, ?, ?)", values)
        path, digest, factory, state, text = values
        row = (path, digest, text, factory, state)
        self._decoded_model = (row, ModelReference(path, digest, summary, factory, state))

    def data(self, kind: ReferenceKind | str) -> DataReference | None:
        """The calibration or test data; None where there is none or it cannot be read."""
        name = ReferenceKind(kind).value
        rows = self._database.rows("SELECT digest, spec FROM data WHERE kind = ?", name)
        if not rows:
            return None
        digest, text = rows[0]
        spec = self._database.readable(f"the {name} data", lambda: read(DataSpec, text, str(self.path)))
        return None if spec is None else DataReference(spec, digest)

    def set_data(self, kind: ReferenceKind | str, spec: DataSpec, digest: str = "") -> None:
        """Point to calibration or test data; trust given to it is not kept.

        Args:
            kind: "calibration" or "test".
            spec: Path, transform, samples.
            digest: `content_digest` of the path, to know the data again after a move.
        """
        kind = ReferenceKind(kind)
        if kind is ReferenceKind.MODEL:
            raise ValueError("a model is not data")
        values = (kind.value, spec.path, digest, dump(replace(spec, trusted=False)))
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO data VALUES (?, ?, ?, ?)", values)

    def drop_data(self, kind: ReferenceKind | str) -> None:
        """Point to no calibration or test data any more."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM data WHERE kind = ?", (ReferenceKind(kind).value,))

    def missing(self) -> tuple[MissingFile, ...]:
        """What the project points to and is not there."""
        rows = self._database.rows(
            "SELECT 'model', path FROM model UNION ALL SELECT kind, path FROM data ORDER BY 1"
        )
        found = [find_missing(ReferenceKind(kind), path, self.path.parent) for kind, path in rows]
        return tuple(item for item in found if item is not None)

    def relocate(self, kind: ReferenceKind | str, new_path: Path, *, digest: str | None = None) -> None:
        """Point to the same file at another place.

        Args:
            kind: Which reference.
            new_path: Where it is now.
            digest: Its `content_digest` if already known; computing it reads the file.

        Raises:
            ProjectError: the project has no such reference, the file cannot be read, or is another.
        """
        kind = ReferenceKind(kind)
        path = str(new_path)
        found = digest if digest is not None else content_digest(Path(new_path))
        model = self.model
        if kind is ReferenceKind.MODEL and model is not None:
            check_same(Path(new_path), found, model.digest)
            self.set_model(replace(model.summary, source_path=path), factory=model.factory, state=model.state)
            return
        data = self.data(kind)
        if data is None:
            raise ProjectError(f"the project has no {kind.value} to relocate", where=str(self.path))
        check_same(Path(new_path), found, data.digest)
        self.set_data(kind, replace(data.spec, path=path), data.digest or found)

    # Findings.

    @property
    def findings(self) -> FindingTable:
        """Everything that is known; another table after `save_as`."""
        return self._findings

    def _attach(self, database: Database) -> None:
        try:
            self._history = History(database)
        except BaseException:
            database.close()
            raise
        self._database = database
        self._findings = FindingTable(database)


def last_written(path: Path) -> float:
    """Seconds since the epoch; a killed process leaves its last edits in the journal: that counts too.

    Raises:
        OSError: the file is not there.
    """
    journal = path.with_name(path.name + "-wal")
    return max(part.stat().st_mtime for part in (path, journal) if part is path or part.exists())


def is_session_file(path: Path) -> bool:
    """Whether a project file is one the user has given no name yet."""
    return path.resolve().parent == session_folder().resolve()


def session_folder() -> Path:
    """Where projects lie that the user has given no name yet; made if missing.

    Raises:
        OutputError: the settings folder cannot be made.
    """
    folder = config_folder() / "sessions"
    folder.mkdir(exist_ok=True)
    return folder
