"""Predictions of the window: tables arranged once, corrected by what was measured in this project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from quantstudio.core.costs import CostTable
from quantstudio.core.layers import ModelSummary
from quantstudio.core.predict.check import Figure, PredictionPoint, prediction_points
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
from quantstudio.core.results import AccuracyCurve, LayerSensitivity, VariantResult
from quantstudio.core.search_results import PlanPoint, SearchResult
from quantstudio.core.variants import Variant


@dataclass(frozen=True)
class Evidence:
    """What predictions are made from.

    Attributes:
        model: The model.
        costs: Bytes and times.
        curve: Accuracy against KL.
        sensitivity: By layer.
        revision: Another number for other contents of `sensitivity`, which grows in place.
        classes: Names of the classes in it.
        base: What was measured of the FP32 model.
        search: The last search.
        variants: Everything that was built, without the base.
    """

    model: ModelSummary
    costs: CostTable | None
    curve: AccuracyCurve | None
    sensitivity: Mapping[str, LayerSensitivity]
    revision: int
    classes: tuple[str, ...]
    base: VariantResult | None
    search: SearchResult | None
    variants: tuple[Variant, ...]


class WhatIf:
    """Table and model of the present evidence, made anew only where something they hold has changed."""

    def __init__(self) -> None:
        self._table: PredictionTable | None = None
        self._table_of: tuple[object, ...] = ()
        self._model = PredictionModel()
        self._model_of: tuple[object, ...] = ()
        self._plans: dict[int, tuple[PlanPoint, PlanPoint]] = {}
        self._plans_of: tuple[object, ...] = ()

    def predict(self, known: Evidence, recipe: Recipe) -> Prediction:
        """What a recipe will cost."""
        table = self._tables(known)
        return table.predict(recipe, self._corrected(known, table))

    def plan(self, known: Evidence, point: PlanPoint) -> PlanPoint:
        """A plan of a search as it is predicted now: the search knew fewer measured variants, or others."""
        if not known.sensitivity:
            return point
        table = self._tables(known)
        model = self._corrected(known, table)
        if not _same((table, model), self._plans_of):
            self._plans, self._plans_of = {}, (table, model)
        # The point is kept with its answer, so that a new one at its address is not taken for it.
        found = self._plans.get(id(point))
        if found is None:
            found = self._plans[id(point)] = (point, predicted_anew(point, table, model))
        return found[1]

    def points(self, known: Evidence, figure: Figure) -> tuple[PredictionPoint, ...]:
        """Every measured variant against what is predicted of it from the others."""
        return prediction_points(self._tables(known), _plans(known), _judged(known), figure)

    def _tables(self, known: Evidence) -> PredictionTable:
        # The objects themselves are kept, so that a new one at an old address is not taken for it.
        key = (known.model, known.costs, known.curve, known.classes, known.revision)
        if self._table is None or not _same(key, self._table_of):
            self._table_of = key
            self._table = PredictionTable(
                known.model.layers,
                costs=known.costs,
                sensitivity=known.sensitivity,
                curve=known.curve,
                classes=known.classes,
            )
        return self._table

    def _corrected(self, known: Evidence, table: PredictionTable) -> PredictionModel:
        key = (table, known.base, known.search, *(one.result for one in known.variants))
        if not _same(key, self._model_of):
            self._model_of = key
            plans = _plans(known)
            self._model = fit_prediction(table, [*plans, *_searched(known, plans)], _judged(known))
        return self._model


def _same(left: tuple[object, ...], right: tuple[object, ...]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def _judged(known: Evidence) -> Judged | None:
    return judged_base(known.base) if known.base is not None else None


def _plans(known: Evidence) -> list[MeasuredPlan]:
    base = known.base
    if base is None:
        return []
    found = [
        measured_plan(one.name, one.recipe, one.result, base)
        for one in known.variants
        if one.result is not None
    ]
    timed_on = known.costs.provider if known.costs is not None else ""
    return [p if p.provider == timed_on else replace(p, latency_ratio=None) for p in found]


def _searched(known: Evidence, measured: list[MeasuredPlan]) -> list[MeasuredPlan]:
    """Plans that the last search measured and nobody measured since."""
    if known.search is None:
        return []
    labelled = known.search.metric_name == "top1"
    tried = [searched_plan(point, labelled=labelled) for point in (*known.search.tried, known.search.chosen)]
    by_recipe = {plan.recipe: plan for plan in tried if plan is not None}
    return [plan for recipe, plan in by_recipe.items() if all(recipe != one.recipe for one in measured)]
