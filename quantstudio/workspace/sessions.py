"""The sessions and projects there are besides the one that is open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from quantstudio.core.session_summary import SessionSummary
from quantstudio.project.outline import ProjectOutline, discard_untouched, outlines
from quantstudio.project.store import SUFFIX, Project, last_written
from quantstudio.workspace.known import Known


class RecentKind(StrEnum):
    """What stands behind an entry of the recent ones."""

    SESSION = "session"
    PROJECT = "project"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class RecentEntry:
    """Something that was open before and can be again.

    Attributes:
        path: What to open.
        kind: A session, a project with a name, or a model of which there is neither.
        name: What a person calls it.
        model: The model's file; empty where there is none.
        is_model_missing: Whether that file is not there any more.
        changed: When it was written last, seconds since the epoch.
        summary: What to show of it; None where nothing is known.
        trouble: Why it cannot be opened; empty otherwise.
    """

    path: Path
    kind: RecentKind
    name: str
    model: str = ""
    is_model_missing: bool = False
    changed: float = 0.0
    summary: SessionSummary | None = None
    trouble: str = ""


class Sessions:
    """Lists them and removes them.

    Args:
        known: What is open.
    """

    def __init__(self, known: Known) -> None:
        self._known = known

    def read(
        self, recent: Sequence[str], then: Callable[[tuple[RecentEntry, ...]], None], *, tidy: bool = False
    ) -> None:
        """Hand the entries to `then`, the newest first; read on another thread.

        Args:
            recent: Files opened lately that are no sessions, the newest first.
            then: Gets them, on the owner's thread.
            tidy: Whether sessions in which nothing was done, left by a process that was killed, go first.
        """
        kept = self._known.project.path

        def entries() -> tuple[RecentEntry, ...]:
            if tidy:
                discard_untouched(kept)
            return recent_entries(recent)

        self._known.background.run(entries, then, self._known.notify_of)

    def delete(self, path: Path, then: Callable[[], None]) -> None:
        """Remove the file of a session that is not open anywhere; the model's own file stays."""

        def discard() -> None:
            Project.open(path).discard()

        self._known.background.run(discard, lambda _nothing: then(), self._known.notify_of)


def recent_entries(recent: Sequence[str], most: int = 0) -> tuple[RecentEntry, ...]:
    """Every session with a model and every project, the last written first, then models that are in none.

    Args:
        recent: Files opened lately that are no sessions, the newest first.
        most: Look at so many sessions and projects only, the last written; 0 for all.
    """
    files = [Path(one) for one in recent]
    projects = [path for path in files if path.suffix == SUFFIX and path.is_file()]
    paths = sorted({*Project.sessions(), *projects}, key=_written, reverse=True)
    found = [one for one in outlines(paths[:most] if most else paths) if one.model or not one.is_session]
    known = {one.model for one in found}
    models = [path for path in files if path.suffix != SUFFIX and str(path) not in known and path.exists()]
    return (
        *(_entry(one) for one in found),
        *(RecentEntry(path, RecentKind.MODEL, path.name, str(path)) for path in models),
    )


def earlier_session(model: str, present: Path) -> ProjectOutline | None:
    """The session or project of a model that was written last and in which something was done.

    Args:
        model: The model's file.
        present: The session that is open, which does not count.
    """
    others = [path for path in Project.sessions() if path != present]
    wanted = Path(model).resolve()
    found = [
        one
        for one in outlines(others)
        if one.model and Path(one.model).resolve() == wanted and not one.is_untouched and not one.trouble
    ]
    return max(found, key=lambda one: one.changed, default=None)


def _entry(found: ProjectOutline) -> RecentEntry:
    return RecentEntry(
        found.path,
        RecentKind.SESSION if found.is_session else RecentKind.PROJECT,
        found.name,
        found.model,
        found.is_model_missing,
        found.changed,
        found.summary,
        found.trouble,
    )


def _written(path: Path) -> float:
    try:
        return last_written(path)
    except OSError:  # deleted this moment
        return 0.0
