"""A row of choices of which one holds, joined into one control."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Signal
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import QButtonGroup, QHBoxLayout, QPushButton, QSizePolicy, QWidget

from quantstudio.gui.theme import current_theme, theme_hub, ui_font

_STYLE = """
QPushButton {{ background: transparent; border: 0; border-radius: 5px; color: {muted};
    padding: 2px 8px; min-height: 16px; min-width: 0; font-size: {pixels}px; }}
QPushButton:hover {{ color: {text}; background: {hover}; }}
QPushButton:checked {{ background: {accent_soft}; color: {accent}; font-weight: 600; }}
QPushButton:focus {{ border: 1px solid {accent}; padding: 1px 7px; }}
QPushButton:disabled {{ color: {faint}; background: transparent; }}
"""


class Segmented(QWidget):
    """Exclusive buttons side by side.

    Signals:
        chosen(str): the key of the choice the user made.
    """

    chosen = Signal(str)

    def __init__(
        self,
        choices: Sequence[tuple[str, str]],
        name: str,
        parent: QWidget | None = None,
        *,
        pixels: int = 12,
    ) -> None:
        """`choices` are pairs (key, text); `name` is the accessible name of the control."""
        super().__init__(parent)
        self.setAccessibleName(name)
        self._pixels = pixels
        self._group = QButtonGroup(self)
        self._buttons: dict[str, QPushButton] = {}
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        for key, text in choices:
            button = QPushButton(text)
            button.setObjectName(f"segment.{key}")
            button.setAccessibleName(f"{name}: {text}")
            button.setCheckable(True)
            button.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
            button.setProperty("segment", key)
            self._group.addButton(button)
            self._buttons[key] = button
            row.addWidget(button)
        self._group.buttonClicked.connect(self._on_clicked)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        theme_hub().theme_changed.connect(self._on_theme_changed)
        self._on_theme_changed(None)
        if choices:
            self.set_current(choices[0][0])

    @property
    def current(self) -> str:
        """Key of the choice that holds."""
        return next((key for key, button in self._buttons.items() if button.isChecked()), "")

    def button(self, key: str) -> QPushButton:
        """The button of a choice."""
        return self._buttons[key]

    def set_current(self, key: str) -> None:
        """Make a choice hold without saying so."""
        self._buttons[key].setChecked(True)

    def set_choice_visible(self, key: str, visible: bool) -> None:
        """Offer a choice, or leave it out."""
        self._buttons[key].setVisible(visible)

    def set_choice_enabled(self, key: str, enabled: bool, reason: str = "") -> None:
        """Allow or forbid a choice; the reason shows in its tool tip."""
        self._buttons[key].setEnabled(enabled)
        self._buttons[key].setToolTip(reason)

    def _on_clicked(self, _button: object) -> None:
        self.chosen.emit(self.current)

    def _on_theme_changed(self, _theme: object) -> None:
        theme = current_theme()
        # Wide enough for the bolder letters of the choice that holds: Qt measures the others.
        bold = QFontMetrics(ui_font(self._pixels, semibold=True))
        widths = (
            f'QPushButton[segment="{key}"] {{ min-width: {bold.horizontalAdvance(button.text())}px; }}'
            for key, button in self._buttons.items()
        )
        self.setStyleSheet(
            _STYLE.format(
                muted=theme.muted,
                text=theme.text,
                hover=theme.hover,
                accent_soft=theme.accent_soft,
                accent=theme.accent,
                faint=theme.faint,
                pixels=self._pixels,
            )
            + "\n".join(widths)
        )
