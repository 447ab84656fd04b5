"""How the window says that an image could not be written."""

from __future__ import annotations

from quantstudio.core.errors import QuantStudioError
from quantstudio.gui.session import Session


def tell_export_failed(session: Session, error: object) -> None:
    """Notify the user of a failed export of a plot."""
    if isinstance(error, QuantStudioError):
        session.workspace.notify_of(error)
