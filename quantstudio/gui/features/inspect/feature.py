"""The page of the selected layer; the sensitivity of every layer stands in its lower half."""

from __future__ import annotations

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Building, Feature, Parts, Place, View
from quantstudio.gui.features.inspect.actions import commands
from quantstudio.gui.plots.clip_keys import CLIP_KEYS


def _build(context: Context, parts: Parts) -> Building:
    from quantstudio.gui.features.inspect.inspect_panel import InspectPanel
    from quantstudio.gui.plots.channel_ranges import ChannelRangesPlot
    from quantstudio.gui.plots.error_bits import ErrorBitsPlot
    from quantstudio.gui.plots.histogram import HistogramPlot

    histogram = HistogramPlot()
    yield
    channels = ChannelRangesPlot()
    yield
    bits = ErrorBitsPlot()
    yield
    return InspectPanel(context.session, parts.values(), (histogram, channels, bits))


FEATURE = Feature(
    views=(View("inspect", "Inspect", Place.PAGE, 10, _build),),
    commands=commands,
    keys=tuple(("Histogram", text, keys) for text, keys in CLIP_KEYS),
)
