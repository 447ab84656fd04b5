"""The sensitivity of every layer, inside the page of the selected one."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Feature, Parts, Place, View
from quantstudio.gui.features.sensitivity.actions import commands


def _build(context: Context, _parts: Parts) -> QWidget:
    from quantstudio.gui.features.sensitivity.sensitivity_panel import SensitivityPanel

    return SensitivityPanel(context.session)


FEATURE = Feature(
    views=(View("sensitivity", "Sensitivity", Place.PART, 10, _build, page="inspect"),), commands=commands
)
