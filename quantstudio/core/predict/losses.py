"""Which layers a plan loses by: parts that add up to what the whole is predicted to lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from quantstudio.core.effective_plan import EffectivePlan
    from quantstudio.core.predict.accuracy_law import AccuracyLaw
    from quantstudio.core.predict.model import PredictionModel
    from quantstudio.core.predict.table import PredictionTable

# Part of what the plan loses from which a layer is worth a look.
NOTED_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class PlanLosses:
    """What every layer takes of what a plan is predicted to lose.

    Attributes:
        total: Points the plan loses, or loses at least where only a bound is predicted.
        budget: Points it may lose.
        shares: Part of the loss by layer; they add up to 1, or are all 0 where nothing is lost.
        breaking: Layers without which the plan would keep the budget, the fewest there are; empty where it
            keeps it.
    """

    total: float
    budget: float
    shares: Mapping[str, float] = field(default_factory=dict)
    breaking: frozenset[str] = frozenset()

    def points(self, layer: str) -> float:
        """Points by a layer; over all layers they add up to `total`."""
        return self.total * self.shares.get(layer, 0.0)

    def level(self, layer: str) -> int:
        """0 harmless, 1 worth a look, 2 breaks the budget."""
        if layer in self.breaking:
            return 2
        return 1 if self.shares.get(layer, 0.0) >= NOTED_SHARE else 0


def plan_losses(
    table: PredictionTable, plan: EffectivePlan, model: PredictionModel, budget: float
) -> PlanLosses | None:
    """What every layer takes of what a plan loses; None where its loss is not predicted.

    Args:
        table: Tables of the network.
        plan: The plan.
        model: What measured plans taught.
        budget: Points it may lose.
    """
    found, law = table.predict(plan, model), model.law
    kept = found.accuracy.value if found.accuracy is not None else found.accuracy_at_most
    if law is None or kept is None or found.kl is None:
        return None
    total = max(100 * (law.base - kept), 0.0)
    by_layer = table.by_layer(plan, model)
    names = [layer.name for layer in table.layers]
    whole = float(by_layer.sum())
    if whole <= 0:
        return PlanLosses(total, budget, dict.fromkeys(names, 0.0))
    shares = by_layer / whole
    breaking: frozenset[str] = frozenset()
    if total > budget:
        order = np.argsort(-shares, kind="stable")
        count = _fewest(np.cumsum(shares[order]), whole, found.kl, model, law, total, budget)
        breaking = frozenset(names[index] for index in order[:count])
    return PlanLosses(total, budget, dict(zip(names, shares.tolist(), strict=True)), breaking)


def _fewest(
    removed: np.ndarray[tuple[int], np.dtype[np.float64]],
    whole: float,
    kl: float,
    model: PredictionModel,
    law: AccuracyLaw,
    total: float,
    budget: float,
) -> int:
    """How many of the layers that lose most must be spared for the rest to keep the budget.

    `removed` is the part of the loss that goes with the first one, two, ... of them.
    """
    anchored = kl / max(model.kl.kl_of(whole), 1e-30)
    scale = total / max(100 * law.drop(kl), 1e-12)
    for count, part in enumerate(removed, start=1):
        rest = anchored * model.kl.kl_of(whole * max(1 - float(part), 0.0))
        if 100 * law.drop(rest) * scale <= budget:
            return count
    return len(removed)
