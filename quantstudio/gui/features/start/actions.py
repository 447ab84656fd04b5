"""What can be done with the start page, and the question before work is stopped."""

from __future__ import annotations

from quantstudio.gui.action import Action, Command, Context
from quantstudio.workspace.leaving import LeaveRequest


def commands() -> tuple[Command, ...]:
    """The start page, by menu and key."""
    return (
        Action(
            "file.start",
            "Start pa&ge",
            lambda context: context.show("start"),
            "file",
            105,
            "sample",
            "Alt+Home",
            "Recent sessions and projects, and the samples",
        ),
    )


def ask_to_leave(context: Context, request: LeaveRequest) -> None:
    """Ask whether work may be stopped for what is to be opened."""
    from quantstudio.gui.features.start.dialogs import LeaveDialog  # seldom needed

    leaving = context.session.workspace.documents.leaving
    dialog = LeaveDialog(request, context.window)
    dialog.stop_chosen.connect(leaving.stop)
    dialog.wait_chosen.connect(lambda: _wait(context, request))
    dialog.rejected.connect(leaving.stay)
    dialog.open()


def _wait(context: Context, request: LeaveRequest) -> None:
    leaving = context.session.workspace.documents.leaving
    leaving.wait()
    if leaving.waits_for_work:
        what = f"{request.opens} opens" if request.opens else "QuantStudio ends"
        context.tell("info", f"{what} when the work here is done")
