"""The page of every variant and plan; a budget stands beside its plot."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Feature, Parts, Place, View
from quantstudio.gui.features.tradeoff.actions import commands
from quantstudio.gui.widgets.budget_panel import BudgetPanel


def _build(context: Context, parts: Parts) -> QWidget:
    from quantstudio.gui.features.tradeoff.tradeoff_panel import TradeoffPanel

    (beside,) = (part for part in parts.values() if isinstance(part, BudgetPanel))
    panel = TradeoffPanel(context.session, beside)
    panel.data_asked.connect(lambda: context.trigger("model.data"))
    panel.model_asked.connect(lambda: context.trigger("file.open"))
    return panel


FEATURE = Feature(views=(View("tradeoff", "Trade-off", Place.PAGE, 20, _build),), commands=commands)
