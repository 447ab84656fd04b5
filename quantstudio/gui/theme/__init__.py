"""Colours, fonts, icons and style of both themes, and the signal that says they changed."""

from __future__ import annotations

from quantstudio.gui.theme.apply import apply_theme, palette, restyle, style_sheet
from quantstudio.gui.theme.colours import DARK, LIGHT, THEMES, Theme
from quantstudio.gui.theme.current import (
    ThemeChoice,
    current_theme,
    icon,
    icon_pixmap,
    resolve_choice,
    theme_hub,
)
from quantstudio.gui.theme.fonts import BODY_PX, CAPTION_PX, ui_font

__all__ = [
    "BODY_PX",
    "CAPTION_PX",
    "DARK",
    "LIGHT",
    "THEMES",
    "Theme",
    "ThemeChoice",
    "apply_theme",
    "current_theme",
    "icon",
    "icon_pixmap",
    "palette",
    "resolve_choice",
    "restyle",
    "style_sheet",
    "theme_hub",
    "ui_font",
]
