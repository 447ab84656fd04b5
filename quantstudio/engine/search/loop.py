"""The search: solve, build, measure, correct the prediction, solve again, until the best plan is measured."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from quantstudio.core.errors import RecipeError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.precision import searched_formats
from quantstudio.core.predict.kl_model import ACTIVATIONS, KlModel
from quantstudio.core.search_results import SearchBudget, SearchFront, SearchResult
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.quantization.build import build_variant
from quantstudio.engine.search.allocation import (
    Allocation,
    InfeasibleBudgetError,
    Problem,
    Quantity,
    allocate,
    allocation_of,
    alternative,
    keeps,
    uniform_allocation,
)
from quantstudio.engine.search.frontier import pareto_front
from quantstudio.engine.search.points import front_point, tried_point
from quantstudio.engine.search.workbench import MAX_BUILDS, Known, SearchRequest, Tried, Workbench

DEFAULT_DROP_POINTS = 0.5
# Floors on the bits of a plan that are tried besides none: the estimate is least sure of the coarsest grids.
BIT_FLOORS = (1, 3, 4)
# A bound on KL that measured plans show to be too generous shrinks by this.
TIGHTENING = 0.7
# Single-precision plans beyond this predicted KL are ruined and not worth a run.
RUINED_KL = 2.0
# Deviations of the loss, single plans differing, that a bound on accuracy keeps clear of; where test data has
# the last word, where it starts looking.
SAFE, BOLD = 0.65, -0.35
# Plans timed in one interleaved comparison.
TIMED_TOGETHER = 3
# Times the bound on latency is drawn in before it counts as out of reach.
LATENCY_ROUNDS = 3
# A plan predicted to take this much more than the bound may still keep it: it is timed.
LATENCY_DOUBT = 1.3
# A plan whose time nobody bounded is called slow beyond this; timings differ by some per cent.
NOTED_RATIO = 1.1
DROP = "accuracy drop, points"
# What streams while the search runs: kind of event, and points of each draft.
DRAFT_POINTS = 12


def search(
    graph: Graph,
    dataset: Dataset,
    output: Path,
    request: SearchRequest | None = None,
    *,
    test: Dataset | None = None,
    known: Known | None = None,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> SearchResult:
    """Find, build and measure the best mixed-precision plan within a budget.

    With a bound on bits, bytes or latency the plan with the least KL is sought; with one on accuracy alone
    the one with the fewest packed bytes. Every plan that can be returned was built and measured, the
    single-precision integer plans that keep the bounds among them, so the chosen one is never worse than
    those. Plans are ranked by measured KL: accuracy moves in steps of one sample.

    Args:
        graph: The model.
        dataset: Samples for calibration, sensitivity and measuring.
        output: Where the chosen variant goes.
        request: Budget, pins, family.
        test: Other samples, on which the chosen plan must keep the accuracy bound as well.
        known: Statistics, sensitivity and costs that were made before.
        reporter: Told of every stage.
        cancel: Looked at before every batch, solution and build.

    Raises:
        InfeasibleBudgetError: no plan keeps the bounds; says which is the obstacle and what can be had.
        RecipeError: a bound makes no sense, or pins contradict each other or the model.
        DataError: there are no samples.
        JobCancelled: `cancel` was set.
    """
    started = time.perf_counter()
    token = cancel or never_cancelled()
    asked = request or SearchRequest()
    asked = replace(asked, budget=_checked(asked.budget))
    bench = Workbench(graph, dataset, asked, known or Known(), test, reporter, token)
    loop = _Loop(bench)
    try:
        chosen = loop.chosen()
    except InfeasibleBudgetError:
        loop.tell_front()
        raise
    if chosen.latency_ratio is None and asked.time_chosen:
        bench.time([chosen])
    ratio = chosen.latency_ratio
    if ratio is not None and ratio > NOTED_RATIO and asked.budget.max_latency_ratio is None:
        loop.notes.append(f"The chosen plan takes {ratio:.2g} times as long as FP32; bound the latency too.")
    made, observed = bench.prepared(chosen.recipe)
    build = build_variant(made.graph, observed, made.plan, Path(output), reporter=reporter, cancel=token)
    model = bench.model()
    front = loop.front(model.kl, chosen)
    base = bench.base.metric
    activations = bench.parts(chosen.schemes).get(ACTIVATIONS, 0.0)
    ordered = sorted(bench.tried.values(), key=lambda one: not one.name)
    return SearchResult(
        front=tuple(front_point(bench, model, plan.schemes) for plan in front),
        chosen=tried_point(bench, model, chosen),
        tried=tuple(tried_point(bench, model, one) for one in ordered),
        budget=asked.budget,
        family=bench.space.family,
        groups=bench.space.groups,
        metric_name=bench.judge.metric_name,
        samples=bench.judge.base.samples,
        base_metric=base.value if base else None,
        scale_by_precision=dict(model.kl.scale),
        base_kl=model.kl.kl({ACTIVATIONS: activations}),
        builds=len(bench.tried),
        seconds=time.perf_counter() - started - bench.timing_seconds,
        timing_seconds=bench.timing_seconds,
        build=replace(build, steps=made.steps),
        data_digest=dataset.digest,
        notes=tuple(loop.notes),
        created=time.time(),
    )


class _Loop:
    """Proposes plans, learns from what they measure, and chooses."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.budget = bench.request.budget
        self.notes = bench.notes
        self.floats = (self.budget.max_share_above_8 or 0.0) > 0
        # What measured plans taught about the bounds: parts of them that may be used on paper.
        self.cap_factor = 1.0
        self.latency_factor = 1.0
        self.latency_rounds = 0
        self.size_excess = 0.0
        if self.budget.max_drop is not None and not bench.judge.metric_name:
            raise RecipeError(
                "an accuracy drop is bounded, but the model's output is not a class score",
                hint="Bound the size, the average bits or the latency instead",
            )

    def chosen(self) -> Tried:
        """The best measured plan, once the solver proposes nothing that is not measured.

        Raises:
            InfeasibleBudgetError: no measured plan keeps the bounds.
        """
        self._measure_uniform()
        self._anchor_latency()
        while True:
            self._explore()
            best = self._best()
            if best is None:
                if self.bench.is_spent or not self._moves_on():
                    raise self._nearest()
            elif self.bench.is_spent or not (self._leaves_room(best) and self._learn_test()):
                return best

    def tell_front(self) -> None:
        """Tell the trade-off as it is known now, coarsely."""
        bench, model = self.bench, self.bench.model()
        problem = bench.space.problem(model.kl, floats=self.floats)
        plans = pareto_front(problem, points=DRAFT_POINTS, cancel=bench.cancel)
        base = bench.judge.base
        draft = SearchFront(
            front=tuple(front_point(bench, model, plan.schemes) for plan in plans),
            tried=tuple(tried_point(bench, model, one) for one in bench.tried.values()),
            metric_name=bench.judge.metric_name,
            base_metric=base.metric.value if base.metric else None,
            samples=base.samples,
        )
        bench.reporter.found(draft)

    def front(self, predictor: KlModel, chosen: Tried) -> tuple[Allocation, ...]:
        """The trade-off under the corrected prediction, with the chosen plan on it where it belongs."""
        problem = self.bench.space.problem(predictor, floats=self.floats)
        own = _in_terms_of(problem, chosen)
        return pareto_front(
            problem,
            also=[own] if own is not None else [],
            progress=lambda done, total: self.bench.reporter.progress(
                done, total, "points", "Drawing the front"
            ),
            cancel=self.bench.cancel,
        )

    # -- proposing -------------------------------------------------------------------------------------

    def _measure_uniform(self) -> None:
        """Every single-precision plan that keeps the bounds, and 8 bits in any case: they anchor the rest."""
        bounds = self._bounds(with_drop=False)
        for precision in searched_formats():
            predictor = self.bench.predictor()
            problem = self.bench.space.problem(predictor, floats=False)
            plan = uniform_allocation(problem, precision.bits)
            if plan is None:
                continue
            fits = keeps(plan, bounds) and predictor.kl_of(plan.totals[Quantity.KL]) <= RUINED_KL
            if precision.bits == 8 or fits:
                self.bench.measured(plan.schemes, f"{precision.label} everywhere")

    def _anchor_latency(self) -> None:
        """Time one plan, so that predicted latencies are right at least there: tables add up layers."""
        if self.budget.max_latency_ratio is None:
            return
        one = next(plan for plan in self.bench.tried.values() if plan.fits)
        if one.latency_ratio is None:
            self.bench.time([one])
        predicted = self.bench.space.totals(one.schemes, KlModel())[Quantity.LATENCY_RATIO]
        if one.latency_ratio and predicted > 0:
            self.latency_factor = predicted / one.latency_ratio

    def _explore(self) -> None:
        """Solve and measure until every solution is among the measured plans."""
        for _ in range(MAX_BUILDS):
            self.tell_front()
            new = [plan for plan in self._proposals() if not self.bench.is_known(plan.schemes)]
            if not new or self.bench.is_spent:
                return
            for plan in new:
                if not self.bench.is_spent:
                    self._learn(plan, self.bench.measured(plan.schemes))

    def _learn(self, plan: Allocation, one: Tried) -> None:
        """Draw bounds in where a plan keeps them on paper and not in fact."""
        cap = self._kl_cap()
        if cap is not None and not self._keeps_drop(one):
            believed = self.bench.table.known_kl(one.plan, self.bench.model())
            if believed <= cap * self.cap_factor:
                self.cap_factor *= TIGHTENING
        self.size_excess = max(self.size_excess, one.size_bytes - plan.totals[Quantity.FILE_BYTES])

    def _proposals(self) -> list[Allocation]:
        """The best plans under the present prediction, with different floors on the bits."""
        predictor = self.bench.predictor()
        found: list[Allocation] = []
        for floor in BIT_FLOORS:
            self.bench.cancel.raise_if_set()
            problem = self.bench.space.problem(predictor, floats=self.floats, fewest_bits=floor)
            bounds = self._doubted(problem, self._bounds())
            plan = alternative(problem, bounds, minimise=self._objective)
            if plan is not None and all(plan.schemes != other.schemes for other in found):
                found.append(plan)
            elif plan is None and floor == BIT_FLOORS[0]:
                if any(self._holds(one) for one in self.bench.tried.values()):
                    return []
                if self._widens():
                    return self._proposals()
                self._check_feasible(problem, bounds)
                return []
        return found

    def _doubted(self, problem: Problem, bounds: dict[Quantity, float]) -> dict[Quantity, float]:
        """The bounds, that on latency widened to the fastest plan where that misses it by little.

        Tables of single layers and one timing on a busy machine do not prove that nothing is fast enough.
        """
        bound = bounds.get(Quantity.LATENCY_RATIO)
        if bound is None:
            return bounds
        others = dict(bounds)
        del others[Quantity.LATENCY_RATIO]
        fastest = alternative(problem, others, minimise=Quantity.LATENCY_RATIO)
        if fastest is None or fastest.totals[Quantity.LATENCY_RATIO] > LATENCY_DOUBT * bound:
            return bounds
        return bounds | {Quantity.LATENCY_RATIO: max(bound, fastest.totals[Quantity.LATENCY_RATIO] + 1e-6)}

    def _check_feasible(self, problem: Problem, bounds: dict[Quantity, float]) -> None:
        """Raise what stands in the way on paper, unless it is only what was learned on the way.

        Raises:
            InfeasibleBudgetError: with the bound in the user's terms.
        """
        if self.cap_factor < 1.0 or self.latency_rounds or self.size_excess > 0:
            return
        try:
            allocate(problem, bounds, minimise=self._objective)
        except InfeasibleBudgetError as error:
            if error.quantity is Quantity.LATENCY_RATIO:
                nearest = error.nearest / self.latency_factor
                raise InfeasibleBudgetError(
                    error.quantity, self.budget.max_latency_ratio or 0.0, nearest, error.allocation
                ) from error
            if error.quantity is not Quantity.KL:
                raise
            raise InfeasibleBudgetError(
                DROP,
                self.budget.max_drop or 0.0,
                self._drop_at(self.bench.predictor().kl_of(error.nearest)),
                error.allocation,
            ) from error

    def _widens(self) -> bool:
        """Let layers stay float, if that is free to choose and was not done yet."""
        if self.floats or self.budget.max_share_above_8 is not None:
            return False
        self.floats = True
        self.cap_factor = 1.0
        self.notes.append("Layers may stay float: no plan of integers alone keeps the bounds.")
        return True

    def _moves_on(self) -> bool:
        """Whether there is another way to look for a plan that holds."""
        return self._learn_latency() or self._learn_test() or self._widens()

    def _leaves_room(self, best: Tried) -> bool:
        """Whether cheaper plans broke on the test data, and others between those and the best may hold."""
        cap, rank = self._kl_cap(), self._rank(best)
        if cap is None or self._objective is Quantity.KL:
            return False
        is_next_above = best.measurement.kl < cap * self.cap_factor * TIGHTENING
        return is_next_above and any(
            one.test is not None and self._rank(one) < rank for one in self.bench.tried.values()
        )

    def _learn_test(self) -> bool:
        """Draw the bound on KL in where plans that hold here do not hold on the test data."""
        broken = any(one.test is not None and self._holds(one) for one in self.bench.tried.values())
        if not broken or self.cap_factor < TIGHTENING**4:
            return False
        self.cap_factor *= TIGHTENING
        return True

    @property
    def _objective(self) -> Quantity:
        """Bytes where accuracy is the only bound, KL elsewhere."""
        costly = set(self._bounds(with_drop=False)) - {Quantity.SHARE_ABOVE_8}
        return Quantity.KL if costly else Quantity.WEIGHT_BYTES

    # -- bounds ----------------------------------------------------------------------------------------

    def _bounds(self, *, with_drop: bool = True) -> dict[Quantity, float]:
        """Bounds on paper."""
        budget, ratio = self.budget, self.budget.max_latency_ratio
        size = budget.max_size_bytes
        cap = self._kl_cap() if with_drop else None
        bounds = {
            Quantity.AVERAGE_BITS: budget.average_bits,
            Quantity.WEIGHT_BYTES: budget.max_weight_bytes,
            Quantity.FILE_BYTES: None if size is None else size - self.size_excess,
            Quantity.LATENCY_RATIO: None if ratio is None else ratio * self.latency_factor,
            Quantity.SHARE_ABOVE_8: budget.max_share_above_8,
            # What a solver adds up is not yet the KL it means.
            Quantity.KL: None if cap is None else self.bench.predictor().linear_of(cap * self.cap_factor),
        }
        return {quantity: float(bound) for quantity, bound in bounds.items() if bound is not None}

    def _kl_cap(self) -> float | None:
        """The largest KL that keeps the drop, with room to spare unless test data has the last word."""
        drop = self.budget.max_drop
        if drop is None:
            return None
        law = self.bench.law()
        # Half a sample cannot be counted, and a drop of exactly nothing would leave FP32 alone.
        drop = max(drop / 100, 0.5 / self.bench.judge.base.samples)
        return law.largest_kl(drop, BOLD if self.bench.has_test_data else SAFE) if law else None

    def _drop_at(self, kl: float) -> float:
        law = self.bench.law()
        return 100 * law.drop(kl, SAFE) if law is not None else math.nan

    def _holds(self, one: Tried) -> bool:
        """Whether a measured plan keeps every bound, latency and test data apart."""
        return self._keeps_costs(one) and self._keeps_drop(one)

    def _keeps_costs(self, one: Tried) -> bool:
        space, budget = self.bench.space, self.budget
        if not space.keeps_pins(one.schemes) or not math.isfinite(one.measurement.kl):
            return False
        totals = space.totals(one.schemes, KlModel())
        checks = (
            (totals[Quantity.AVERAGE_BITS], budget.average_bits),
            (totals[Quantity.WEIGHT_BYTES], budget.max_weight_bytes),
            (totals[Quantity.SHARE_ABOVE_8], budget.max_share_above_8),
            (one.size_bytes, budget.max_size_bytes),
        )
        return all(bound is None or value <= bound * (1 + 1e-9) + 1e-12 for value, bound in checks)

    def _keeps_drop(self, one: Tried) -> bool:
        """Whether the drop is kept twice: as counted on the samples, and as the measured KL implies.

        A few hundred samples know an accuracy to a point or so: a plan may look harmless by luck.
        """
        limit, cap = self.budget.max_drop, self._kl_cap()
        if limit is None:
            return True
        counted = one.measurement.drop
        if counted is not None and counted.value > limit + 1e-9:
            return False
        return cap is None or one.measurement.kl <= cap * (1 + 1e-9)

    # -- choosing --------------------------------------------------------------------------------------

    def _best(self) -> Tried | None:
        """The best plan that holds in every respect; those in front of it were found not to."""
        holding = sorted((one for one in self.bench.tried.values() if self._holds(one)), key=self._rank)
        for index, one in enumerate(holding):
            if self.budget.max_latency_ratio is not None and one.latency_ratio is None:
                untimed = [other for other in holding[index:] if other.latency_ratio is None]
                self.bench.time(untimed[:TIMED_TOGETHER])
            if self._keeps_latency(one) and self._keeps_drop_on_test(one):
                return one
        return None

    def _rank(self, one: Tried) -> tuple[float, float]:
        if self._objective is Quantity.KL:
            return one.measurement.kl, one.size_bytes
        weight_bytes = self.bench.space.totals(one.schemes, KlModel())[Quantity.WEIGHT_BYTES]
        return weight_bytes, one.measurement.kl

    def _keeps_latency(self, one: Tried) -> bool:
        ratio = self.budget.max_latency_ratio
        return ratio is None or (one.latency_ratio is not None and one.latency_ratio <= ratio)

    def _keeps_drop_on_test(self, one: Tried) -> bool:
        drop = self.bench.judge_on_test(one).drop
        return self.budget.max_drop is None or drop is None or drop.value <= self.budget.max_drop + 1e-9

    def _learn_latency(self) -> bool:
        """Draw the latency bound in by what the nearest plan missed it by."""
        ratio = self.budget.max_latency_ratio
        timed = [one.latency_ratio for one in self.bench.tried.values() if one.latency_ratio is not None]
        if ratio is None or not timed or min(timed) <= ratio or self.latency_rounds == LATENCY_ROUNDS:
            return False
        self.latency_rounds += 1
        self.latency_factor *= min(TIGHTENING, ratio / min(timed))
        return True

    def _nearest(self) -> InfeasibleBudgetError:
        """The bound measured plans break, and the nearest value among them."""
        plans: Sequence[Tried] = [one for one in self.bench.tried.values() if self._keeps_costs(one)]
        limit, ratio, size = self.budget.max_drop, self.budget.max_latency_ratio, self.budget.max_size_bytes
        if not plans and size is not None:
            smallest = min(one.size_bytes for one in self.bench.tried.values())
            return InfeasibleBudgetError(Quantity.FILE_BYTES, size, smallest)
        slow = [one.latency_ratio for one in plans if self._keeps_drop(one) and one.latency_ratio is not None]
        if ratio is not None and slow and min(slow) > ratio:
            return InfeasibleBudgetError(Quantity.LATENCY_RATIO, ratio, min(slow))
        drops = [self._worst_drop(one) for one in plans]
        return InfeasibleBudgetError(
            DROP, limit if limit is not None else 0.0, min(drops, default=float("nan"))
        )

    def _worst_drop(self, one: Tried) -> float:
        counted = self.bench.judge_on_test(one).drop
        return max(counted.value if counted else 0.0, self._drop_at(one.measurement.kl))


