"""What the command palette lists: every action, and everything that menus list."""

from __future__ import annotations

from quantstudio.gui.action import Choice, Context
from quantstudio.gui.shell.actions import Actions
from quantstudio.gui.widgets.command_palette import PaletteEntry


def palette_entries(actions: Actions, context: Context) -> list[PaletteEntry]:
    """Commands, then plans, samples, recent files, layers: what the features list now."""
    entries = [
        PaletteEntry(
            described.words or described.plain_text,
            described.group,
            actions[name].trigger,
            actions.keys_text(name),
            described.icon,
            actions.why_not(name),
        )
        for name, described in actions.described.items()
        if described.is_in_palette
    ]
    entries += [
        PaletteEntry(choice.words, choices.group, choice.run, icon=choices.icon, why_not=_why_not(choice))
        for choices in actions.choices
        for choice in choices.entries(context)
        if choice.words
    ]
    return entries


def _why_not(choice: Choice) -> str:
    if not choice.is_enabled:
        return choice.tip or "Not now"
    return "Chosen already" if choice.is_chosen else ""
