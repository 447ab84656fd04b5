"""The commands of all features as Qt's actions: enabled, named, with their keys and icons, up to date."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from PySide6.QtCore import QObject
from PySide6.QtGui import QAction, QKeySequence

from quantstudio.gui.action import Action, Choices, Command, Context, Submenu, ToolMenu
from quantstudio.gui.session import Session
from quantstudio.gui.shell.settings import Settings
from quantstudio.gui.theme import icon, theme_hub

MENUS = {
    "file": "&File",
    "edit": "&Edit",
    "view": "&View",
    "model": "&Model",
    "plan": "&Plan",
    "run": "&Run",
    "help": "&Help",
}
"""The menu bar, left to right."""


class Actions(QObject):
    """Makes one QAction of every action and keeps its state, text, icon and keys up to date."""

    def __init__(
        self, commands: Iterable[Command], context: Context, settings: Settings, parent: QObject
    ) -> None:
        super().__init__(parent)
        commands = tuple(commands)
        self._session: Session = context.session
        self._settings = settings
        self.choices = tuple(c for c in commands if isinstance(c, Choices))
        self.submenus = tuple(c for c in commands if isinstance(c, Submenu))
        self.tool_menus = tuple(c for c in commands if isinstance(c, ToolMenu))
        actions = sorted((c for c in commands if isinstance(c, Action)), key=self._place)
        self._described: dict[str, Action] = {}
        self._made: dict[str, QAction] = {}
        self._icons: dict[str, str] = {}
        self._reasons: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        for action in actions:
            if action.id in self._described:
                raise ValueError(f"two actions are called {action.id}")
            self._described[action.id] = action
            self._made[action.id] = self._make(action, context)
        self._drawn: set[str] = set()
        self.draw_icons(action.id for action in actions if action.tool)
        self._connect()
        self.refresh()

    @property
    def described(self) -> Mapping[str, Action]:
        """What every action is, by id, in the order of the menus."""
        return self._described

    def __getitem__(self, name: str) -> QAction:
        return self._made[name]

    def set_icon(self, name: str, icon_name: str) -> None:
        """Another icon for an action, for instance the sun on the theme switch."""
        self._icons[name] = icon_name
        if name in self._drawn:
            self._set_icon(self._described[name])

    def draw_icons(self, names: Iterable[str]) -> None:
        """Give actions their icons, for a menu that opens: most menus of a session never do."""
        for name in names:
            if name not in self._drawn:
                self._drawn.add(name)
                self._set_icon(self._described[name])

    def why_not(self, name: str) -> str:
        """Why an action cannot be done now; empty where it can."""
        made = self._made[name]
        return "" if made.isEnabled() else self._reasons.get(name) or "Not now"

    def keys_text(self, name: str) -> str:
        """The first key of an action as people write it; empty for none."""
        return self._made[name].shortcut().toString(QKeySequence.SequenceFormat.NativeText)

    def shortcut_conflicts(self, name: str, keys: str) -> list[str]:
        """Names of other actions that have this key now."""
        wanted = QKeySequence(keys)
        if wanted.isEmpty():
            return []
        return [
            other for other, action in self._made.items() if other != name and wanted in action.shortcuts()
        ]

    def refresh(self) -> None:
        """Ask every action whether it can be done now, and what it is called."""
        for name, described in self._described.items():
            made, reason = self._made[name], described.why_not(self._session)
            if self._reasons.get(name) != reason:
                self._reasons[name] = reason
                made.setEnabled(not reason)
                self._set_tip(described)
            if described.text_now is not None:
                text = described.text_now(self._session)
                if self._texts.get(name) != text:
                    self._texts[name] = text
                    made.setText(text)

    def _make(self, described: Action, context: Context) -> QAction:
        made = QAction(described.text, self.parent())
        made.setObjectName(f"action.{described.id}")
        # "About", "Settings" and "Quit" by name would be moved into another menu on macOS.
        made.setMenuRole(QAction.MenuRole.NoRole)
        if described.tool_text:
            made.setIconText(described.tool_text)
        made.triggered.connect(partial(_run, described, context))
        self._set_keys(described, made)
        return made

    def _connect(self) -> None:
        session = self._session
        for signal in (
            session.plans_changed,
            session.recipe_changed,
            session.model_changed,
            session.data_changed,
            session.selection_changed,
            session.variants_changed,
            session.jobs_changed,
        ):
            signal.connect(self.refresh)
        self._settings.changed.connect(self._on_setting_changed)
        theme_hub().theme_changed.connect(self._refresh_icons)

    def _place(self, action: Action) -> tuple[int, int]:
        """Menu after menu; what stands in a submenu comes where the submenu stands."""
        names = list(MENUS)
        menu = action.menu.partition(".")[0]
        order = next((s.order for s in self.submenus if s.id == action.menu), action.order)
        return names.index(menu) if menu in names else len(names), order

    def _set_keys(self, described: Action, made: QAction) -> None:
        chosen = self._settings.shortcut(described.id)
        keys = described.keys if chosen is None else chosen
        made.setShortcuts([QKeySequence(k) for k in keys.split(" | ") if k])

    def _set_tip(self, described: Action) -> None:
        tip, keys = described.tip or described.plain_text, self.keys_text(described.id)
        lines = (f"{tip}  ({keys})" if keys else tip, self._reasons.get(described.id))
        self._made[described.id].setToolTip("\n".join(line for line in lines if line))

    def _set_icon(self, described: Action) -> None:
        name = self._icons.get(described.id, described.icon)
        if name:
            role = "on_accent" if described.is_primary else "text"
            self._made[described.id].setIcon(icon(name, role))

    def _refresh_icons(self) -> None:
        for name in self._drawn:
            self._set_icon(self._described[name])

    def _on_setting_changed(self, key: str) -> None:
        name = key.removeprefix("shortcuts/")
        if name in self._described:
            self._set_keys(self._described[name], self._made[name])
            self._set_tip(self._described[name])


def _run(described: Action, context: Context, _is_checked: bool = False) -> None:
    described.run(context)
