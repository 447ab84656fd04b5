"""The best precision for every layer within budgets: a multiple-choice knapsack, solved exactly.

Every unit (a layer, or layers that share one scheme) takes one of its options. The sum of the options' KLs is
minimised, or the bytes, under linear bounds. Source of the formulation: Dong et al. 2020, HAWQ-V2,
arXiv:1911.03852, section 3.3; solver: HiGHS through scipy.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array
from typing_extensions import override

from quantstudio.core.codec import to_json
from quantstudio.core.errors import RecipeError
from quantstudio.core.precision import ActivationFormat, LayerScheme, WeightFormat, activation_formats
from quantstudio.core.search_results import BudgetObstacle

# Plans this close to the best are the best: the KLs themselves are known to a few per cent.
RELATIVE_GAP = 1e-4
# HiGHS keeps rows to about 1e-6; a bound broken by so little is solved again, a little tighter.
ROW_MARGINS = (0.0, 2e-6, 1e-4)


CLASS_DROP = "accuracy drop of a class, points"


class Quantity(StrEnum):
    """What a plan costs."""

    KL = "KL"
    FILE_BYTES = "file bytes"
    AVERAGE_BITS = "average weight bits"
    LATENCY_RATIO = "latency ratio"
    SHARE_ABOVE_8 = "share of layers above 8 bits"


# Fields of `SearchBudget`; what is not here is a drop, which is bounded through KL.
_FIELDS: Mapping[str, str] = {
    Quantity.FILE_BYTES: "max_size_bytes",
    Quantity.AVERAGE_BITS: "average_bits",
    Quantity.LATENCY_RATIO: "max_latency_ratio",
    Quantity.SHARE_ABOVE_8: "max_share_above_8",
    CLASS_DROP: "max_class_drop",
}


@dataclass(frozen=True, slots=True)
class Option:
    """One way to store and run a unit.

    Attributes:
        scheme: The scheme of all its layers.
        costs: What it adds to each quantity of the plan.
    """

    scheme: LayerScheme
    costs: Mapping[Quantity, float]


@dataclass(frozen=True, slots=True)
class Unit:
    """Layers that take one option together.

    Attributes:
        layers: Their names.
        options: The choices, at least one.
    """

    layers: tuple[str, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be allocated.

    Attributes:
        units: Every searched unit.
        joins: Sets of unit indices that must agree on the precision of their activations.
        base: What the rest of the model adds to each quantity.
    """

    units: tuple[Unit, ...]
    joins: tuple[tuple[int, ...], ...] = ()
    base: Mapping[Quantity, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Allocation:
    """One plan.

    Attributes:
        choice: Index of the chosen option of each unit.
        schemes: Scheme by layer.
        totals: Sum of every quantity, the model's own part included.
    """

    choice: tuple[int, ...]
    schemes: dict[str, LayerScheme]
    totals: dict[Quantity, float]


class InfeasibleBudgetError(RecipeError):
    """No plan keeps the bounds.

    Attributes:
        quantity: The bound that is the obstacle.
        bound: Its value.
        nearest: The smallest value a plan can have there, with all other bounds kept where they can be.
        allocation: That plan, where it came from the tables.
    """

    def __init__(
        self, quantity: Quantity | str, bound: float, nearest: float, allocation: Allocation | None = None
    ) -> None:
        self.quantity = quantity
        self.bound = bound
        self.nearest = nearest
        self.allocation = allocation
        super().__init__(
            f"no plan keeps the bound on {quantity} ({_number(bound)})",
            hint=f"The closest possible is {_number(nearest)}; allow that, or relax another bound",
        )

    @property
    @override
    def details(self) -> Mapping[str, Any]:
        obstacle = BudgetObstacle(_FIELDS.get(self.quantity, "max_drop"), self.bound, self.nearest)
        return {"obstacle": to_json(obstacle)}


def allocate(
    problem: Problem,
    bounds: Mapping[Quantity, float],
    *,
    minimise: Quantity = Quantity.KL,
) -> Allocation:
    """The plan with the smallest sum of one quantity within bounds on others.

    Args:
        problem: Units, options, joins.
        bounds: Largest allowed total by quantity.
        minimise: What is made small; equal problems give equal plans.

    Raises:
        InfeasibleBudgetError: no plan keeps the bounds.
    """
    solver = _Solver(problem)
    found = solver.solve(bounds, minimise)
    if found is not None:
        return found
    raise _obstacle(solver, bounds)


def alternative(
    problem: Problem,
    bounds: Mapping[Quantity, float],
    *,
    minimise: Quantity = Quantity.KL,
    excluded: Sequence[Allocation] = (),
) -> Allocation | None:
    """The best plan besides those excluded; None if there is none within the bounds."""
    return _Solver(problem).solve(bounds, minimise, excluded)


def uniform_allocation(problem: Problem, weights: WeightFormat) -> Allocation | None:
    """The plan with weights of one format where that is an option, and the widest below 9 bits elsewhere.

    None if no unit that has a choice can have the format.
    """
    choice, met = [], False
    for unit in problem.units:
        formats = [option.scheme.weights for option in unit.options]
        met = met or (weights in formats and len(formats) > 1)
        widest = max((w.bits for w in formats if w.bits <= 8), default=formats[0].bits)
        wanted = weights if weights in formats else next(w for w in formats if w.bits == widest)
        choice.append(formats.index(wanted))
    return allocation_of(problem, choice) if met else None


def allocation_of(problem: Problem, choice: Sequence[int]) -> Allocation:
    """The plan behind a choice of options."""
    totals = {quantity: float(problem.base.get(quantity, 0.0)) for quantity in Quantity}
    schemes: dict[str, LayerScheme] = {}
    for unit, index in zip(problem.units, choice, strict=True):
        option = unit.options[index]
        schemes.update(dict.fromkeys(unit.layers, option.scheme))
        for quantity, cost in option.costs.items():
            totals[quantity] += cost
    return Allocation(tuple(int(i) for i in choice), schemes, totals)


def keeps(allocation: Allocation, bounds: Mapping[Quantity, float]) -> bool:
    """Whether a plan keeps all bounds; float sums may miss by their own rounding."""
    return all(allocation.totals[q] <= bound + 1e-9 * max(1.0, abs(bound)) for q, bound in bounds.items())


class _Solver:
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.options = [option for unit in problem.units for option in unit.options]
        self.starts = np.cumsum([0, *(len(unit.options) for unit in problem.units)])
        self.choices, self.joins = self._choices(), self._joins()

    def solve(
        self, bounds: Mapping[Quantity, float], minimise: Quantity, excluded: Sequence[Allocation] = ()
    ) -> Allocation | None:
        """The plan, or None."""
        if not self.options:
            empty = allocation_of(self.problem, ())
            return empty if keeps(empty, bounds) and not excluded else None
        for margin in ROW_MARGINS:
            found = self._solve_once(bounds, minimise, excluded, margin)
            if found is not None and keeps(found, bounds):
                return found
        return None

    def _solve_once(
        self,
        bounds: Mapping[Quantity, float],
        minimise: Quantity,
        excluded: Sequence[Allocation],
        margin: float,
    ) -> Allocation | None:
        constraints = [LinearConstraint(self.choices, 1, 1)]
        if self.joins is not None:
            constraints.append(LinearConstraint(self.joins, 0, 0))
        for quantity, bound in bounds.items():
            left = bound - self.problem.base.get(quantity, 0.0)
            row = self._costs(quantity)
            scale = max(abs(left), float(np.abs(row).max()) * 1e-9, 1e-300)
            constraints.append(LinearConstraint(row[None] / scale, -np.inf, left / scale - margin))
        for plan in excluded:
            row = np.zeros(len(self.options))
            row[self.starts[:-1] + np.asarray(plan.choice)] = 1
            constraints.append(LinearConstraint(row[None], -np.inf, len(plan.choice) - 1))
        with _silent_stdout():
            found = milp(
                self._objective(minimise),
                integrality=np.ones(len(self.options)),
                bounds=Bounds(0, 1),
                constraints=constraints,
                options={"mip_rel_gap": RELATIVE_GAP},
            )
        if found.x is None:
            return None
        choice = [
            int(np.argmax(found.x[a:b])) for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)
        ]
        return allocation_of(self.problem, choice)

    def _objective(self, quantity: Quantity) -> NDArray[np.float64]:
        """Costs in a unit that makes the sum of the cheapest options about 1.

        HiGHS also stops at an absolute gap of 1e-6, which a sum of KLs of 1e-6 would be within at once.
        """
        costs = self._costs(quantity)
        smallest = 0.0
        for start, stop in zip(self.starts[:-1], self.starts[1:], strict=True):
            positive = costs[start:stop][costs[start:stop] > 0]
            smallest += float(positive.min()) if len(positive) else 0.0
        scaled = costs / smallest if smallest > 0 else costs
        # Of equally good plans the one with fewer bytes, or fewer nats, so that ties are not left to chance.
        other = Quantity.KL if quantity is Quantity.FILE_BYTES else Quantity.FILE_BYTES
        tie = self._costs(other)
        return np.asarray(scaled + 1e-7 * tie / max(float(np.abs(tie).max()), 1e-300))

    def _costs(self, quantity: Quantity) -> NDArray[np.float64]:
        return np.array([option.costs.get(quantity, 0.0) for option in self.options])

    def _choices(self) -> csr_array:
        units = np.repeat(np.arange(len(self.problem.units)), np.diff(self.starts))
        shape = (len(self.problem.units), len(self.options))
        return csr_array((np.ones(len(units)), (units, np.arange(len(units)))), shape=shape)

    def _joins(self) -> csr_array | None:
        """Rows that say: the first unit of a join and another have the same activation precision."""
        rows: list[NDArray[np.float64]] = []
        for join in self.problem.joins:
            first = join[0]
            for other in join[1:]:
                for kind in activation_formats():
                    row = np.zeros(len(self.options))
                    row[self.starts[first] : self.starts[first + 1]] += self._has(first, kind)
                    row[self.starts[other] : self.starts[other + 1]] -= self._has(other, kind)
                    if row.any():
                        rows.append(row)
        return csr_array(np.stack(rows)) if rows else None

    def _has(self, unit: int, kind: ActivationFormat) -> NDArray[np.float64]:
        options = self.problem.units[unit].options
        return np.array([float(option.scheme.activations == kind) for option in options])


