"""A quiet button that is an icon alone."""

from __future__ import annotations

from PySide6.QtCore import QSize
from PySide6.QtWidgets import QToolButton, QWidget

from quantstudio.gui.theme import icon, theme_hub


class IconButton(QToolButton):
    """An icon in the theme's muted colour; the tool tip says what it does and is its accessible name."""

    def __init__(
        self, name: str, text: str, icon_name: str, pixels: int = 16, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._icon_name = icon_name
        self.setObjectName(name)
        self.setAccessibleName(text)
        self.setToolTip(text)
        self.setAutoRaise(True)
        self.setIconSize(QSize(pixels, pixels))
        theme_hub().theme_changed.connect(self._retheme)
        self._retheme()

    def _retheme(self, _theme: object = None) -> None:
        self.setIcon(icon(self._icon_name, "muted", self.iconSize().width()))
