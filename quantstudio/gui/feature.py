"""A part of the program as the window sees it: views, what the user can do there, what it listens to."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from PySide6.QtWidgets import QWidget

from quantstudio.gui.action import Action, Command, Context

Parts = Mapping[str, QWidget]
Building = Generator[None, None, QWidget]
"""Makes a widget piece by piece; whatever else waits has its turn at every `yield`."""


class Place(StrEnum):
    """Where a view stands."""

    LEFT = "left"  # the dock left of everything
    TOP = "top"  # above the pages
    PAGE = "page"  # a tab of its own
    BELOW = "below"  # a tab of the dock below
    START = "start"  # instead of everything else
    PART = "part"  # inside a page of another feature


@dataclass(frozen=True, slots=True)
class View:
    """A part of the window.

    Attributes:
        name: Stable name, which settings keep.
        title: On its tab.
        place: Where it stands.
        order: Position among the views of that place.
        build: Makes the widget. Pages and parts are built one at a time after the first paint: import what
            they draw with inside. A page gets the parts that stand in it, by name. What takes more than a
            moment to make is made in pieces: a generator that returns the widget.
        page: Page a part stands in.
        focus: Object name of what takes the focus in a dock.
    """

    name: str
    title: str
    place: Place
    order: int
    build: Callable[[Context, Parts], QWidget | Building]
    page: str = ""
    focus: str = ""


def no_commands() -> tuple[Command, ...]:
    """A feature may bring nothing but views."""
    return ()


def no_listening(_context: Context) -> None:
    """A feature need not listen to anything."""


@dataclass(frozen=True, slots=True)
class Feature:
    """What one folder of `gui/features` brings.

    Attributes:
        views: Its pages, docks and parts.
        commands: Makes what the user can do; asked once, when the window is made.
        listen: Connects what the session asks of the user with the window; called once.
        keys: Keys of its widgets for the sheet of shortcuts: group, what they do, keys.
    """

    views: tuple[View, ...] = ()
    commands: Callable[[], tuple[Command, ...]] = no_commands
    listen: Callable[[Context], None] = no_listening
    keys: tuple[tuple[str, str, str], ...] = ()


def show_action(view: str, text: str, icon: str, keys: str, order: int) -> Action:
    """The action that brings a page to the front."""
    return Action(f"view.{view}", text, lambda context: context.show(view), "view", order, icon, keys)


def toggle_action(view: str, text: str, icon: str, keys: str, order: int) -> Action:
    """The action that shows or hides a dock."""
    return Action(f"view.{view}", text, lambda context: context.toggle(view), "view", order, icon, keys)
