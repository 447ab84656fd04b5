"""Plans: the row of key figures above the pages, the table of plans below."""

from __future__ import annotations

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Feature, Parts, Place, View
from quantstudio.gui.features.plans.actions import commands
from quantstudio.gui.features.plans.key_figures_panel import KeyFiguresPanel
from quantstudio.gui.features.plans.plans_panel import PlansPanel


def _build_figures(context: Context, _parts: Parts) -> KeyFiguresPanel:
    return KeyFiguresPanel(context.session)


def _build_plans(context: Context, _parts: Parts) -> PlansPanel:
    return PlansPanel(context.session)


FEATURE = Feature(
    views=(
        View("figures", "Key figures", Place.TOP, 10, _build_figures),
        View("plans", "Plans", Place.BELOW, 10, _build_plans),
    ),
    commands=commands,
)
