"""The sensitivity of every layer, inside the page of the selected one."""

from __future__ import annotations

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Building, Feature, Parts, Place, View
from quantstudio.gui.features.sensitivity.actions import commands


def _build(context: Context, _parts: Parts) -> Building:
    from quantstudio.gui.features.sensitivity.sensitivity_panel import SensitivityPanel
    from quantstudio.gui.plots.sensitivity_classes import ClassSensitivityPlot
    from quantstudio.gui.plots.sensitivity_strip import SensitivityStrip

    strip = SensitivityStrip()
    yield
    classes = ClassSensitivityPlot()
    yield
    return SensitivityPanel(context.session, (strip, classes))


FEATURE = Feature(
    views=(View("sensitivity", "Sensitivity", Place.PART, 10, _build, page="inspect"),), commands=commands
)
