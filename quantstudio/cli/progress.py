"""Progress on a terminal; silence everywhere else."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from quantstudio.core.events import Part, Severity


class Warnings:
    """Warnings of one command, told when it has ended: a refused command says one line, its error."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def add(self, text: str) -> None:
        """Keep one; the same text is told once."""
        if text not in self._texts:
            self._texts.append(text)

    def print(self) -> None:
        """Print them on standard error, and forget them."""
        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        for text in self._texts:
            console.print(f"warning: {text}", style="yellow", soft_wrap=True)
        self.clear()

    def clear(self) -> None:
        """Forget them."""
        self._texts.clear()


# One command a process runs at a time: its tasks share what it has to tell.
WARNINGS = Warnings()


class TerminalReporter:
    """A reporter that draws one progress bar on standard error, and keeps warnings for the command's end.

    Use as a context manager: the bar is removed at the end, also after an error.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._quiet = quiet
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=quiet or not sys.stderr.isatty(),
        )
        self._bars: dict[str, TaskID] = {}
        self._shown = ""

    def __enter__(self) -> TerminalReporter:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        self._progress.stop()

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        """Move the bar of this label."""
        text = f"{label} ({unit})" if unit else label
        if label not in self._bars:
            self._bars[label] = self._progress.add_task(text, total=total or None, completed=done)
        if label != self._shown:  # also when work comes back to one: those it left are over or wait
            for other, bar in self._bars.items():
                self._progress.update(bar, visible=other == label)
            self._shown = label
        self._progress.update(self._bars[label], completed=done, total=total or None)

    def found(self, part: Part) -> None:
        """Layers are shown in the table at the end."""

    def message(self, text: str, severity: Severity = Severity.INFO) -> None:
        """Warnings are kept in `WARNINGS`; information is for the log of the window."""
        if severity is Severity.WARNING and not self._quiet:
            WARNINGS.add(text)
