"""What actions and views get of the window."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtWidgets import QMainWindow

from quantstudio.gui.session import Session
from quantstudio.gui.shell.actions import Actions
from quantstudio.gui.shell.file_dialogs import FileDialogs
from quantstudio.gui.shell.settings import Settings
from quantstudio.gui.shell.views import Views
from quantstudio.gui.widgets.command_palette import CommandPalette
from quantstudio.gui.widgets.toast import Remedy, ToastStack


class WindowContext:
    """The window as its parts see it (`gui.action.Context`) and as its own actions do.

    Attributes:
        session: What is known, and what can be done to it.
        window: The window.
        settings: What is remembered.
        toasts: Notifications.
        palette: The command palette.
        views: Pages and docks; the window sets it once they are placed.
        actions: Every action; the window sets it once they are made.
    """

    views: Views
    actions: Actions

    def __init__(self, window: QMainWindow, session: Session, settings: Settings) -> None:
        self.session = session
        self.window = window
        self.settings = settings
        self.toasts = ToastStack(window, window.statusBar())
        self.palette = CommandPalette(window)
        self._files = FileDialogs(window, settings)

    @property
    def folder(self) -> str:
        """Folder that file dialogs opened last; empty for none."""
        return self.settings.folder

    def trigger(self, action: str) -> None:
        """Do what an action does, if it can be done now.

        Raises:
            KeyError: there is no such action.
        """
        self.actions[action].trigger()

    def show(self, view: str) -> None:
        """Bring a view to the front.

        Raises:
            KeyError: there is no such view.
        """
        self.views.show(view)

    def toggle(self, view: str) -> None:
        """Show a view; hide it if it is shown already.

        Raises:
            KeyError: there is no such view.
        """
        self.views.toggle(view)

    def tell(self, severity: str, text: str, hint: str = "", action: str = "") -> None:
        """Show a notification: "info", "success", "warning" or "error".

        Args:
            severity: How much it matters.
            text: What happened.
            hint: What to do about it.
            action: Id of the action that does it; a button is shown while it can be done.
        """
        self.toasts.show(severity, text, hint, self._remedy(action))

    def _remedy(self, action: str) -> Remedy | None:
        if action not in self.actions.described or not self.actions[action].isEnabled():
            return None
        described, made = self.actions.described[action], self.actions[action]
        return Remedy(described.plain_text, described.tip or described.plain_text, made.trigger)

    def ask_for_file(self, name: str, title: str, filters: str, then: Callable[[str], None]) -> None:
        """Open a dialog for a file that exists and hand its path on; returns at once."""
        self._files.ask_for_file(name, title, filters, then)

    def ask_for_target(
        self, name: str, title: str, proposed: str, filters: str, then: Callable[[str], None]
    ) -> None:
        """Open a dialog for a file to write and hand its path on; returns at once."""
        self._files.ask_for_target(name, title, proposed, filters, then)
