"""The toolbar, made from the commands that ask for a place on it; what finds no room moves into a menu."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QAction, QResizeEvent
from PySide6.QtWidgets import QMainWindow, QMenu, QSizePolicy, QToolBar, QToolButton, QWidget
from typing_extensions import override

from quantstudio.gui.action import SECTION, Action, ToolMenu
from quantstudio.gui.session import Session
from quantstudio.gui.shell.actions import Actions
from quantstudio.gui.shell.menus import Menus
from quantstudio.gui.theme import icon, theme_hub

RIGHT = 900
"""Positions from here on stand at the right end."""
TEXT_PX, TEXT_MIN_PX = 110, 64
GAP_PX = 4
_WORDS = Qt.ToolButtonStyle.ToolButtonTextBesideIcon
_ICON = Qt.ToolButtonStyle.ToolButtonIconOnly


@dataclass(frozen=True, slots=True, eq=False)
class _Tool:
    """One button of the toolbar: what it is made from, and what shows or hides it."""

    described: Action | ToolMenu
    button: QToolButton
    place: QAction

    @property
    def can_lose_words(self) -> bool:
        """Files and what is made of them have icons that everybody knows."""
        is_outer = self.described.tool >= RIGHT or self.described.tool < 2 * SECTION
        return isinstance(self.described, Action) and is_outer

    @property
    def gives_way(self) -> int:
        """The higher, the sooner it moves into the menu; what leads to a result stays longest."""
        if self.described.tool >= RIGHT:
            return self.described.tool
        if isinstance(self.described, ToolMenu) or self.described.tool >= 3 * SECTION:
            return SECTION // 2 - self.described.tool // SECTION
        return self.described.tool


class ToolBar(QToolBar):
    """Actions with icons, then what opens a menu; from `RIGHT` on at the right end.

    In a narrow window the plan's name is cut, then words go, then buttons: these are in the menu at the end.
    """

    def __init__(self, window: QMainWindow, session: Session, actions: Actions, menus: Menus) -> None:
        super().__init__("Toolbar", window)
        self.setObjectName("toolbar")
        self.setAccessibleName("Toolbar")
        self.setMovable(False)
        self.setIconSize(QSize(18, 18))
        self.setToolButtonStyle(_WORDS)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)
        self._session = session
        self._menus = menus
        self._tools: list[_Tool] = []
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
            self._add(tool, actions)
        self._more, self._more_place = self._make_more()
        for signal in (session.plans_changed, session.model_changed, session.recipe_changed):
            signal.connect(self._refresh)
        theme_hub().theme_changed.connect(self._retheme)
        self._retheme()
        self._refresh()

    @property
    def moved(self) -> tuple[str, ...]:
        """Ids of what stands in the menu at the end, for want of room."""
        return tuple(tool.described.id for tool in self._tools if not tool.place.isVisible())

    def _add(self, described: Action | ToolMenu, actions: Actions) -> None:
        button = QToolButton(self)
        button.setObjectName(f"toolbar.{described.id}")
        button.setAutoRaise(True)
        # As the menus have it: keys reach all of them there.
        button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        button.setIconSize(self.iconSize())
        if isinstance(described, ToolMenu):
            button.setAccessibleName(described.title)
            button.setProperty("selector", True)
            button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
            button.setMenu(self._menus[described.menu])
        else:
            button.setDefaultAction(actions[described.id])
            button.setAccessibleName(described.plain_text)
            if described.is_primary:
                button.setProperty("primary", True)
        place = self.addWidget(button)
        if isinstance(described, Action):
            # The place has a state of its own, and would make a button usable whose action is not.
            action = actions[described.id]
            action.changed.connect(lambda: place.setEnabled(action.isEnabled()))
            place.setEnabled(action.isEnabled())
        self._tools.append(_Tool(described, button, place))

    def _add_space(self) -> None:
        space = QWidget(self)
        space.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.addWidget(space)

    def _make_more(self) -> tuple[QToolButton, QAction]:
        button = QToolButton(self)
        button.setObjectName("toolbar.more")
        button.setAccessibleName("More of the toolbar")
        button.setToolTip("What the window is too narrow for")
        button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        button.setAutoRaise(True)
        button.setIconSize(self.iconSize())
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(button)
        menu.setObjectName("menu.toolbar.more")
        menu.setToolTipsVisible(True)
        button.setMenu(menu)
        return button, self.addWidget(button)

    # Room.

    def _refresh(self) -> None:
        for tool in self._tools:
            if isinstance(tool.described, ToolMenu):
                tool.button.setToolTip(tool.described.tip_now(self._session))
        self._fit()

    def _fit(self) -> None:
        """As many words and buttons as there is room for; called with every width."""
        room = self.width() - self._frame()
        for with_words in (True, False):
            self._write_all(TEXT_PX, with_words=with_words)
            used = self._used(self._tools)
            if used > room:
                # Letters of a name give way before anything else does.
                self._write_all(max(TEXT_MIN_PX, TEXT_PX - used + room), with_words=with_words)
                used = self._used(self._tools)
            if used <= room:
                break
        shown = list(self._tools)
        if used > room:
            room -= self._more.sizeHint().width() + GAP_PX
            for tool in sorted(self._tools, key=lambda tool: -tool.gives_way):
                is_primary = isinstance(tool.described, Action) and tool.described.is_primary
                if self._used(shown) <= room:
                    break
                if not is_primary:
                    shown.remove(tool)
        self._show_only(shown)

    def _show_only(self, shown: list[_Tool]) -> None:
        before = self.moved
        for tool in self._tools:
            tool.place.setVisible(tool in shown)
        self._more_place.setVisible(len(shown) < len(self._tools))
        if self.moved != before:
            menu = self._more.menu()
            menu.clear()
            for tool in self._tools:
                if tool in shown:
                    continue
                if isinstance(tool.described, ToolMenu):
                    menu.addMenu(self._menus[tool.described.menu])
                else:
                    menu.addAction(tool.button.defaultAction())

    def _write_all(self, width: int, *, with_words: bool) -> None:
        for tool in self._tools:
            if isinstance(tool.described, ToolMenu):
                text = tool.described.text_now(self._session)
                elide = Qt.TextElideMode.ElideMiddle
                tool.button.setText(tool.button.fontMetrics().elidedText(text, elide, width))
                tool.button.setToolButtonStyle(_WORDS)
            else:
                is_bare = tool.described.is_icon_only or (tool.can_lose_words and not with_words)
                tool.button.setToolButtonStyle(_ICON if is_bare else _WORDS)

    def _used(self, tools: list[_Tool]) -> int:
        return sum(tool.button.sizeHint().width() + GAP_PX for tool in tools)

    def _frame(self) -> int:
        """What margins, lines and gaps take, whatever is shown."""
        shown = [tool for tool in self._tools if tool.place.isVisible()]
        more = self._more.sizeHint().width() + GAP_PX if self._more_place.isVisible() else 0
        return self.sizeHint().width() - self._used(shown) - more

    @override
    def minimumSizeHint(self) -> QSize:
        """Of the button that always stays and the menu, so that the window can be made narrower."""
        widest = max((tool.button.sizeHint().width() for tool in self._tools), default=0)
        return QSize(widest + self._more.sizeHint().width(), super().minimumSizeHint().height())

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _retheme(self) -> None:
        self._more.setIcon(icon("more"))
        for tool in self._tools:
            if isinstance(tool.described, ToolMenu):
                tool.button.setIcon(icon(tool.described.icon))
