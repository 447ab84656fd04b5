"""The menu bar, made from the commands; menus that list something are filled when they open."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtCore import QObject
from PySide6.QtWidgets import QMainWindow, QMenu

from quantstudio.gui.action import SECTION, Action, Choice, Choices, Context, Submenu
from quantstudio.gui.shell.actions import MENUS, Actions

Entry = Action | Choices | Submenu


class Menus(QObject):
    """Fills a main window's menu bar."""

    def __init__(self, window: QMainWindow, actions: Actions, context: Context) -> None:
        super().__init__(window)
        self._actions = actions
        self._context = context
        self._menus: dict[str, QMenu] = {}
        for name, title in MENUS.items():
            menu = window.menuBar().addMenu(title)
            self._name(menu, name)
            self._menus[name] = menu
            entries = self._entries(name)
            self._draw_when_shown(menu, entries)
            if any(isinstance(entry, Choices) and not entry.text for entry in entries):
                # What it lists stands among its actions: all of it is made anew.
                menu.aboutToShow.connect(self._refiller(menu, entries))
            self._fill(menu, entries)

    def __getitem__(self, name: str) -> QMenu:
        return self._menus[name]

    def _entries(self, menu: str) -> list[Entry]:
        actions = self._actions
        every: list[Entry] = [*actions.described.values(), *actions.choices, *actions.submenus]
        return sorted((entry for entry in every if entry.menu == menu), key=lambda entry: entry.order)

    def _refiller(self, menu: QMenu, entries: Sequence[Entry]) -> Callable[[], None]:
        def refill() -> None:
            menu.clear()
            self._fill(menu, entries)

        return refill

    def _draw_when_shown(self, menu: QMenu, entries: Sequence[Entry]) -> None:
        names = [entry.id for entry in entries if isinstance(entry, Action)]
        menu.aboutToShow.connect(lambda: self._actions.draw_icons(names))

    def _fill(self, menu: QMenu, entries: Sequence[Entry]) -> None:
        section = entries[0].order // SECTION if entries else 0
        for entry in entries:
            if entry.order // SECTION != section:
                section = entry.order // SECTION
                menu.addSeparator()
            if isinstance(entry, Action):
                menu.addAction(self._actions[entry.id])
            elif isinstance(entry, Submenu):
                submenu = menu.addMenu(entry.text)
                self._name(submenu, entry.id)
                inner = self._entries(entry.id)
                self._draw_when_shown(submenu, inner)
                self._fill(submenu, inner)
            elif entry.text:
                self._add_list(menu, entry)
            else:
                self._list(menu, entry)

    def _add_list(self, menu: QMenu, choices: Choices) -> None:
        submenu = menu.addMenu(choices.text)
        self._name(submenu, choices.id)

        def refill() -> None:
            submenu.clear()
            self._list(submenu, choices)
            if submenu.isEmpty() and choices.nothing:
                submenu.addAction(choices.nothing).setEnabled(False)

        submenu.aboutToShow.connect(refill)

    def _list(self, menu: QMenu, choices: Choices) -> None:
        under: dict[tuple[str, ...], QMenu] = {(): menu}
        for choice in choices.entries(self._context):
            for depth in range(1, len(choice.under) + 1):
                path = choice.under[:depth]
                if path not in under:
                    under[path] = under[path[:-1]].addMenu(path[-1].replace("&", "&&"))
                    self._name(under[path], ".".join((choices.id, *path)))
            if choice.is_apart:
                under[choice.under].addSeparator()
            _add_choice(under[choice.under], choice)

    def _name(self, menu: QMenu, name: str) -> None:
        menu.setObjectName(f"menu.{name}")
        menu.setToolTipsVisible(True)


def _add_choice(menu: QMenu, choice: Choice) -> None:
    action = menu.addAction(choice.text.replace("&", "&&"))
    action.setEnabled(choice.is_enabled)
    if choice.tip:
        action.setToolTip(choice.tip)
    if choice.is_chosen is not None:
        action.setCheckable(True)
        action.setChecked(choice.is_chosen)
    action.triggered.connect(lambda _checked=False: choice.run())
