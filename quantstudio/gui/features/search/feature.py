"""The search for the best plan within bounds, beside the trade-off."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Feature, Parts, Place, View
from quantstudio.gui.features.search.actions import commands


def _build(context: Context, _parts: Parts) -> QWidget:
    from quantstudio.gui.features.search.search_panel import SearchPanel

    return SearchPanel(context.session)


FEATURE = Feature(
    views=(View("search", "Search", Place.PART, 10, _build, page="tradeoff"),), commands=commands
)