@contextmanager
def _silent_stdout() -> Iterator[None]:
    """Keep the process's standard output clean.

    The HiGHS that scipy 1.17 brings prints a left-over debug line there whenever it repairs an
    integer solution, past its own `disp` option; in the middle of a JSON document that is fatal.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # no standard output, as under a window
        yield
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


def _obstacle(solver: _Solver, bounds: Mapping[Quantity, float]) -> InfeasibleBudgetError:
    """Which bound stands in the way: one that cannot be kept alone, else the one missed by the least."""
    for quantity, bound in bounds.items():
        alone = solver.solve({}, quantity)
        if alone is not None and not keeps(alone, {quantity: bound}):
            # What can be had with the others kept too, or the next search fails on those.
            others = {q: b for q, b in bounds.items() if q is not quantity}
            plan = solver.solve(others, quantity) or alone
            return InfeasibleBudgetError(quantity, bound, plan.totals[quantity], plan)
    best: InfeasibleBudgetError | None = None
    least = math.inf
    for quantity, bound in bounds.items():
        others = {q: b for q, b in bounds.items() if q is not quantity}
        nearest = solver.solve(others, quantity)
        if nearest is None:
            continue
        miss = nearest.totals[quantity] / bound if bound > 0 else math.inf
        if best is None or miss < least:
            least, best = miss, InfeasibleBudgetError(quantity, bound, nearest.totals[quantity], nearest)
    if best is not None:
        return best
    quantity, bound = next(iter(bounds.items()), (Quantity.KL, math.inf))
    return InfeasibleBudgetError(quantity, bound, math.nan)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
