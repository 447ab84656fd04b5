"""What a search is asked for, and what the window says about a budget before it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from quantstudio.core import figures
from quantstudio.core.layers import LayerInfo
from quantstudio.core.packing import searched
from quantstudio.core.precision import LayerScheme
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.search_results import (
    ANY_CLASS_DROP,
    ActivationFamily,
    BudgetObstacle,
    PlanPoint,
    Recover,
    SearchBudget,
)

DEFAULT_DROP_POINTS = 0.5
# What the smallest file may lose that one click asks for.
SMALLEST_FILE = SearchBudget(max_drop=0.3)
RECOVER_TEXTS = {
    Recover.AUTO: "Where time allows",
    Recover.GPTQ: "Every plan below 8 bits",
    Recover.NONE: "No, as they are rounded",
}
# A bound that is set to what was found must not fail on the last digit of a float.
ROOM = 1 + 1e-6
LATENCY, SHARE = "max_latency_ratio", "max_share_above_8"
DROPS = frozenset({"max_drop", "max_class_drop"})
_WHOLE = frozenset({"max_size_bytes"})
_DROP_STEP = 0.01


@dataclass(frozen=True, slots=True)
class SearchTerms:
    """What a search is asked for.

    Attributes:
        budget: Bounds.
        family: Activations in the plans.
        pins: Rules that fix the layers they match.
        is_judged_on_test: Whether the test data has the last word on the accuracy.
        recover: What wins back what few bits lose, before a plan is measured.
    """

    budget: SearchBudget = field(default_factory=lambda: SearchBudget(max_drop=DEFAULT_DROP_POINTS))
    family: ActivationFamily = ActivationFamily.AUTO
    pins: tuple[LayerRule, ...] = ()
    is_judged_on_test: bool = True
    recover: Recover = Recover.AUTO


def budget_text(budget: SearchBudget) -> str:
    """The bounds in few words: "0.5 pp, 5 bits"."""
    parts = (
        (budget.max_drop, lambda v: f"{figures.significant(v, 2)} pp"),
        (_bounded_class_drop(budget), lambda v: f"{figures.significant(v, 2)} pp a class"),
        (budget.max_size_bytes, lambda v: f"{figures.size(v)} file"),
        (budget.max_latency_ratio, figures.ratio),
        (budget.average_bits, lambda v: f"{figures.significant(v, 2)} bits"),
        (budget.max_share_above_8, lambda v: f"{figures.percent(v, 0)} float"),
    )
    return ", ".join(text(value) for value, text in parts if value is not None)


def _bounded_class_drop(budget: SearchBudget) -> float | None:
    """What a class may lose, where that was asked for."""
    asked = budget.max_class_drop
    return None if asked is None or asked >= ANY_CLASS_DROP else asked


def relaxed(budget: SearchBudget, obstacle: BudgetObstacle) -> SearchBudget:
    """The budget with the obstacle moved to the nearest value that can be had, or taken away where none can.

    Nothing slower than FP32 is ever chosen, so a latency ratio above 1 is taken away too.
    """
    changed: dict[str, Any] = {obstacle.bound: _reachable(obstacle)}
    return replace(budget, **changed)


def _reachable(obstacle: BudgetObstacle) -> float | None:
    nearest = obstacle.nearest
    if not math.isfinite(nearest) or (obstacle.bound == LATENCY and nearest > 1):
        return None
    if obstacle.bound in _WHOLE:
        return math.ceil(nearest)
    if obstacle.bound in DROPS:
        return round(math.ceil(nearest / _DROP_STEP * ROOM) * _DROP_STEP, 6)
    return min(nearest * ROOM, 1.0 if obstacle.bound in (LATENCY, SHARE) else math.inf)


def set_by_hand(
    recipe: Recipe, layers: Sequence[LayerInfo], found: Sequence[PlanPoint] = ()
) -> dict[str, LayerScheme]:
    """Layers of which somebody chose the scheme, those a rule about every layer decides left out.

    A plan that a search found names its layers one by one too: what differs from it was chosen by hand.

    Args:
        recipe: The recipe now.
        layers: Of the model.
        found: Plans of earlier searches.
    """
    known = searched(layers)
    asked = recipe.asked_schemes(known)
    chosen = _singled_out(recipe, known)
    for other in {id(point.recipe): point.recipe for point in found if chosen}.values():
        before = other.asked_schemes(known)
        changed = {name for name, scheme in asked.items() if before[name] != scheme}
        if len(changed) < len(chosen):
            chosen = changed
    legal = recipe.schemes(known)
    return {name: scheme for name, scheme in legal.items() if name in chosen}


def pins_for(schemes: dict[str, LayerScheme]) -> tuple[LayerRule, ...]:
    """One rule a scheme that fixes these layers."""
    return tuple(
        LayerRule(scheme, tuple(name for name, own in schemes.items() if own == scheme))
        for scheme in dict.fromkeys(schemes.values())
    )


def _singled_out(recipe: Recipe, layers: Sequence[LayerInfo]) -> set[str]:
    """Layers whose deciding rule names them, their type or a pattern."""
    found: set[str] = set()
    for rule in recipe.rules:
        matched = (
            set(rule.names) if rule.is_exact else {layer.name for layer in layers if rule.matches(layer)}
        )
        found = found | matched if rule.names or rule.op_types else found - matched
    return found & {layer.name for layer in layers}
