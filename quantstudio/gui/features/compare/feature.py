"""The page of variants side by side."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Feature, Parts, Place, View
from quantstudio.gui.features.compare.actions import commands


def _build(context: Context, _parts: Parts) -> QWidget:
    from quantstudio.gui.features.compare.compare_panel import ComparePanel

    panel = ComparePanel(context.session)
    panel.data_asked.connect(lambda: context.trigger("model.data"))
    return panel


FEATURE = Feature(views=(View("compare", "Compare", Place.PAGE, 30, _build),), commands=commands)
