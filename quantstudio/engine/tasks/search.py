"""The best mixed-precision plan within a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantstudio.core.costs import CostTable
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.results import SensitivityResult
from quantstudio.core.search_results import Recover, SearchBudget, SearchResult, family_named, recover_named
from quantstudio.core.target import target_named
from quantstudio.engine.analysis.store import default_store
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.quantization.build import check_float_weights
from quantstudio.engine.tasks.inputs import DEFAULT_SAMPLES, dataset_of, statistics_of, value_of


def search(
    *,
    graph_path: str,
    data: Mapping[str, Any],
    output: str,
    budget: Mapping[str, Any] | None = None,
    family: str = "auto",
    pins: Sequence[Mapping[str, Any]] = (),
    samples: int = DEFAULT_SAMPLES,
    test_data: Mapping[str, Any] | None = None,
    statistics: str = "",
    sensitivity: Mapping[str, Any] | None = None,
    costs: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    recover: str = Recover.AUTO,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> SearchResult:
    """Find, build and measure the best mixed-precision plan within a budget (`SearchBudget`).

    `pins` are rules (`LayerRule`) that fix the layers they match; `statistics`, `sensitivity` and `costs` are
    what earlier tasks made, so that it is not made again. Plans keep steps, seed, range settings and target
    of `recipe`: each is built and measured with the steps, as `quantize` builds its recipe. `recover` says
    what wins back what few bits lose before a plan is measured (`Recover`).

    Raises:
        RecipeError: no plan keeps the budget (an `InfeasibleBudgetError`), or a parameter cannot be read.
        DataError: there are no samples, or a step needs labels and there are none.
    """
    from quantstudio.engine.search.loop import search as search_plans  # imports torch
    from quantstudio.engine.search.request import Known, SearchRequest  # imports torch

    chosen_family, chosen_recover = family_named(family), recover_named(recover)
    graph = load_graph(graph_path)
    check_float_weights(graph)
    kept = value_of(Recipe, recipe, "recipe") if recipe else None
    if kept is not None:
        target_named(kept.target)
    with default_store() as store:
        return search_plans(
            graph,
            dataset_of(graph, data),
            Path(output),
            SearchRequest(
                budget=value_of(SearchBudget, budget or {}, "budget"),
                family=chosen_family,
                pins=tuple(value_of(LayerRule, pin, "pins") for pin in pins),
                samples=samples,
                kept=kept,
                recover=chosen_recover,
            ),
            test=dataset_of(graph, test_data) if test_data else None,
            known=Known(
                statistics_of(graph, statistics),
                value_of(SensitivityResult, sensitivity, "sensitivity") if sensitivity else None,
                value_of(CostTable, costs, "costs") if costs else None,
                store,
            ),
            reporter=reporter,
            cancel=cancel or never_cancelled(),
        )
