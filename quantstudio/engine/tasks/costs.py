"""What each layer costs in each scheme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantstudio.core.costs import CostTable
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.recipe import Recipe
from quantstudio.engine.analysis.costs import cost_table
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.pipeline.runner import StepInputs, prepare_before
from quantstudio.engine.tasks.inputs import calibrated_ranges, dataset_of, statistics_of, value_of


def costs(
    *,
    graph_path: str,
    data: Mapping[str, Any] | None = None,
    statistics: str = "",
    recipe: Mapping[str, Any] | None = None,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> CostTable:
    """Bytes and measured times of every layer in every scheme, for predictions.

    They are those of the graph behind the steps of `recipe` that come before its precisions; times are held
    against the model as it was opened, of which `statistics` are, too. Without `data` and `statistics` static
    schemes have no price.

    Raises:
        CalibrationError: the statistics are those of another model.
        DataError: a step needs data and there is none.
        RecipeError: a step is unknown or a setting wrong.
    """
    token = cancel or never_cancelled()
    opened = load_graph(graph_path)
    dataset = dataset_of(opened, data) if data else None
    given = statistics_of(opened, statistics)
    kept = value_of(Recipe, recipe, "recipe") if recipe else Recipe()
    before = prepare_before(opened, kept, StepInputs(dataset, given), reporter=reporter, cancel=token)
    observed = given if before.graph.digest == opened.digest else None
    if observed is None and dataset is not None:
        observed = calibrated_ranges(before.graph, dataset, kept.calibration.samples, given, reporter, token)
    return cost_table(before.graph, observed, dataset, opened=opened, reporter=reporter, cancel=token)
