"""How much each layer suffers in each precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import psutil

from quantstudio.core.errors import MeasureError, RecipeError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.figures import size
from quantstudio.core.precision import DEFAULT_PRECISIONS, DEFAULT_REFERENCE
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import SensitivityResult
from quantstudio.engine.analysis.store import default_store
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.mapped import holds_mapped
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.pipeline.runner import StepInputs, prepare_before
from quantstudio.engine.tasks.inputs import (
    DEFAULT_SAMPLES,
    calibrated_ranges,
    dataset_of,
    statistics_of,
    value_of,
)

# Weights, what they are replaced by, and gradients.
_COPIES = 3


def sensitivity(
    *,
    graph_path: str,
    data: Mapping[str, Any],
    method: str = "auto",
    samples: int = DEFAULT_SAMPLES,
    precisions: Sequence[str] = DEFAULT_PRECISIONS,
    reference: str = DEFAULT_REFERENCE,
    layers: Sequence[str] | None = None,
    top: int | None = None,
    all_but: bool = False,
    accumulated: bool = False,
    statistics: str = "",
    calibrated: bool = False,
    recipe: Mapping[str, Any] | None = None,
    device: str = "cpu",
    fresh: bool = False,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> SensitivityResult:
    """Sensitivity of every layer; each is told as soon as it is found.

    What is found is kept in the cache folder as it comes, and what is there is not computed again: a job that
    was cancelled or killed goes on where it was, and more precisions cost only themselves.

    `method` is "fisher" (one pass, predicted), "exact" (one layer at a time, measured) or "auto" (fisher,
    which itself replays exactly what has no gradient). `device` is a torch device for an estimate, an
    execution provider for a measurement; see `devices`. A measurement, but not an estimate, can be restricted
    to `layers` or to the `top` of the estimate, and extended by `all_but` (every layer but this one
    quantized) and `accumulated` (error of a layer's output with all of them quantized). `fresh` neither reads
    nor writes what is kept. Names of precisions: see `engine.analysis.precisions`.

    Activation ranges are those of `statistics` of the model as it was opened; with `calibrated` they come
    from the same samples, collected once and kept; with neither they are those the samples happen to have.
    What is analyzed is the graph behind the steps of `recipe` that come before its precisions.

    Raises:
        RecipeError: the method, a precision or a step is unknown, or an estimate was asked for part of the
            layers.
    """
    from quantstudio.engine.analysis.sensitivity import exact_sensitivity, fisher_sensitivity  # imports torch

    if method not in ("fisher", "auto", "exact"):
        raise RecipeError(f"unknown sensitivity method {method!r}", hint="Choose fisher, exact or auto")
    if method != "exact" and (layers is not None or top is not None or all_but or accumulated):
        raise RecipeError(
            "an estimate is made of all layers at once, each alone",
            hint="Choose method exact to measure some of them, or all but one",
        )
    token = cancel or never_cancelled()
    opened = load_graph(graph_path)
    _check_memory(opened)
    dataset = dataset_of(opened, data)
    given = statistics_of(opened, statistics)
    kept = value_of(Recipe, recipe, "recipe") if recipe else Recipe()
    before = prepare_before(opened, kept, StepInputs(dataset, given), reporter=reporter, cancel=token)
    ranges = None
    if given is not None or calibrated:
        ranges = calibrated_ranges(before.graph, dataset, samples, given, reporter, token)
    options: dict[str, Any] = {}
    if method == "exact":
        options = {"layers": layers, "top": top, "all_but": all_but, "accumulated": accumulated}
    with nullcontext() if fresh else default_store() as store:
        found = (exact_sensitivity if method == "exact" else fisher_sensitivity)(
            before.graph,
            dataset,
            samples=samples,
            precisions=tuple(precisions),
            reference=reference,
            statistics=ranges,
            device=device,
            store=store,
            reporter=reporter,
            cancel=token,
            **options,
        )
    done = tuple(step.name for step in before.steps)
    on = [step.name for step in kept.steps if step.is_on]
    return replace(found, steps=done, left_out=tuple(on[len(done) :]))


def _check_memory(graph: Graph) -> None:
    """Refuse what would end for want of memory: weights, gradients and activations are held at once.

    Raises:
        MeasureError: a model whose weights stay in a file is too large for the memory that is free.
    """
    needed, free = _COPIES * graph.summary.weight_bytes, psutil.virtual_memory().available
    if holds_mapped(graph.proto) and needed > free:
        raise MeasureError(
            f"sensitivity needs about {size(needed)} of memory for this model, and {size(free)} are free",
            hint="Weights can be quantized without it: give every layer one precision",
        )
