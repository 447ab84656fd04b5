"""A text button no taller than a line of small text, for the edges of cards."""

from __future__ import annotations

from PySide6.QtCore import QSize
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import QPushButton, QSizePolicy, QWidget
from typing_extensions import override

from quantstudio.gui.theme import current_theme, theme_hub, ui_font

_PIXELS = 11
_SIDES_PX = 14

_STYLE = """
QPushButton {{ background: transparent; border: 1px solid transparent; border-radius: 5px; color: {accent};
    padding: 0 6px; min-height: 16px; min-width: 0; font-size: 11px; }}
QPushButton:hover {{ background: {hover}; }}
QPushButton:checked {{ background: {accent_soft}; font-weight: 600; }}
QPushButton:focus {{ border-color: {accent}; }}
QPushButton:disabled {{ color: {faint}; background: transparent; }}
"""


class SmallButton(QPushButton):
    """A quiet button; the tool tip says in full what it does and is its accessible name."""

    look = _STYLE

    def __init__(self, name: str, text: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(text, parent)
        self.setObjectName(name)
        self.setToolTip(tip)
        self.setAccessibleName(tip)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        theme_hub().theme_changed.connect(self._on_theme_changed)
        self._on_theme_changed(None)

    @override
    def sizeHint(self) -> QSize:
        hint = super().sizeHint()
        if self.isCheckable():
            # Wide enough for the bolder letters of a checked button: Qt measures those of a plain one.
            bold = QFontMetrics(ui_font(_PIXELS, semibold=True))
            hint.setWidth(max(hint.width(), bold.horizontalAdvance(self.text()) + _SIDES_PX))
        return hint

    def _on_theme_changed(self, _theme: object) -> None:
        theme = current_theme()
        self.setStyleSheet(
            self.look.format(
                accent=theme.accent, hover=theme.hover, accent_soft=theme.accent_soft, faint=theme.faint
            )
        )
