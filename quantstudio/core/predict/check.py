"""How far predictions are to be trusted: measured variants beside what was predicted without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from quantstudio.core.predict.accuracy_law import RATE, Z_OF_RATE
from quantstudio.core.predict.model import Judged, MeasuredPlan, PredictionModel
from quantstudio.core.predict.table import PredictionTable
from quantstudio.core.results import Interval


class Figure(StrEnum):
    """What can be checked against measurements."""

    KL = "kl"
    ACCURACY = "accuracy"
    WORST_CLASS = "worst class"
    SIZE = "size"
    LATENCY = "latency"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class PredictionPoint:
    """A measured variant beside what was predicted of it without having seen it.

    Attributes:
        name: Variant.
        predicted: Expected value: share, nats, bytes or milliseconds.
        low: Lower end of the interval; equal to `predicted` for figures without one.
        high: Upper end.
        measured: What came out.
    """

    name: str
    predicted: float
    low: float
    high: float
    measured: float

    @property
    def is_inside(self) -> bool:
        """Whether the interval holds what was measured."""
        return self.low <= self.measured <= self.high


@dataclass(frozen=True, slots=True)
class Trust:
    """How a figure's predictions did on measured variants.

    Attributes:
        plans: Variants.
        inside: Of these, how many the interval held.
        rate: Part it is meant to hold, 0 to 1.
        error: Mean absolute difference of predicted and measured, in the figure's unit.
    """

    plans: int
    inside: int
    rate: float
    error: float


def trust(points: Sequence[PredictionPoint]) -> Trust:
    """The sum of it."""
    errors = [abs(point.predicted - point.measured) for point in points]
    inside = sum(point.is_inside for point in points)
    return Trust(len(points), inside, RATE, float(np.mean(errors)) if errors else 0.0)


def prediction_points(
    table: PredictionTable,
    plans: Sequence[MeasuredPlan],
    judged: Judged | None = None,
    figure: Figure = Figure.ACCURACY,
) -> tuple[PredictionPoint, ...]:
    """Measured plans against what is predicted of each from all the others.

    Plans the figure was not measured of, or cannot be predicted for, are left out.
    """
    evidence = [(plan, table.raw(plan.plan)) for plan in plans]
    points = []
    for index, plan in enumerate(plans):
        model = table.fitted(evidence[:index] + evidence[index + 1 :], judged)
        point = plan_point(table, plan, model, figure)
        if point is not None:
            points.append(point)
    return tuple(points)


def plan_point(
    table: PredictionTable, plan: MeasuredPlan, model: PredictionModel, figure: Figure
) -> PredictionPoint | None:
    """A measured plan beside what a model predicts of it; None where either is not known."""
    found = table.predict(plan.plan, model)
    match figure:
        case Figure.KL:
            return _kl_point(table, plan, model, found.kl)
        case Figure.ACCURACY:
            return _interval_point(plan.name, found.accuracy, plan.accuracy)
        case Figure.WORST_CLASS:
            worst = found.worst_class
            rows = {row.label: row.variant for row in plan.classes}
            return _interval_point(plan.name, worst.accuracy, rows.get(worst.name)) if worst else None
        case Figure.SIZE:
            return _plain_point(plan.name, found.size_bytes, plan.size_bytes)
        case Figure.LATENCY:
            return _latency_point(table, plan, model, found.latency_ms)
        case Figure.MEMORY:
            return _plain_point(plan.name, found.memory_bytes, plan.memory_bytes)


def _interval_point(name: str, predicted: Interval | None, measured: float | None) -> PredictionPoint | None:
    if predicted is None or measured is None:
        return None
    return PredictionPoint(name, predicted.value, predicted.low, predicted.high, measured)


def _plain_point(name: str, predicted: float | None, measured: float | None) -> PredictionPoint | None:
    return (
        None
        if predicted is None or measured is None
        else PredictionPoint(name, predicted, predicted, predicted, measured)
    )


def _kl_point(
    table: PredictionTable, plan: MeasuredPlan, model: PredictionModel, kl: float | None
) -> PredictionPoint | None:
    parts = table.raw(plan.plan).parts
    if kl is None or parts is None or plan.kl is None or not np.isfinite(plan.kl):
        return None
    return _factor_point(plan.name, kl, model.expected_kl(table.raw(plan.plan))[1], plan.kl)


def _latency_point(
    table: PredictionTable, plan: MeasuredPlan, model: PredictionModel, latency_ms: float | None
) -> PredictionPoint | None:
    if latency_ms is None or plan.latency_ratio is None or not table.fp32_ms:
        return None
    deviation = model.latency_deviation(table.raw(plan.plan))
    return _factor_point(plan.name, latency_ms, deviation, plan.latency_ratio * table.measured_fp32_ms(model))


def _factor_point(name: str, predicted: float, deviation: float, measured: float) -> PredictionPoint:
    reach = float(np.exp(Z_OF_RATE * deviation))
    return PredictionPoint(name, predicted, predicted / reach, predicted * reach, measured)
