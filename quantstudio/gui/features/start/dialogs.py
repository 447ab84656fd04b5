"""What the start page asks before something is stopped or deleted."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QDialogButtonBox, QLabel, QWidget

from quantstudio.gui.widgets.dialog import Dialog
from quantstudio.workspace.leaving import LeaveRequest
from quantstudio.workspace.sessions import RecentEntry

JOBS_NAMED = 5


class LeaveDialog(Dialog):
    """Work runs: stop it for what is to be opened, or to quit; do that when it is done, or stay.

    Signals:
        stop_chosen(), wait_chosen(): as they say; closing it in any other way stays.
    """

    stop_chosen = Signal()
    wait_chosen = Signal()

    def __init__(self, request: LeaveRequest, parent: QWidget) -> None:
        super().__init__("leave", "Stop the work that runs?", "", parent)
        named = list(request.jobs[:JOBS_NAMED])
        more = len(request.jobs) - len(named)
        lines = [f"•  {title}" for title in named] + ([f"•  {more} more"] if more else [])
        begun, then = (f"Opening {request.opens}", "open") if request.opens else ("Quitting", "quit")
        text = QLabel(
            f"{begun} stops what is under way here:\n\n"
            + "\n".join(lines)
            + "\n\nThe session itself is kept as it is, with everything that was finished.",
            self,
        )
        text.setObjectName("leave.jobs")
        text.setWordWrap(True)
        self.body.addWidget(text)
        self.add_cancel("Stay here")
        # What loses nothing is what Enter does.
        accept = QDialogButtonBox.ButtonRole.AcceptRole
        wait = self.add_button("wait", f"{then.capitalize()} when it is done", accept, is_default=True)
        stop = self.add_button("stop", f"Stop and {then}", accept)
        wait.clicked.connect(self.wait_chosen)
        stop.clicked.connect(self.stop_chosen)
        for button in (wait, stop):
            button.clicked.connect(self.accept)
        self.setMinimumWidth(460)


class DeleteDialog(Dialog):
    """A session is to be deleted.

    Signals:
        agreed(): do it.
    """

    agreed = Signal()

    def __init__(self, entry: RecentEntry, parent: QWidget) -> None:
        variants = entry.summary.variants if entry.summary is not None else 0
        holds = f", {variants} variant{'s' * (variants != 1)}" if variants else ""
        super().__init__(
            "delete_session",
            f"Delete the session of {entry.name}?",
            f"Its plans, undo history{holds} and results are gone then. The model's own file and its data "
            "stay. This cannot be undone.",
            parent,
        )
        self.add_button("cancel", "Keep it", QDialogButtonBox.ButtonRole.RejectRole, is_default=True)
        delete = self.add_button("delete", "Delete session", QDialogButtonBox.ButtonRole.AcceptRole)
        delete.clicked.connect(self.agreed)
        delete.clicked.connect(self.accept)
        self.setMinimumWidth(440)
