"""The theme in use, the signal that says it changed, and icons in its colours."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QIcon, QPixmap

from quantstudio.gui.theme.colours import DARK, LIGHT, THEMES, Theme
from quantstudio.gui.theme.icons import pixmap as draw_pixmap


class ThemeChoice(StrEnum):
    """What the user asked for; SYSTEM follows the desktop."""

    SYSTEM = "system"
    LIGHT = "light"
    DARK = "dark"


class ThemeHub(QObject):
    """Holds the theme in use; emits `theme_changed(Theme)` after palette and style sheet are applied."""

    theme_changed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.theme = LIGHT


@lru_cache(maxsize=1)
def theme_hub() -> ThemeHub:
    """The one hub of the process; views connect to its `theme_changed`."""
    return ThemeHub()


def current_theme() -> Theme:
    """The theme in use."""
    return theme_hub().theme


def resolve_choice(choice: ThemeChoice, scheme: Qt.ColorScheme) -> Theme:
    """The theme for a setting; an unknown system scheme counts as light."""
    if choice is ThemeChoice.SYSTEM:
        return DARK if scheme == Qt.ColorScheme.Dark else LIGHT
    return THEMES[choice.value]


def icon(name: str, role: str = "text", size: int = 18) -> QIcon:
    """An icon in a colour role of the current theme; ask again after `theme_changed`.

    Args:
        name: File name in `gui/theme/icons` without its ending.
        role: Colour role.
        size: Edge in device-independent pixels.
    """
    theme = current_theme()
    return _icon(name, getattr(theme, role), theme.faint, size)


def icon_pixmap(name: str, role: str = "muted", size: int = 18, ratio: float = 1.0) -> QPixmap:
    """An icon as a pixmap for a label, sharp at the given device pixel ratio."""
    return draw_pixmap(name, getattr(current_theme(), role), size, ratio)


@lru_cache(maxsize=512)
def _icon(name: str, color: str, disabled: str, size: int) -> QIcon:
    made = QIcon()
    for mode, shade in ((QIcon.Mode.Normal, color), (QIcon.Mode.Disabled, disabled)):
        for ratio in (1.0, 2.0):
            made.addPixmap(draw_pixmap(name, shade, size, ratio), mode)
    return made
