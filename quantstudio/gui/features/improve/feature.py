"""The page of the recipe's steps: what happens to the network before it is quantized, and what that gains."""

from __future__ import annotations

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Building, Feature, Parts, Place, View
from quantstudio.gui.features.improve.actions import commands


def _build(context: Context, _parts: Parts) -> Building:
    from quantstudio.gui.features.improve.improve_panel import ImprovePanel
    from quantstudio.gui.plots.layer_recovery import LayerRecoveryPlot
    from quantstudio.gui.plots.training_curve import TrainingCurvePlot
    from quantstudio.gui.plots.waterfall import WaterfallPlot

    waterfall = WaterfallPlot()
    yield
    layers = LayerRecoveryPlot()
    yield
    curve = TrainingCurvePlot()
    yield
    panel = ImprovePanel(context.session, (waterfall, layers, curve))
    panel.data_asked.connect(lambda: context.trigger("model.data"))
    panel.model_asked.connect(lambda: context.trigger("file.open"))
    return panel


FEATURE = Feature(
    views=(View("improve", "Improve", Place.PAGE, 15, _build, focus="steps.list"),),
    commands=commands,
    keys=(
        ("Steps", "Switch a step on or off", "Space"),
        ("Steps", "Settings of a step", "Return"),
        ("Steps", "Run a step earlier or later", "Alt+Left | Alt+Right"),
        ("Steps", "Remove a step", "Del"),
    ),
)
