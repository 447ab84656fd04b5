"""How the window says that an image could not be written."""

from __future__ import annotations

from quantstudio.core.errors import QuantStudioError
from quantstudio.gui.session import Session
from quantstudio.jobs.rows import NoticeLevel


def tell_export_failed(session: Session, error: object) -> None:
    """Notify the user of a failed export of a plot."""
    if isinstance(error, QuantStudioError):
        session.workspace.notify(NoticeLevel.ERROR, error.what, error.hint, error.where)
