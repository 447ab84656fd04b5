"""What can be done with the window itself: undo, settings, theme, palette, help."""

from __future__ import annotations

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QDesktopServices

from quantstudio.core.folders import config_folder
from quantstudio.gui.action import Action, Command, Context
from quantstudio.gui.session import Session
from quantstudio.gui.shell.context import WindowContext
from quantstudio.gui.theme import ThemeChoice, current_theme

KeyRows = tuple[tuple[str, str, str], ...]


def window_commands(window: WindowContext, widget_keys: KeyRows) -> tuple[Command, ...]:
    """Everything the window brings.

    Args:
        window: The window.
        widget_keys: Keys of single widgets for the sheet of shortcuts: group, what they do, keys.
    """
    return (*_edit(window), *_view(window), *_help(window, widget_keys))


def _edit(window: WindowContext) -> tuple[Command, ...]:
    return (
        Action(
            "edit.undo",
            "&Undo",
            lambda context: context.session.workspace.edits.undo(),
            "edit",
            110,
            "undo",
            "Ctrl+Z",
            why_not=_needs_undo,
            text_now=lambda session: f"&Undo {session.workspace.edits.undo_text}".rstrip(),
        ),
        Action(
            "edit.redo",
            "&Redo",
            lambda context: context.session.workspace.edits.redo(),
            "edit",
            120,
            "redo",
            "Ctrl+Shift+Z | Ctrl+Y",
            why_not=_needs_redo,
            text_now=lambda session: f"&Redo {session.workspace.edits.redo_text}".rstrip(),
        ),
        Action(
            "edit.settings",
            "&Settings…",
            lambda _context: _edit_settings(window),
            "edit",
            410,
            "settings",
            "Ctrl+,",
        ),
    )


def _view(window: WindowContext) -> tuple[Command, ...]:
    return (
        Action(
            "view.palette",
            "&Command palette",
            lambda _context: _open_palette(window),
            "view",
            110,
            "command",
            "Ctrl+K",
            is_in_palette=False,
        ),
        Action(
            "view.theme",
            "Light or dark &theme",
            lambda _context: _toggle_theme(window),
            "view",
            410,
            "moon",
            "Ctrl+T",
            tool=930,
            tool_text="Theme",
            is_icon_only=True,
        ),
        Action(
            "view.fullscreen",
            "F&ull screen",
            lambda _context: _toggle_fullscreen(window),
            "view",
            420,
            "fit",
            "F11",
        ),
        Action(
            "view.next_area",
            "Go to the &next area",
            lambda _context: window.views.focus_next_area(),
            "view",
            430,
            keys="F6",
        ),
    )


def _help(window: WindowContext, widget_keys: KeyRows) -> tuple[Command, ...]:
    return (
        Action(
            "help.shortcuts",
            "&Keyboard shortcuts",
            lambda _context: _list_keys(window, widget_keys),
            "help",
            110,
            "keyboard",
            "F1",
        ),
        Action("help.folder", "Open the &log folder", _open_log_folder, "help", 120, "log"),
        Action("help.about", "&About QuantStudio", _tell_versions, "help", 210, "help"),
    )


def _needs_undo(session: Session) -> str:
    return "" if session.workspace.edits.can_undo else "Nothing to undo"


def _needs_redo(session: Session) -> str:
    return "" if session.workspace.edits.can_redo else "Nothing to redo"


def _edit_settings(window: WindowContext) -> None:
    from quantstudio.gui.shell.settings_dialog import SettingsDialog

    dialog = SettingsDialog(window.settings, window.actions, window.window)
    window.session.workspace.runs.devices(dialog.offer_devices)
    dialog.open()


def _open_palette(window: WindowContext) -> None:
    from quantstudio.gui.shell.palette import palette_entries

    window.palette.open_with(palette_entries(window.actions, window))


def _list_keys(window: WindowContext, widget_keys: KeyRows) -> None:
    from quantstudio.gui.shell.help_dialogs import ShortcutsDialog

    ShortcutsDialog(window.actions, widget_keys, window.window).open()


def _tell_versions(context: Context) -> None:
    from quantstudio.gui.shell.help_dialogs import AboutDialog

    AboutDialog(context.window).open()


def _toggle_theme(window: WindowContext) -> None:
    """Switch between light and dark, and stay with it."""
    window.settings.theme = ThemeChoice.LIGHT if current_theme().is_dark else ThemeChoice.DARK


def _toggle_fullscreen(window: WindowContext) -> None:
    """A window that was maximised is so again afterwards."""
    window.window.setWindowState(window.window.windowState() ^ Qt.WindowState.WindowFullScreen)


def _open_log_folder(_context: Context) -> None:
    """Show the folder of logs and fault reports."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(config_folder())))
