"""The page of every variant and plan; a budget stands beside its plot."""

from __future__ import annotations

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Building, Feature, Parts, Place, View
from quantstudio.gui.features.tradeoff.actions import commands
from quantstudio.gui.widgets.budget_panel import BudgetPanel


def _build(context: Context, parts: Parts) -> Building:
    from quantstudio.gui.features.tradeoff.check_panel import CheckPanel
    from quantstudio.gui.features.tradeoff.tradeoff_panel import TradeoffPanel
    from quantstudio.gui.plots.trade_off import TradeOffPlot

    (beside,) = (part for part in parts.values() if isinstance(part, BudgetPanel))
    plot = TradeOffPlot()
    yield
    check = CheckPanel(context.session)
    yield
    panel = TradeoffPanel(context.session, beside, (plot, check))
    panel.data_asked.connect(lambda: context.trigger("model.data"))
    panel.model_asked.connect(lambda: context.trigger("file.open"))
    return panel


FEATURE = Feature(views=(View("tradeoff", "Trade-off", Place.PAGE, 20, _build),), commands=commands)
