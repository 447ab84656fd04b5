"""A variant from a recipe or a preset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import DataError, RecipeError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.recipe import CalibrationSettings, Recipe
from quantstudio.core.results import QuantizeResult
from quantstudio.engine.calibration.observer import calibrate as observe
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.quantization.build import build_variant, check_float_weights
from quantstudio.engine.search.presets import build_preset
from quantstudio.engine.tasks.inputs import dataset_of, needs_statistics, statistics_of, value_of


def quantize(
    *,
    graph_path: str,
    output: str,
    recipe: Mapping[str, Any] | None = None,
    preset: str = "",
    statistics: str = "",
    data: Mapping[str, Any] | None = None,
    data_digest: str = "",
    calibration: Mapping[str, Any] | None = None,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> QuantizeResult:
    """Build a variant from a recipe or a preset, calibrating first where statistics are needed and not given.

    Raises:
        RecipeError: neither recipe nor preset, or the recipe cannot be read.
        CalibrationError: the statistics are those of another model.
        DataError: static quantization without statistics and without data, or data that is not what
            `data_digest` names.
    """
    token = cancel or never_cancelled()
    graph = load_graph(graph_path)
    chosen = value_of(Recipe, recipe, "recipe") if recipe is not None else None
    settings = (
        value_of(CalibrationSettings, calibration, "calibration") if calibration else CalibrationSettings()
    )
    if chosen is None and not preset:
        raise RecipeError("nothing to build", hint="Give a recipe or a preset")
    plan = resolve(chosen, graph.layers) if chosen is not None else None
    check_float_weights(graph, plan)
    dataset = dataset_of(graph, data) if data else None
    if dataset is not None and data_digest not in ("", dataset.digest):
        raise DataError(
            "the data is not what the recipe was made with",
            where=str((data or {}).get("path", "")),
            hint="Put the original data back, or quantize again with this data",
        )
    observed = statistics_of(graph, statistics)
    if observed is None and needs_statistics(graph, plan, preset):
        if dataset is None:
            raise DataError(
                "static quantization needs calibration data",
                hint="Choose calibration data: Model, Data, or --data",
            )
        wanted = chosen.calibration.samples if chosen is not None else settings.samples
        observed = observe(graph, dataset, samples=wanted, reporter=reporter, cancel=token)
    if chosen is not None and plan is not None:
        built = build_variant(graph, observed, plan, Path(output), reporter=reporter, cancel=token)
    else:
        chosen, built = build_preset(
            graph,
            dataset,
            observed,
            preset,
            Path(output),
            calibration=settings,
            reporter=reporter,
            cancel=token,
        )
    return QuantizeResult(built, chosen, dataset.digest if dataset else "")
