"""Bounds of a search: refused where they make no sense, and the one it has without any."""

from __future__ import annotations

import math
from dataclasses import replace

from quantstudio.core.errors import RecipeError
from quantstudio.core.search_results import ANY_CLASS_DROP, SearchBudget

DEFAULT_DROP_POINTS = 0.5


def checked(budget: SearchBudget) -> SearchBudget:
    """The budget, refused where a bound makes no sense.

    Raises:
        RecipeError: a bound is negative, not a number, or out of its range.
    """
    limits = {
        "accuracy drop": (budget.max_drop, 0.0, 100.0),
        "accuracy drop of a class": (budget.max_class_drop, 0.0, ANY_CLASS_DROP),
        "file bytes": (budget.max_size_bytes, 1, float("inf")),
        "latency ratio, a part of the FP32 time,": (budget.max_latency_ratio, 1e-6, 1.0),
        "average bits": (budget.average_bits, 1.0, 32.0),
        "share of layers above 8 bits": (budget.max_share_above_8, 0.0, 1.0),
    }
    for name, (value, low, high) in limits.items():
        if value is not None and not low <= value <= high:
            ends = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
            raise RecipeError(f"the bound on {name} cannot be {value}", hint=f"Give {ends}")
    return budget


def with_default(budget: SearchBudget) -> SearchBudget:
    """The budget with a bound on the accuracy where nothing else is bounded than shares and classes."""
    bounds = (
        budget.max_drop,
        budget.max_size_bytes,
        budget.max_latency_ratio,
        budget.average_bits,
    )
    if all(bound is None for bound in bounds):
        return replace(budget, max_drop=DEFAULT_DROP_POINTS)
    return budget
