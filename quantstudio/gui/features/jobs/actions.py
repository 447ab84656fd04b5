"""What can be done about jobs and the log."""

from __future__ import annotations

import time

from quantstudio.gui.action import Action, Command, Context
from quantstudio.gui.facts.needs import needs_model
from quantstudio.gui.feature import toggle_action
from quantstudio.gui.session import Session
from quantstudio.jobs.rows import LogLine, NoticeLevel


def commands() -> tuple[Command, ...]:
    """Everything jobs bring."""
    return (
        toggle_action("jobs", "&Jobs", "list", "Ctrl+5", 330),
        toggle_action("log", "Lo&g", "log", "Ctrl+6", 340),
        Action(
            "run.stop",
            "S&top",
            lambda context: context.session.workspace.jobs.stop(),
            "run",
            510,
            "stop",
            "Esc",
            "Stop what runs; finished layers are kept, and what waits goes on",
            tool=320,
            why_not=_needs_job,
        ),
        Action(
            "run.stop_all",
            "Stop e&verything",
            lambda context: context.session.workspace.jobs.cancel(),
            "run",
            520,
            keys="Shift+Esc",
            tip="Stop what runs and drop what waits; finished layers are kept",
            why_not=_needs_job,
        ),
        Action(
            "model.notes",
            "&Notes on this model",
            _show_notes,
            "model",
            310,
            "info",
            why_not=needs_model,
        ),
    )


def _needs_job(session: Session) -> str:
    return "" if session.workspace.jobs.is_busy else "Nothing runs"


def _show_notes(context: Context) -> None:
    """What normalisation changed, in the log."""
    model = context.session.workspace.model
    for note in (model.notes if model else ()) or ("Nothing had to be changed on opening.",):
        context.session.workspace.jobs.logged.emit(LogLine(time.time(), NoticeLevel.INFO, note))
    context.show("log")