def _in_terms_of(problem: Problem, one: Tried) -> Allocation | None:
    """A measured plan as a choice of options; None where it is outside the problem."""
    choice = []
    for unit in problem.units:
        schemes = [option.scheme for option in unit.options]
        own = {one.schemes[name] for name in unit.layers}
        if len(own) != 1 or next(iter(own)) not in schemes:
            return None
        choice.append(schemes.index(next(iter(own))))
    return allocation_of(problem, choice)


def _checked(budget: SearchBudget) -> SearchBudget:
    """The budget with its default, refused where a bound makes no sense.

    Raises:
        RecipeError: a bound is negative, not a number, or out of its range.
    """
    limits = {
        "accuracy drop": (budget.max_drop, 0.0, 100.0),
        "file bytes": (budget.max_size_bytes, 1, float("inf")),
        "packed weight bytes": (budget.max_weight_bytes, 1, float("inf")),
        "latency ratio": (budget.max_latency_ratio, 1e-6, float("inf")),
        "average bits": (budget.average_bits, 1.0, 32.0),
        "share of layers above 8 bits": (budget.max_share_above_8, 0.0, 1.0),
    }
    for name, (value, low, high) in limits.items():
        if value is not None and not low <= value <= high:
            ends = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
            raise RecipeError(f"the bound on {name} cannot be {value}", hint=f"Give {ends}")
    if budget.max_latency_ratio is not None:
        budget = replace(budget, max_latency_ratio=min(budget.max_latency_ratio, 1.0))
    bounds = (v for n, (v, _, _) in limits.items() if not n.startswith("share"))
    if all(value is None for value in bounds):
        budget = replace(budget, max_drop=DEFAULT_DROP_POINTS)
    return budget
