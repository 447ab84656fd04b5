"""The layer table in the dock on the left."""

from __future__ import annotations

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Feature, Parts, Place, View
from quantstudio.gui.features.layers.actions import commands
from quantstudio.gui.features.layers.layer_view import LAYER_KEYS
from quantstudio.gui.features.layers.layers_panel import LayersPanel


def _build(context: Context, _parts: Parts) -> LayersPanel:
    panel = LayersPanel(context.session)
    panel.open_asked.connect(lambda: context.trigger("file.open"))
    return panel


FEATURE = Feature(
    views=(View("layers", "Layers", Place.LEFT, 10, _build, focus="layers.table"),),
    commands=commands,
    keys=tuple(("Layers", text, keys) for text, keys in LAYER_KEYS),
)
