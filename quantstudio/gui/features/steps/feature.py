"""Steps: the list of what happens to the network before it is quantized."""

from __future__ import annotations

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Feature, Parts, Place, View
from quantstudio.gui.features.steps.actions import commands
from quantstudio.gui.features.steps.steps_panel import StepsPanel


def _build(context: Context, _parts: Parts) -> StepsPanel:
    return StepsPanel(context.session)


FEATURE = Feature(
    views=(View("steps", "Steps", Place.BELOW, 15, _build, focus="steps.list"),),
    commands=commands,
)
