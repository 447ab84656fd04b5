"""What the user can do, described once: menus, toolbar, palette, keys and their sheet are made from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from PySide6.QtWidgets import QWidget

from quantstudio.core.hints import Hint
from quantstudio.gui.session import Session
from quantstudio.gui.widgets.remedy import Remedy

SECTION = 100
"""Positions in a menu or on the toolbar: a line stands between one hundred and the next."""


class Context(Protocol):
    """What an action and a view may ask of the window."""

    @property
    def session(self) -> Session:
        """What is known, and what can be done to it."""

    @property
    def window(self) -> QWidget:
        """The window: the parent of dialogs; its children are the views that are built."""

    @property
    def folder(self) -> str:
        """Folder that file dialogs opened last; empty for none."""

    @property
    def recent(self) -> tuple[str, ...]:
        """Models and projects opened lately, the newest first."""

    def forget(self, path: str) -> None:
        """Do not list a file among the recent ones any more."""

    def trigger(self, action: str) -> None:
        """Do what an action does, if it can be done now.

        Raises:
            KeyError: there is no such action.
        """

    def show(self, view: str) -> None:
        """Bring a view to the front.

        Raises:
            KeyError: there is no such view.
        """

    def toggle(self, view: str) -> None:
        """Show a view; hide it if it is shown already.

        Raises:
            KeyError: there is no such view.
        """

    def tell(self, severity: str, text: str, hint: str | Hint = "") -> None:
        """Show a notification: "info", "success", "warning" or "error"; a button does what the hint says."""

    def remedy(self, hint: Hint) -> Remedy | None:
        """What the window offers to do about something, as a button can show it; None for nothing."""

    def ask_for_file(self, name: str, title: str, filters: str, then: Callable[[str], None]) -> None:
        """Open a dialog for a file that exists and hand its path on; returns at once."""

    def ask_for_target(
        self, name: str, title: str, proposed: str, filters: str, then: Callable[[str], None]
    ) -> None:
        """Open a dialog for a file to write and hand its path on; returns at once."""


def always(_session: Session) -> str:
    """Nothing is in the way."""
    return ""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing the user can do.

    Attributes:
        id: Stable name, "group.verb"; the object name is "action." and this.
        text: Menu text, with & before its mnemonic.
        run: Does it; returns at once.
        menu: Menu it stands in: "view", or the id of a submenu, "run.presets".
        order: Position there; see `SECTION`.
        icon: Icon name; empty for none.
        keys: Shortcuts in Qt's portable spelling, " | " between several; the user may choose others.
        tip: One sentence for the tool tip; empty for the menu text.
        words: Text in the palette where the menu text alone would not say enough.
        is_in_palette: Whether the palette lists it.
        tool: Position on the toolbar; 0 for none.
        tool_text: Text there; empty for the menu text.
        is_icon_only: Whether the toolbar shows its icon alone: its word is the first a small screen has no
            room for.
        is_primary: Whether it sits on the accent colour.
        why_not: Why it cannot be done now; empty where it can.
        text_now: Menu text that depends on what is known.
    """

    id: str
    text: str
    run: Callable[[Context], object]
    menu: str = ""
    order: int = 0
    icon: str = ""
    keys: str = ""
    tip: str = ""
    words: str = ""
    is_in_palette: bool = True
    tool: int = 0
    tool_text: str = ""
    is_icon_only: bool = False
    is_primary: bool = False
    why_not: Callable[[Session], str] = always
    text_now: Callable[[Session], str] | None = None

    @property
    def plain_text(self) -> str:
        """Text without mnemonics and dots."""
        return plain(self.text)

    @property
    def group(self) -> str:
        """First part of the id, for people: "File"."""
        return self.id.partition(".")[0].capitalize()


@dataclass(frozen=True, slots=True)
class Submenu:
    """A menu inside a menu that holds actions; its object name is "menu." and its id."""

    id: str
    text: str
    menu: str
    order: int


@dataclass(frozen=True, slots=True)
class Choice:
    """One entry of a menu that lists something.

    Attributes:
        text: What it says; no mnemonics.
        run: Chooses it.
        words: Text in the palette; empty where the palette leaves it out.
        is_chosen: Whether it is what holds now; None where entries are not alternatives.
        is_enabled: Whether it can be chosen.
        tip: Tool tip.
        under: Titles of the submenus it stands in, the outer one first.
        is_apart: Whether a line stands before it.
    """

    text: str
    run: Callable[[], object]
    words: str = ""
    is_chosen: bool | None = None
    is_enabled: bool = True
    tip: str = ""
    under: tuple[str, ...] = ()
    is_apart: bool = False


@dataclass(frozen=True, slots=True)
class Choices:
    """Entries made when their menu or the palette opens.

    Attributes:
        id: Stable name; the object name of the submenu is "menu." and this.
        text: Title of the submenu; empty where the entries stand in the menu itself.
        entries: What is listed now.
        group: Where the palette says it belongs.
        menu: Menu it stands in; empty for the palette only.
        order: Position there; see `SECTION`.
        icon: Icon in the palette.
        nothing: What the submenu says when there is nothing to list.
    """

    id: str
    text: str
    entries: Callable[[Context], Sequence[Choice]]
    group: str
    menu: str = ""
    order: int = 0
    icon: str = ""
    nothing: str = ""


@dataclass(frozen=True, slots=True)
class ToolMenu:
    """A button on the toolbar that opens a menu of the menu bar.

    Attributes:
        id: The object name is "toolbar." and this.
        menu: Menu it opens.
        title: Accessible name.
        icon: Icon name.
        tool: Position on the toolbar.
        text_now: What it shows now.
        tip_now: Tool tip now.
    """

    id: str
    menu: str
    title: str
    icon: str
    tool: int
    text_now: Callable[[Session], str]
    tip_now: Callable[[Session], str]


Command = Action | Choices | Submenu | ToolMenu


def plain(text: str) -> str:
    """A menu text without mnemonics and dots."""
    return text.replace("&&", "\0").replace("&", "").replace("\0", "&").rstrip("…")
