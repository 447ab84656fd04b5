"""The whole trade-off: for every size of the file the plan with the smallest predicted KL."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from quantstudio.core.events import CancelToken, never_cancelled
from quantstudio.engine.search.allocation import Allocation, Problem, Quantity, allocate, alternative

POINTS = 32


def pareto_front(
    problem: Problem,
    *,
    axis: Quantity = Quantity.FILE_BYTES,
    points: int = POINTS,
    also: Sequence[Allocation] = (),
    progress: Callable[[int, int], None] | None = None,
    cancel: CancelToken | None = None,
) -> tuple[Allocation, ...]:
    """Plans of which none has less of both the axis and KL than another, smallest first.

    The axis is swept from its smallest possible value to the plan with the least KL; each point solves the
    knapsack with that budget.

    Args:
        problem: The knapsack.
        axis: What KL is traded against.
        points: Budgets tried; plans that come out twice count once.
        also: Plans to show besides, where nothing dominates them.
        progress: Told of every budget: done, all.
        cancel: Looked at before every budget.
    """
    token = cancel or never_cancelled()
    smallest = allocate(problem, {}, minimise=axis)
    best = allocate(problem, {}, minimise=Quantity.KL)
    low, high = smallest.totals[axis], best.totals[axis]
    found = [smallest, best, *also]
    # Even steps on a logarithmic axis: the interesting end is the small one.
    budgets = np.geomspace(low, high, points)[1:-1] if 0 < low < high else np.zeros(0)
    for done, budget in enumerate(budgets):
        token.raise_if_set()
        if progress is not None:
            progress(done, len(budgets))
        plan = alternative(problem, {axis: float(budget)})
        if plan is not None:
            found.append(plan)
    return not_dominated(found, axis)


def not_dominated(plans: Sequence[Allocation], axis: Quantity) -> tuple[Allocation, ...]:
    """Plans none of the others is at least as good as in both, smallest first; equal choices count once."""
    distinct = {plan.choice: plan for plan in plans}
    ordered = sorted(distinct.values(), key=lambda p: (p.totals[axis], p.totals[Quantity.KL], p.choice))
    kept: list[Allocation] = []
    for plan in ordered:
        if not kept or plan.totals[Quantity.KL] < kept[-1].totals[Quantity.KL]:
            kept.append(plan)
    return tuple(kept)
