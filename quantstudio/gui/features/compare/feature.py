"""The page of variants side by side."""

from __future__ import annotations

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Building, Feature, Parts, Place, View
from quantstudio.gui.features.compare.actions import commands


def _build(context: Context, _parts: Parts) -> Building:
    from quantstudio.gui.features.compare.compare_panel import ComparePanel
    from quantstudio.gui.plots.class_accuracy import ClassAccuracyPlot
    from quantstudio.gui.plots.latency import LatencyPlot
    from quantstudio.gui.plots.size_bars import SizeBarsPlot

    classes = ClassAccuracyPlot()
    yield
    latency = LatencyPlot()
    yield
    sizes = SizeBarsPlot()
    yield
    panel = ComparePanel(context.session, (classes, latency, sizes))
    panel.data_asked.connect(lambda: context.trigger("model.data"))
    return panel


FEATURE = Feature(views=(View("compare", "Compare", Place.PAGE, 30, _build),), commands=commands)
