"""What actions and views get of the window."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from PySide6.QtWidgets import QMainWindow

from quantstudio.core.hints import Hint, as_hint
from quantstudio.gui.session import Session
from quantstudio.gui.shell.actions import Actions
from quantstudio.gui.shell.file_dialogs import FileDialogs
from quantstudio.gui.shell.hint_actions import OFFERS
from quantstudio.gui.shell.settings import Settings
from quantstudio.gui.shell.views import Views
from quantstudio.gui.widgets.remedy import Remedy
from quantstudio.gui.widgets.toast import ToastStack

if TYPE_CHECKING:
    from quantstudio.gui.widgets.command_palette import CommandPalette


class WindowContext:
    """The window as its parts see it (`gui.action.Context`) and as its own actions do.

    Attributes:
        session: What is known, and what can be done to it.
        window: The window.
        settings: What is remembered.
        toasts: Notifications.
        views: Pages and docks; the window sets it once they are placed.
        actions: Every action; the window sets it once they are made.
    """

    views: Views
    actions: Actions

    def __init__(self, window: QMainWindow, session: Session, settings: Settings) -> None:
        self.session = session
        self.window = window
        self.settings = settings
        self.toasts = ToastStack(window)
        self._files = FileDialogs(window, settings)

    @cached_property
    def palette(self) -> CommandPalette:
        """The command palette, made when it is first asked for."""
        from quantstudio.gui.widgets.command_palette import CommandPalette

        return CommandPalette(self.window)

    @property
    def folder(self) -> str:
        """Folder that file dialogs opened last; empty for none."""
        return self.settings.folder

    @property
    def recent(self) -> tuple[str, ...]:
        """Models and projects opened lately, the newest first."""
        return self.settings.recent

    def forget(self, path: str) -> None:
        """Do not list a file among the recent ones any more."""
        self.settings.forget_recent(path)

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

    def tell(self, severity: str, text: str, hint: str | Hint = "") -> None:
        """Show a notification: "info", "success", "warning" or "error".

        Args:
            severity: How much it matters.
            text: What happened.
            hint: What to do about it; a button does it, if that can be done now.
        """
        self.actions.refresh()  # what happened may be news to them, too
        hint = as_hint(hint)
        remedy = self.remedy(hint)
        self.toasts.show_toast(
            severity, text, hint.text, remedy if remedy and remedy.action.isEnabled() else None
        )

    def remedy(self, hint: Hint) -> Remedy | None:
        """What the window offers to do about something; its action may be one that cannot be done now."""
        if hint.action is None:
            return None
        words, action = OFFERS[hint.action]
        return Remedy(words, self.actions[action])

    def ask_for_file(self, name: str, title: str, filters: str, then: Callable[[str], None]) -> None:
        """Open a dialog for a file that exists and hand its path on; returns at once."""
        self._files.ask_for_file(name, title, filters, then)

    def ask_for_target(
        self, name: str, title: str, proposed: str, filters: str, then: Callable[[str], None]
    ) -> None:
        """Open a dialog for a file to write and hand its path on; returns at once."""
        self._files.ask_for_target(name, title, proposed, filters, then)
