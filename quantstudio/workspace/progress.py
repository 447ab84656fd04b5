"""How far work is, in a terminal or a notebook: one line that follows the job under way."""

from __future__ import annotations

import importlib
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from quantstudio.core.figures import number
from quantstudio.jobs.rows import JobRow

if TYPE_CHECKING:
    from rich.progress import TaskID


class ProgressDisplay(Protocol):
    """Shows the job under way between entering and leaving."""

    def __enter__(self) -> ProgressDisplay:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take it away."""

    def show(self, row: JobRow) -> None:
        """The job is as far as that."""


class NoProgress:
    """Shows nothing."""

    def __enter__(self) -> NoProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to take away."""

    def show(self, row: JobRow) -> None:
        """Nothing."""


class TerminalProgress:
    """A bar on standard error; nothing where that is not a terminal."""

    def __init__(self) -> None:
        # The window, which has a workspace too, starts without what draws on terminals.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=32),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._bar: TaskID | None = None

    def __enter__(self) -> TerminalProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, row: JobRow) -> None:
        """Move the bar."""
        if self._bar is None:
            self._bar = self._progress.add_task("", total=None)
        self._progress.update(
            self._bar, description=progress_text(row), completed=row.done, total=row.total or None
        )


class NotebookProgress:
    """A line of text below the cell.

    Args:
        display: IPython's `display`.
    """

    def __init__(self, display: Any) -> None:  # noqa: ANN401  IPython is not a dependency
        self._display = display
        self._handle: Any = None
        self._text = ""

    def __enter__(self) -> NotebookProgress:
        self._handle = self._display({"text/plain": ""}, raw=True, display_id=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._say("")

    def show(self, row: JobRow) -> None:
        """Change the line."""
        self._say(progress_text(row))

    def _say(self, text: str) -> None:
        if text != self._text:
            self._text = text
            self._handle.update({"text/plain": text}, raw=True)


def progress_text(row: JobRow) -> str:
    """One line: `Sensitivity: 41 of 100 layers, 12 s left`."""
    text = f"{row.title}: {row.done} of {row.total} {row.unit}" if row.total else row.title
    if row.seconds_left is not None:
        text += f", {number(row.seconds_left, 0)} s left"
    return text


def progress_display(*, wanted: bool) -> ProgressDisplay:
    """What shows progress where this runs: a notebook's line, a terminal's bar, or nothing."""
    if not wanted:
        return NoProgress()
    if "ipykernel" in sys.modules:
        return NotebookProgress(importlib.import_module("IPython.display").display)
    return TerminalProgress()
