"""How much each layer suffers in each precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from quantstudio.core.errors import RecipeError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.results import SensitivityResult
from quantstudio.engine.analysis.store import default_store
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.tasks.inputs import DEFAULT_SAMPLES, dataset_of, statistics_of


def sensitivity(
    *,
    graph_path: str,
    data: Mapping[str, Any],
    method: str = "auto",
    samples: int = DEFAULT_SAMPLES,
    precisions: Sequence[str] = ("int8", "int4", "int8-activations"),
    reference: str = "int4",
    layers: Sequence[str] | None = None,
    top: int | None = None,
    all_but: bool = False,
    accumulated: bool = False,
    statistics: str = "",
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

    Raises:
        RecipeError: the method or a precision is unknown, or an estimate was asked for part of the layers.
    """
    from quantstudio.engine.analysis.sensitivity import exact_sensitivity, fisher_sensitivity  # imports torch

    if method not in ("fisher", "auto", "exact"):
        raise RecipeError(f"unknown sensitivity method {method!r}", hint="Choose fisher, exact or auto")
    if method != "exact" and (layers is not None or top is not None or all_but or accumulated):
        raise RecipeError(
            "an estimate is made of all layers at once, each alone",
            hint="Choose method exact to measure some of them, or all but one",
        )
    graph = load_graph(graph_path)
    options: dict[str, Any] = {}
    if method == "exact":
        options = {"layers": layers, "top": top, "all_but": all_but, "accumulated": accumulated}
    with nullcontext() if fresh else default_store() as store:
        return (exact_sensitivity if method == "exact" else fisher_sensitivity)(
            graph,
            dataset_of(graph, data),
            samples=samples,
            precisions=tuple(precisions),
            reference=reference,
            statistics=statistics_of(graph, statistics),
            device=device,
            store=store,
            reporter=reporter,
            cancel=cancel or never_cancelled(),
            **options,
        )
