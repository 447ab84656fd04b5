"""The toolbar, made from the commands that ask for a place on it."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QMainWindow, QSizePolicy, QToolBar, QToolButton, QWidget
from typing_extensions import override

from quantstudio.gui.action import SECTION, Action, ToolMenu
from quantstudio.gui.session import Session
from quantstudio.gui.shell.actions import Actions
from quantstudio.gui.shell.menus import Menus
from quantstudio.gui.theme import icon, theme_hub

RIGHT = 900
"""Positions from here on stand at the right end."""
TEXT_PX, TEXT_MIN_PX = 84, 30


class ToolBar(QToolBar):
    """Actions with icons, then what opens a menu; from `RIGHT` on at the right end."""

    def __init__(self, window: QMainWindow, session: Session, actions: Actions, menus: Menus) -> None:
        super().__init__("Toolbar", window)
        self.setObjectName("toolbar")
        self.setAccessibleName("Toolbar")
        self.setMovable(False)
        self.setIconSize(QSize(18, 18))
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)
        self._session = session
        self._buttons: list[tuple[ToolMenu, QToolButton]] = []
        wanted: list[Action | ToolMenu] = [a for a in actions.described.values() if a.tool]
        wanted += actions.tool_menus
        section, is_right = 1, False
        for tool in sorted(wanted, key=lambda tool: tool.tool):
            if tool.tool >= RIGHT and not is_right:
                is_right = True
                self._add_space()
            elif not is_right and tool.tool // SECTION != section:
                self.addSeparator()
            section = tool.tool // SECTION
            if isinstance(tool, ToolMenu):
                self._add_menu(tool, menus)
            else:
                self._add_action(tool, actions)
        for signal in (session.plans_changed, session.model_changed, session.recipe_changed):
            signal.connect(self._refresh)
        theme_hub().theme_changed.connect(self._retheme)
        self._retheme()
        self._refresh()

    def _add_action(self, described: Action, actions: Actions) -> None:
        action = actions[described.id]
        self.addAction(action)
        button = self.widgetForAction(action)
        button.setObjectName(f"toolbar.{described.id}")
        button.setAccessibleName(described.plain_text)
        if described.is_primary:
            button.setProperty("primary", True)
        if described.is_icon_only and isinstance(button, QToolButton):
            button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonIconOnly)

    def _add_menu(self, described: ToolMenu, menus: Menus) -> None:
        button = QToolButton(self)
        button.setObjectName(f"toolbar.{described.id}")
        # As the buttons beside it: keys reach all of them through the menus.
        button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        button.setAccessibleName(described.title)
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        button.setMenu(menus[described.menu])
        self.addWidget(button)
        self._buttons.append((described, button))

    def _add_space(self) -> None:
        space = QWidget(self)
        space.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.addWidget(space)

    def _refresh(self) -> None:
        for described, button in self._buttons:
            text = described.text_now(self._session)
            button.setToolTip(described.tip_now(self._session))
            _write(button, text, TEXT_PX)
            missing = self.sizeHint().width() - self.width()
            if missing > 0:
                # Letters of a name give way before the buttons at the right end do.
                written = button.fontMetrics().horizontalAdvance(button.text())
                _write(button, text, max(TEXT_MIN_PX, written - missing))

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._refresh()

    def _retheme(self) -> None:
        for described, button in self._buttons:
            button.setIcon(icon(described.icon))


def _write(button: QToolButton, text: str, width: int) -> None:
    button.setText(button.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, width))
