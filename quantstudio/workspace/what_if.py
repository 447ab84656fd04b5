"""Predictions of the window: tables arranged once, corrected by what was measured in this project."""

from __future__ import annotations

from dataclasses import replace

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
from quantstudio.core.predict.table import Prediction, PredictionTable, fit_prediction
from quantstudio.core.recipe import Recipe
from quantstudio.workspace.state import SessionState


class WhatIf:
    """Table and model of the present state, made anew only where something they hold has changed."""

    def __init__(self) -> None:
        self._table: PredictionTable | None = None
        self._table_of: tuple[object, ...] = ()
        self._model = PredictionModel()
        self._model_of: tuple[object, ...] = ()
        self._revision = 0

    def forget(self) -> None:
        """Sensitivity changed in place: arrange it anew when it is next asked for."""
        self._revision += 1

    def predict(self, state: SessionState, recipe: Recipe) -> Prediction | None:
        """What a recipe will cost; None without a model."""
        if state.model is None:
            return None
        table = self._tables(state, state.model)
        return table.predict(recipe, self._corrected(state, table))

    def points(self, state: SessionState, figure: Figure) -> tuple[PredictionPoint, ...]:
        """Every measured variant against what is predicted of it from the others."""
        if state.model is None:
            return ()
        table = self._tables(state, state.model)
        return prediction_points(table, _plans(state), _judged(state), figure)

    def _tables(self, state: SessionState, model: ModelSummary) -> PredictionTable:
        run = state.sensitivity_run
        classes = run.classes if run is not None else ()
        # The objects themselves are kept, so that a new one at an old address is not taken for it.
        key = (model, state.costs, state.curve, state.sensitivity, classes, self._revision)
        if self._table is None or not _same(key, self._table_of):
            self._table_of = key
            self._table = PredictionTable(
                model.layers,
                costs=state.costs,
                sensitivity=state.sensitivity,
                curve=state.curve,
                classes=classes,
            )
        return self._table

    def _corrected(self, state: SessionState, table: PredictionTable) -> PredictionModel:
        key = (table, state.base_result, state.search, *(one.result for one in state.built))
        if not _same(key, self._model_of):
            self._model_of = key
            plans = _plans(state)
            self._model = fit_prediction(table, [*plans, *_searched(state, plans)], _judged(state))
        return self._model


def _same(left: tuple[object, ...], right: tuple[object, ...]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def _judged(state: SessionState) -> Judged | None:
    return judged_base(state.base_result) if state.base_result is not None else None


def _plans(state: SessionState) -> list[MeasuredPlan]:
    base = state.base_result
    if base is None:
        return []
    found = [
        measured_plan(one.name, one.recipe, one.result, base) for one in state.built if one.result is not None
    ]
    timed_on = state.costs.provider if state.costs is not None else ""
    return [p if p.provider == timed_on else replace(p, latency_ratio=None) for p in found]


def _searched(state: SessionState, known: list[MeasuredPlan]) -> list[MeasuredPlan]:
    """Plans that the last search measured and nobody measured since."""
    if state.search is None:
        return []
    labelled = state.search.metric_name == "top1"
    tried = [searched_plan(point, labelled=labelled) for point in (*state.search.tried, state.search.chosen)]
    by_recipe = {plan.recipe: plan for plan in tried if plan is not None}
    return [plan for recipe, plan in by_recipe.items() if all(recipe != one.recipe for one in known)]
