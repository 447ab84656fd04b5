"""The search: solve, build, measure, correct the prediction, solve again, until the best plan is measured."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

from quantstudio.core.errors import RecipeError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.precision import Precision, WeightFormat, searched_formats
from quantstudio.core.predict.kl_model import ACTIVATIONS, KlModel
from quantstudio.core.results import BuildResult
from quantstudio.core.search_results import SearchFront, SearchResult
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
from quantstudio.engine.search.budgets import checked, with_default
from quantstudio.engine.search.frontier import pareto_front
from quantstudio.engine.search.options import worth_a_run
from quantstudio.engine.search.points import front_point, tried_point
from quantstudio.engine.search.request import Known, SearchRequest, Tried
from quantstudio.engine.search.shipping import Shipping
from quantstudio.engine.search.verdicts import DROP, Verdicts
from quantstudio.engine.search.workbench import MAX_BUILDS, Workbench

# Floors on the bits of a plan that are tried besides none: the estimate is least sure of the coarsest grids.
BIT_FLOORS = (1, 3, 4)
# A bound on KL that measured plans show to be too generous shrinks by this.
TIGHTENING = 0.7
# A plan that is recovered may lose this many times less than is expected of it: it is measured early, and
# says how far layers may go, whether it holds or not.
DOUBTED = 10.0
# A plan is recovered only where its file is smaller than that of the smallest that holds by this.
WORTH_RECOVERING = 0.95
# Single-precision plans beyond this predicted KL are ruined and not worth a run.
RUINED_KL = 2.0
# Plans timed in one interleaved comparison.
TIMED_TOGETHER = 3
# Times the bound on latency is drawn in before it counts as out of reach.
LATENCY_ROUNDS = 3
# A plan predicted to take this much more than the bound may still keep it: it is timed.
LATENCY_DOUBT = 1.3
# A plan whose time nobody bounded is called slow beyond this; timings differ by some per cent.
NOTED_RATIO = 1.1
# Noise over signal of outputs that are no class scores, where nothing is bounded: 20 dB.
LARGEST_NOISE = 1e-2
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
    the one with the smallest file, of equally small ones the fastest. Every plan that can be returned was
    built and measured, the single-precision integer plans that keep the bounds among them, so the chosen one
    is never worse than those; where it wins nothing over INT8 everywhere in what ships, that is taken. Plans
    are ranked by measured KL: accuracy moves in steps of one sample. No class may lose more than its bound,
    beyond what its samples lose by chance.

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
    budget = with_default(checked(asked.budget))
    is_default = budget != asked.budget
    asked = replace(asked, budget=budget)
    bench = Workbench(graph, dataset, asked, known or Known(), test, reporter, token)
    loop = _Loop(bench, is_default=is_default)
    try:
        chosen = loop.chosen()
    except InfeasibleBudgetError:
        loop.tell_front()
        raise
    if chosen.latency_ratio is None and asked.time_chosen:
        bench.time([chosen])
    ratio = chosen.latency_ratio
    if ratio is not None and ratio > NOTED_RATIO and asked.budget.max_latency_ratio is None:
        loop.notes.append("The chosen plan is slower than FP32; bound the latency too.")
    loop.say_what_is_won(chosen)
    made, observed = bench.prepared(chosen.recipe)
    build = build_variant(made.graph, observed, made.plan, Path(output), reporter=reporter, cancel=token)
    return _result(loop, chosen, replace(build, steps=made.steps), dataset, started)


def _result(loop: _Loop, chosen: Tried, build: BuildResult, dataset: Dataset, started: float) -> SearchResult:
    bench = loop.bench
    model = bench.model()
    base = bench.base.metric
    activations = bench.parts(chosen.schemes).get(ACTIVATIONS, 0.0)
    front = loop.front(model.kl, chosen)
    return SearchResult(
        front=tuple(front_point(bench, model, plan.schemes) for plan in front),
        chosen=tried_point(bench, model, chosen),
        tried=tuple(
            tried_point(bench, model, one)
            for one in sorted(bench.tried.values(), key=lambda one: not one.name)
        ),
        budget=loop.budget,
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
        build=build,
        data_digest=dataset.digest,
        notes=tuple(loop.notes),
        created=time.time(),
    )


class _Loop:
    """Proposes plans, learns from what they measure, and chooses."""

    def __init__(self, bench: Workbench, *, is_default: bool) -> None:
        self.bench = bench
        self.shipping = Shipping(bench)
        self.budget = bench.request.budget
        self.notes = bench.notes
        self.floats = (self.budget.max_share_above_8 or 0.0) > 0
        # What measured plans taught about the bounds: parts of them that may be used on paper.
        self.cap_factor = 1.0
        self.latency_factor = 1.0
        self.latency_rounds = 0
        self.size_excess = 0.0
        # What holds in the place of points where outputs are no class scores.
        largest_noise: float | None = None
        if is_default and not bench.judge.metric_name:
            self.budget = replace(self.budget, max_drop=None)
            largest_noise = LARGEST_NOISE
            self.notes.append(
                "Outputs are no class scores: plans keep noise below a hundredth of the signal (20 dB)."
            )
        elif self.budget.max_drop is not None and not bench.judge.metric_name:
            raise RecipeError(
                "an accuracy drop is bounded, but the model's output is not a class score",
                hint="Bound the size, the average bits or the latency instead",
            )
        self.verdicts = Verdicts(bench, self.budget, largest_noise)

    def chosen(self) -> Tried:
        """The best measured plan, once the solver proposes nothing that is not measured.

        Raises:
            InfeasibleBudgetError: no measured plan keeps the bounds.
        """
        self._measure_uniform()
        if self.bench.request.ships:
            self.shipping.measure_candidates()
        self._anchor_latency()
        while True:
            self._explore()
            best = self._best()
            if best is None:
                if (self.bench.is_spent or not self._moves_on()) and not self._stops_recovering():
                    raise self.verdicts.nearest()
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
        for weights, plan in self._anchors() if self.bench.recovering else self._uniform_plans():
            predictor = self.bench.predictor()
            linear = predictor.linear(self.bench.parts(plan.schemes))
            fits = keeps(plan, bounds) and predictor.kl_of(linear) <= RUINED_KL
            if weights == Precision.INT8 or fits:
                self.bench.measured(plan.schemes, f"{weights.label} everywhere")

    def _uniform_plans(self) -> list[tuple[WeightFormat, Allocation]]:
        """Plans of one format each that are worth a run, most bits first."""
        problem = self.bench.space.problem(self.bench.predictor(), floats=False, is_whole=True)
        plans = [(row, uniform_allocation(problem, row)) for row in searched_formats()]
        known = [(row, plan) for row, plan in plans if plan is not None]
        worth = {plan.choice for plan in worth_a_run([plan for _, plan in known])}
        return [(row, plan) for row, plan in known if plan.choice in worth or row == Precision.INT8]

    def _anchors(self) -> list[tuple[WeightFormat, Allocation]]:
        """INT8, and the fewest bits that may hold recovered; what loses least where no loss is bounded."""
        plans, predictor, cap = self._uniform_plans(), self.bench.predictor(), self.verdicts.kl_cap()
        bounds = self._bounds(with_drop=False)
        few = [
            (row, plan)
            for row, plan in plans
            if row != Precision.INT8
            and keeps(plan, bounds)
            and (cap is None or predictor.kl_of(plan.totals[Quantity.KL]) <= DOUBTED * cap)
        ]
        if cap is None:
            few.sort(key=lambda one: -one[1].totals[Quantity.KL])
        return [*((row, plan) for row, plan in plans if row == Precision.INT8), *few[-1:]]

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
            new = [plan for plan in self._proposals() if self._is_worth_measuring(plan)]
            if not new or self.bench.is_spent:
                return
            for plan in new:
                if not self.bench.is_spent:
                    self._learn(plan, self.bench.measured(plan.schemes))

    def _is_worth_measuring(self, plan: Allocation) -> bool:
        """Whether a plan is new, and where it is to be recovered wins more than that costs."""
        if self.bench.is_known(plan.schemes):
            return False
        if self._objective is not Quantity.FILE_BYTES or not self.bench.is_recovered(plan.schemes):
            return True
        holding = [one.size_bytes for one in self.bench.tried.values() if self.verdicts.holds(one)]
        return plan.totals[Quantity.FILE_BYTES] < WORTH_RECOVERING * min(holding, default=math.inf)

    def _learn(self, plan: Allocation, one: Tried) -> None:
        """Draw bounds in where a plan keeps them on paper and not in fact."""
        cap = self.verdicts.kl_cap()
        if cap is not None and not self.verdicts.keeps_drop(one):
            believed = self.bench.table.known_kl(one.plan, self.bench.model())
            if believed <= cap * self.cap_factor:
                self.cap_factor *= TIGHTENING
        self.size_excess = max(self.size_excess, one.size_bytes - plan.totals[Quantity.FILE_BYTES])

    def _proposals(self) -> list[Allocation]:
        """The best plans under the present prediction, with different floors on the bits."""
        predictor = self.bench.predictor()
        found: list[Allocation] = []
        for floor in BIT_FLOORS[: 1 if self.bench.recovering else None]:
            self.bench.cancel.raise_if_set()
            problem = self.bench.space.problem(predictor, floats=self.floats, fewest_bits=floor)
            bounds = self._doubted(problem, self._bounds())
            plan = alternative(problem, bounds, minimise=self._objective)
            if plan is not None and all(plan.schemes != other.schemes for other in found):
                found.append(plan)
            elif plan is None and floor == BIT_FLOORS[0]:
                if any(self.verdicts.holds(one) for one in self.bench.tried.values()):
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
                self.verdicts.drop_at(self.bench.predictor().kl_of(error.nearest)),
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

    def _stops_recovering(self) -> bool:
        """Go on with plans as they are rounded, where none that was recovered holds."""
        if not self.bench.recovering:
            return False
        self.bench.recovering = ()
        self.cap_factor = 1.0
        self.notes.append("No recovered plan keeps the bounds: the others are measured as they are rounded.")
        self._measure_uniform()
        return True

    def _leaves_room(self, best: Tried) -> bool:
        """Whether cheaper plans broke on the test data, and others between those and the best may hold."""
        cap, rank = self.verdicts.kl_cap(), self._rank(best)
        if cap is None or self._objective is Quantity.KL:
            return False
        is_next_above = best.measurement.kl < cap * self.cap_factor * TIGHTENING
        return is_next_above and any(
            (one.test is not None or one.by_class is not None) and self._rank(one) < rank
            for one in self.bench.tried.values()
        )

    def _learn_test(self) -> bool:
        """Draw the bound on KL in where plans that hold here do not hold on other samples, or in a class."""
        tried = self.bench.tried.values()
        broken = any(
            (one.test is not None or one.by_class is not None) and self.verdicts.holds(one) for one in tried
        )
        if not broken or self.cap_factor < TIGHTENING**4:
            return False
        self.cap_factor *= TIGHTENING
        return True

    @property
    def _objective(self) -> Quantity:
        """Bytes where accuracy is the only bound, KL elsewhere."""
        costly = set(self._bounds(with_drop=False)) - {Quantity.SHARE_ABOVE_8}
        if costly:
            return Quantity.KL
        return Quantity.FILE_BYTES

    # -- bounds ----------------------------------------------------------------------------------------

    def _bounds(self, *, with_drop: bool = True) -> dict[Quantity, float]:
        """Bounds on paper."""
        budget, ratio = self.budget, self.budget.max_latency_ratio
        size = budget.max_size_bytes
        cap = self.verdicts.kl_cap() if with_drop else None
        bounds = {
            Quantity.AVERAGE_BITS: budget.average_bits,
            Quantity.FILE_BYTES: None if size is None else size - self.size_excess,
            Quantity.LATENCY_RATIO: None if ratio is None else ratio * self.latency_factor,
            Quantity.SHARE_ABOVE_8: budget.max_share_above_8,
            # What a solver adds up is not yet the KL it means.
            Quantity.KL: None if cap is None else self.bench.predictor().linear_of(cap * self.cap_factor),
        }
        return {quantity: float(bound) for quantity, bound in bounds.items() if bound is not None}

    # -- choosing --------------------------------------------------------------------------------------

    def _best(self) -> Tried | None:
        """The best plan that holds in every respect; those in front of it were found not to."""
        holding = [one for one in self.bench.tried.values() if self.verdicts.holds(one)]
        if self._objective is Quantity.FILE_BYTES:
            holding = self.shipping.ordered(holding)
        else:
            holding.sort(key=self._rank)
        for index, one in enumerate(holding):
            if self.budget.max_latency_ratio is not None and one.latency_ratio is None:
                untimed = [other for other in holding[index:] if other.latency_ratio is None]
                self.bench.time(untimed[:TIMED_TOGETHER])
            if (
                self.verdicts.keeps_latency(one)
                and self.verdicts.keeps_drop_on_test(one)
                and self.verdicts.keeps_classes(one)
            ):
                return one
        return None

    def say_what_is_won(self, chosen: Tried) -> None:
        """Note what a choice wins over INT8 in what ships, and which class loses most."""
        broken = {
            one.recipe.digest: reason
            for one in self.bench.tried.values()
            if self.verdicts.keeps_costs(one) and (reason := self.verdicts.loss_reason(one))
        }
        self.notes += self.shipping.notes(chosen, broken)
        self.notes += filter(None, [self.verdicts.flattery(chosen)])
        worst = self.bench.judge_classes(chosen).worst if self.budget.class_drop is not None else None
        if worst is not None and worst.drop.value > 0:
            self.notes.append(self.verdicts.worst_class_note(worst))

    def _rank(self, one: Tried) -> tuple[float, float]:
        if self._objective is Quantity.KL:
            return one.measurement.kl, one.size_bytes
        return one.size_bytes, one.measurement.kl

    def _learn_latency(self) -> bool:
        """Draw the latency bound in by what the nearest plan missed it by."""
        ratio = self.budget.max_latency_ratio
        timed = [one.latency_ratio for one in self.bench.tried.values() if one.latency_ratio is not None]
        if ratio is None or not timed or min(timed) <= ratio or self.latency_rounds == LATENCY_ROUNDS:
            return False
        self.latency_rounds += 1
        self.latency_factor *= min(TIGHTENING, ratio / min(timed))
        return True


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
