"""Plans of a search, made up: one per precision, a front between them, a chosen one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from quantstudio.core.layers import LayerInfo
from quantstudio.core.packing import plan_bits
from quantstudio.core.precision import STATIC_INT4, STATIC_INT8, LayerScheme, Precision
from quantstudio.core.recipe import Recipe, uniform_recipe
from quantstudio.core.results import BuildResult
from quantstudio.core.search_results import (
    ActivationFamily,
    PlanFigures,
    PlanPoint,
    SearchBudget,
    SearchFront,
    SearchResult,
)

SAMPLES = 512
BASE = 0.93


def plan(
    layers: Sequence[LayerInfo], recipe: Recipe, drop: float, *, is_measured: bool = False, name: str = ""
) -> PlanPoint:
    figures = PlanFigures(
        kl=0.001 + drop / 100,
        metric=BASE - drop / 100,
        metric_low=BASE - drop / 100 - 0.02,
        metric_high=BASE - drop / 100 + 0.02,
        drop=drop,
        size_bytes=1_300_000,
        average_bits=plan_bits(layers, recipe.schemes(layers)).average,
        latency_ms=6.9,
        latency_ratio=0.375,
    )
    measured = replace(figures, samples=SAMPLES, drop=drop + 0.01) if is_measured else None
    return PlanPoint(1_300_000, 6.9, BASE, figures, recipe, measured, name)


def at_four_bits(layers: Sequence[LayerInfo], count: int) -> Recipe:
    """INT8 with so many layers at INT4."""
    names = [layer.name for layer in layers if "static-int4" in layer.schemes]
    return uniform_recipe("static-int8").assign(names[:count], STATIC_INT4)


def front(layers: Sequence[LayerInfo], *, points: int = 3) -> SearchFront:
    two_bits = LayerScheme(Precision.INT2, STATIC_INT8.activations)
    mixed = [plan(layers, at_four_bits(layers, 2 + i), 0.1 + 0.1 * i) for i in range(points)]
    return SearchFront(
        front=tuple(reversed(mixed)),
        tried=(
            plan(layers, uniform_recipe("static-int8"), 0.0, is_measured=True, name="INT8 everywhere"),
            plan(layers, uniform_recipe(two_bits), 40.0, is_measured=True, name="INT2 everywhere"),
        ),
        metric_name="top1",
        base_metric=BASE,
        samples=SAMPLES,
    )


def result(layers: Sequence[LayerInfo], output: str, budget: SearchBudget | None = None) -> SearchResult:
    known = front(layers)
    chosen = plan(layers, at_four_bits(layers, 3), 0.2, is_measured=True)
    return SearchResult(
        front=tuple(chosen if p.recipe == chosen.recipe else p for p in known.front),
        chosen=chosen,
        tried=(*known.tried, chosen),
        budget=budget or SearchBudget(max_drop=0.5),
        family=ActivationFamily.STATIC,
        groups=(),
        metric_name="top1",
        samples=SAMPLES,
        base_metric=BASE,
        scale_by_precision={"int4": 1.1},
        base_kl=0.0004,
        builds=3,
        seconds=1.5,
        timing_seconds=0.5,
        build=BuildResult(
            output, "d" * 64, f"variant {chosen.recipe.digest[:8]}", chosen.recipe.digest, 4, 0.1, ()
        ),
    )


def budget_of(params: Mapping[str, object]) -> SearchBudget:
    from quantstudio.core.codec import from_json

    return from_json(SearchBudget, params["budget"])
