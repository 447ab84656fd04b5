"""Puts a theme on the application: palette and style sheet."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QApplication, QWidget

from quantstudio.core.files import write_text
from quantstudio.core.folders import cache_folder
from quantstudio.gui.theme.colours import Theme
from quantstudio.gui.theme.current import theme_hub
from quantstudio.gui.theme.icons import svg_source
from quantstudio.gui.theme.style import STYLE


def apply_theme(app: QApplication, theme: Theme) -> None:
    """Put a theme on the whole application and tell every view."""
    theme_hub().theme = theme
    # One sheet straight after another makes Qt style every widget once for itself and once for each of its
    # ancestors: 160 ms instead of 70.
    app.setStyleSheet("")
    app.setPalette(palette(theme))
    app.setStyleSheet(style_sheet(theme))
    theme_hub().theme_changed.emit(theme)


def restyle(app: QApplication, window: QWidget, theme: Theme) -> None:
    """Put another theme on a window that stands, and on all that opens from it, and tell every view.

    A sheet of the window, which wins over the application's, takes 67 ms where another one of the application
    takes 93.
    """
    theme_hub().theme = theme
    app.setPalette(palette(theme))
    window.setStyleSheet(style_sheet(theme))
    theme_hub().theme_changed.emit(theme)


def palette(theme: Theme) -> QPalette:
    """The complete palette of a theme."""
    made = QPalette()
    role = QPalette.ColorRole
    colors = {
        role.Window: theme.window,
        role.WindowText: theme.text,
        role.Base: theme.surface,
        role.AlternateBase: theme.alt,
        role.Text: theme.text,
        role.Button: theme.raised,
        role.ButtonText: theme.text,
        role.ToolTipBase: theme.raised,
        role.ToolTipText: theme.text,
        role.Highlight: theme.accent,
        role.HighlightedText: theme.on_accent,
        role.Link: theme.accent,
        role.LinkVisited: theme.accent,
        role.PlaceholderText: theme.placeholder,
        role.Light: theme.surface,
        role.Midlight: theme.border,
        role.Mid: theme.border,
        role.Dark: theme.border,
        role.Shadow: "#000000",
        role.Accent: theme.accent,
        role.BrightText: theme.bad,
    }
    for name, color in colors.items():
        made.setColor(name, QColor(color))
    for name in (role.Text, role.WindowText, role.ButtonText):
        made.setColor(QPalette.ColorGroup.Disabled, name, QColor(theme.faint))
    return made


def style_sheet(theme: Theme) -> str:
    """Borders, radii and padding; every colour comes from the theme."""
    values = {name: getattr(theme, name) for name in Theme.__slots__ if name not in ("name", "series")}
    text = STYLE.replace("@chevron-up", _recoloured("chevron-up", theme))
    text = text.replace("@chevron", _recoloured("chevron-down", theme))
    text = text.replace("@check", _recoloured("check", theme, "on_accent"))
    for name in sorted(values, key=len, reverse=True):
        text = text.replace(f"@{name}", values[name])
    return text


def _recoloured(name: str, theme: Theme, role: str = "muted") -> str:
    """Path of an icon file in a theme colour: style sheets take images by path only."""
    folder = cache_folder() / "theme"
    folder.mkdir(exist_ok=True)
    target: Path = folder / f"{name}-{theme.name}.svg"
    source = svg_source(name, getattr(theme, role))
    if not target.exists() or target.read_text() != source:
        write_text(target, source)
    return target.as_posix()
