"""Predictions of the window: tables arranged once, corrected by what was measured in this project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from quantstudio.core.costs import PricedNetwork
from quantstudio.core.effective_plan import EffectivePlan, LayerList, fitting
from quantstudio.core.predict.check import Figure, PredictionPoint, prediction_points
from quantstudio.core.predict.clip_loss import Distributions
from quantstudio.core.predict.losses import PlanLosses, plan_losses
from quantstudio.core.predict.model import (
    Judged,
    MeasuredPlan,
    PredictionModel,
    judged_base,
    measured_plan,
    searched_plan,
)
from quantstudio.core.predict.plans import predicted_anew
from quantstudio.core.predict.table import Prediction, PredictionTable, fit_prediction
from quantstudio.core.recipe import Recipe
from quantstudio.core.search_results import PlanPoint
from quantstudio.core.statistics import Statistics, WeightStatistics
from quantstudio.core.target import target_or_default
from quantstudio.workspace.evidence import Evidence
from quantstudio.workspace.resolved import GroundKey
from quantstudio.workspace.search_terms import DEFAULT_DROP_POINTS

# Plans side by side rarely begin with more different steps than these.
MAX_GROUNDS = 8
MAX_PLANS = 1000


@dataclass
class _Made:
    """Table and model of one ground, with what they were made from.

    The objects themselves are kept, so that a new one at an old address is not taken for it.
    """

    table: PredictionTable
    table_of: tuple[object, ...]
    weights: int
    model: PredictionModel = field(default_factory=PredictionModel)
    model_of: tuple[object, ...] = ()
    plans: dict[int, tuple[PlanPoint, PlanPoint]] = field(default_factory=dict)
    plans_of: tuple[object, ...] = ()
    losses: tuple[EffectivePlan, PredictionModel, PlanLosses | None] | None = None


class WhatIf:
    """Tables and models of the present evidence, made anew only where something they hold has changed.

    Args:
        plan_of: What a recipe comes to; None where it does not fit the model.
        weights: Weight statistics of the opened model, which grow while they are computed.
        activations: Activation statistics of it; None before they are there.
    """

    def __init__(
        self,
        plan_of: Callable[[Recipe], EffectivePlan | None],
        weights: Callable[[], Mapping[str, WeightStatistics]],
        activations: Callable[[], Statistics | None],
    ) -> None:
        self._plan_of, self._weights, self._activations = plan_of, weights, activations
        self._made: dict[GroundKey, _Made] = {}
        # Plans for the layers that steps left.
        self._priced: tuple[PricedNetwork, LayerList] | None = None
        self._plans: dict[int, tuple[EffectivePlan, EffectivePlan]] = {}

    def predict(self, known: Evidence, plan: EffectivePlan) -> Prediction:
        """What a plan will cost."""
        made = self._corrected(known)
        return made.table.predict(self._on_priced(known, plan), made.model)

    def losses(self, known: Evidence, plan: EffectivePlan) -> PlanLosses | None:
        """What every layer takes of what a plan is predicted to lose; None where nobody knows that."""
        made = self._corrected(known)
        if made.losses is None or made.losses[0] is not plan or made.losses[1] is not made.model:
            priced = self._on_priced(known, plan)
            found = plan_losses(made.table, priced, made.model, DEFAULT_DROP_POINTS)
            made.losses = (plan, made.model, found)
        return made.losses[2]

    def plans(
        self, points: Sequence[PlanPoint], evidence_of: Callable[[Recipe], Evidence | None]
    ) -> tuple[PlanPoint, ...]:
        """Plans of a search as they are predicted now.

        Args:
            points: The plans.
            evidence_of: What predictions of a recipe are made from; asked once for recipes with like steps.
        """
        known: dict[object, Evidence | None] = {}
        found = []
        for point in points:
            recipe = point.recipe
            key = (recipe.steps, recipe.seed, recipe.target, recipe.calibration.samples)
            if key not in known:
                known[key] = evidence_of(recipe)
            evidence = known[key]
            found.append(point if evidence is None else self.plan(evidence, point))
        return tuple(found)

    def plan(self, known: Evidence, point: PlanPoint) -> PlanPoint:
        """A plan of a search as it is predicted now: the search knew fewer measured variants, or others."""
        plan = self._plan_of(point.recipe) if known.sensitivity else None
        if plan is None:
            return point
        made = self._corrected(known)
        if not _same((made.table, made.model), made.plans_of):
            made.plans, made.plans_of = {}, (made.table, made.model)
        # The point is kept with its answer, so that a new one at its address is not taken for it.
        found = made.plans.get(id(point))
        if found is None:
            anew = predicted_anew(point, self._on_priced(known, plan), made.table, made.model)
            found = made.plans[id(point)] = (point, anew)
        return found[1]

    def points(self, known: Evidence, figure: Figure | None) -> tuple[PredictionPoint, ...]:
        """Every measured variant against what is predicted of it from the others; of accuracy by default."""
        table, figure = self._tables(known).table, figure or Figure.ACCURACY
        return prediction_points(table, self._measured(known), _judged(known), figure)

    def _tables(self, known: Evidence) -> _Made:
        # Steps make other weights and activations; of those nobody keeps histograms.
        weights = self._weights() if not known.ground.steps else {}
        activations = self._activations() if not known.ground.steps else None
        key = (
            known.model,
            known.costs,
            known.curve,
            known.classes,
            known.revision,
            activations,
            len(weights),
        )
        made = self._made.get(known.ground.key)
        if made is None or made.weights != len(weights) or not _same(key, made.table_of):
            network = known.costs.network if known.costs is not None else None
            table = PredictionTable(
                known.model.layers if network is None else network.layers,
                costs=known.costs,
                sensitivity=known.sensitivity,
                curve=known.curve,
                classes=known.classes,
                steps=known.ground.steps,
                changing=known.ground.changing,
                distributions=Distributions(weights, activations.tensors if activations else {}),
                edges=known.model.edges if network is None else network.edges,
                weight_bits=target_or_default(known.ground.target).weight_bits,
            )
            if len(self._made) >= MAX_GROUNDS:
                self._made.clear()
            made = self._made[known.ground.key] = _Made(table, key, len(weights))
        return made

    def _corrected(self, known: Evidence) -> _Made:
        made = self._tables(known)
        key = (known.base, known.search, *(one.result for one in known.variants))
        if not _same(key, made.model_of):
            made.model_of = key
            plans = self._measured(known)
            made.model = fit_prediction(made.table, [*plans, *self._searched(known, plans)], _judged(known))
        return made

    def _own_plan(self, known: Evidence, recipe: Recipe) -> EffectivePlan | None:
        """What a recipe comes to; None where other steps or another target make it tell nothing here.

        Kernels that saturate, or integers that reach less far, lose what others do not.
        """
        plan = self._plan_of(recipe)
        if plan is None or plan.target != known.ground.target:
            return None
        is_own = plan.steps == (*known.ground.steps, *known.ground.later)
        return self._on_priced(known, plan) if is_own else None

    def _on_priced(self, known: Evidence, plan: EffectivePlan) -> EffectivePlan:
        """What a plan comes to for the layers that steps left, where they left others than were opened."""
        network = known.costs.network if known.costs is not None else None
        if network is None:
            return plan
        if self._priced is None or self._priced[0] is not network:
            self._priced = (network, LayerList(network.layers))
            self._plans.clear()
        # The plan is kept with its answer, so that a new one at its address is not taken for it.
        found = self._plans.get(id(plan))
        if found is None or found[0] is not plan:
            if len(self._plans) > MAX_PLANS:
                self._plans.clear()
            recipe = replace(plan.recipe, steps=plan.steps)
            found = self._plans[id(plan)] = (plan, fitting(recipe, self._priced[1]) or plan)
        return found[1]

    def _measured(self, known: Evidence) -> list[MeasuredPlan]:
        """Measured variants that have the same steps: what others lost is no guide."""
        base = known.base
        if base is None:
            return []
        found = [
            measured_plan(one.name, plan, one.result, base)
            for one in known.variants
            if one.result is not None and (plan := self._own_plan(known, one.recipe)) is not None
        ]
        timed_on = known.costs.provider if known.costs is not None else ""
        return [p if p.provider == timed_on else replace(p, latency_ratio=None) for p in found]

    def _searched(self, known: Evidence, measured: list[MeasuredPlan]) -> list[MeasuredPlan]:
        """Plans that the last search measured and nobody measured since."""
        if known.search is None:
            return []
        labelled = known.search.metric_name == "top1"
        by_plan: dict[EffectivePlan, MeasuredPlan] = {}
        for point in (*known.search.tried, known.search.chosen):
            plan = self._own_plan(known, point.recipe)
            found = searched_plan(point, plan, labelled=labelled) if plan is not None else None
            if found is not None:
                by_plan[found.plan] = found
        return [found for plan, found in by_plan.items() if all(plan != one.plan for one in measured)]


def _same(left: tuple[object, ...], right: tuple[object, ...]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def _judged(known: Evidence) -> Judged | None:
    return judged_base(known.base) if known.base is not None else None
