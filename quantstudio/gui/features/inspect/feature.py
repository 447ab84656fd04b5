"""The page of the selected layer; the sensitivity of every layer stands in its lower half."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Feature, Parts, Place, View
from quantstudio.gui.features.inspect.actions import commands
from quantstudio.gui.plots.clip_keys import CLIP_KEYS


def _build(context: Context, parts: Parts) -> QWidget:
    from quantstudio.gui.features.inspect.inspect_panel import InspectPanel

    return InspectPanel(context.session, parts.values())


FEATURE = Feature(
    views=(View("inspect", "Inspect", Place.PAGE, 10, _build),),
    commands=commands,
    keys=tuple(("Histogram", text, keys) for text, keys in CLIP_KEYS),
)
