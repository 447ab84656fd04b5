"""The steps there are, by what they are for, in a menu."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from PySide6.QtWidgets import QMenu

from quantstudio.core.steps import StepGroup, StepInfo

LOOKING = "Looking for steps…"
GROUP_TITLES = {
    StepGroup.COMPRESS: "Compress the network",
    StepGroup.PREPARE: "Prepare the network",
    StepGroup.ROUND: "Round its weights",
    StepGroup.CORRECT: "Correct what rounding did",
    StepGroup.TUNE: "Tune it",
    StepGroup.TRAIN: "Train it",
}


def fill_step_menu(menu: QMenu, infos: Sequence[StepInfo], add: Callable[[StepInfo], object]) -> None:
    """Put the steps into a menu, a title above each group."""
    menu.clear()
    for group, title in GROUP_TITLES.items():
        own = [info for info in infos if info.group is group]
        if not own:
            continue
        if menu.actions():
            menu.addSeparator()
        head = menu.addAction(title)
        head.setObjectName(f"steps.menu.group.{group.value}")
        head.setEnabled(False)
        for info in own:
            action = menu.addAction(info.label)
            action.setObjectName(f"steps.menu.{info.name}")
            action.setToolTip(f"{info.explanation}\n\n{info.source}".strip())
            action.triggered.connect(partial(add, info))
    if not infos:
        menu.addAction(LOOKING).setEnabled(False)
