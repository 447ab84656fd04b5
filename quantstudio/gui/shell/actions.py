"""One list of everything the user can do; menus, toolbar, command palette and shortcut help read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QAction, QKeySequence

from quantstudio.gui.shell.settings import Settings
from quantstudio.gui.theme import icon, theme_hub


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """One thing the user can do.

    Attributes:
        name: Stable name, "menu.verb"; the action's objectName.
        text: Menu text, with & before its mnemonic.
        slot: Called when triggered; gets the checked state if `checkable`.
        icon: Icon name; empty for none.
        keys: Shortcut in Qt's portable spelling; empty for none.
        tip: One sentence for the tool tip and the palette.
        short: Text on the toolbar; empty for the menu text.
        checkable: Whether it is a switch.
        in_palette: Whether the command palette lists it.
        is_primary: Whether it sits on the accent colour.
    """

    name: str
    text: str
    slot: Callable[..., object]
    icon: str = ""
    keys: str = ""
    tip: str = ""
    short: str = ""
    checkable: bool = False
    in_palette: bool = True
    is_primary: bool = False

    @property
    def plain_text(self) -> str:
        """Text without mnemonics and dots."""
        return self.text.replace("&&", "\0").replace("&", "").replace("\0", "&").rstrip("…")

    @property
    def menu(self) -> str:
        """First part of the name, for people."""
        return self.name.partition(".")[0].capitalize()


class Actions(QObject):
    """Makes the QActions of a list of specs and keeps their icons and keys up to date."""

    def __init__(self, settings: Settings, parent: QObject) -> None:
        super().__init__(parent)
        self._settings = settings
        self._specs: dict[str, ActionSpec] = {}
        self._made: dict[str, QAction] = {}
        settings.changed.connect(self._on_setting_changed)
        theme_hub().theme_changed.connect(self._refresh_icons)

    @property
    def specs(self) -> tuple[ActionSpec, ...]:
        """All specs in the order they were added."""
        return tuple(self._specs.values())

    def add(self, spec: ActionSpec) -> QAction:
        """Make the action of a spec."""
        action = QAction(spec.text, self.parent())
        action.setObjectName(f"action.{spec.name}")
        action.setShortcutContext(Qt.ShortcutContext.WindowShortcut)
        action.setCheckable(spec.checkable)
        # "About", "Settings" and "Quit" by name would be moved into another menu on macOS.
        action.setMenuRole(QAction.MenuRole.NoRole)
        if spec.short:
            action.setIconText(spec.short)
        if spec.checkable:
            action.triggered.connect(spec.slot)
        else:
            action.triggered.connect(_without_argument(spec.slot))
        self._specs[spec.name] = spec
        self._made[spec.name] = action
        self._set_keys(spec)
        self._set_icon(spec)
        return action

    def __getitem__(self, name: str) -> QAction:
        return self._made[name]

    def spec(self, name: str) -> ActionSpec:
        """The spec of a name.

        Raises:
            KeyError: there is none.
        """
        return self._specs[name]

    def set_icon(self, name: str, icon_name: str) -> None:
        """Another icon for an action, for instance the sun on the theme switch."""
        action = self._made[name]
        action.setProperty("icon_name", icon_name)
        self._set_icon(self._specs[name])

    def shortcut_conflicts(self, name: str, keys: str) -> list[str]:
        """Names of other actions that have this key now."""
        wanted = QKeySequence(keys)
        if wanted.isEmpty():
            return []
        return [
            other for other, action in self._made.items() if other != name and wanted in action.shortcuts()
        ]

    def _set_keys(self, spec: ActionSpec) -> None:
        chosen = self._settings.shortcut(spec.name)
        keys = spec.keys if chosen is None else chosen
        action = self._made[spec.name]
        action.setShortcuts([QKeySequence(k) for k in keys.split(" | ") if k])
        shown = action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)
        tip = spec.tip or spec.plain_text
        action.setToolTip(f"{tip}  ({shown})" if shown else tip)
        action.setStatusTip("")

    def _set_icon(self, spec: ActionSpec) -> None:
        action = self._made[spec.name]
        name = action.property("icon_name") or spec.icon
        if name:
            action.setIcon(icon(name, "on_accent" if spec.is_primary else "text"))

    def _refresh_icons(self) -> None:
        for spec in self._specs.values():
            self._set_icon(spec)

    def _on_setting_changed(self, key: str) -> None:
        name = key.removeprefix("shortcuts/")
        if name in self._specs:
            self._set_keys(self._specs[name])


def _without_argument(slot: Callable[..., object]) -> Callable[[], None]:
    def call() -> None:
        slot()

    return call
