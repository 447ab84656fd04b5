"""Files that are written: model, recipe, report."""

from __future__ import annotations

from quantstudio.gui.feature import Feature
from quantstudio.gui.features.export.actions import commands

FEATURE = Feature(commands=commands)
