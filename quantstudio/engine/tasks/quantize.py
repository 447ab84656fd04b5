"""A variant from a recipe or a preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantstudio.core.aim import aim_named
from quantstudio.core.errors import DataError, RecipeError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import BuildResult, QuantizeResult
from quantstudio.core.statistics import Statistics
from quantstudio.core.steps import Step, with_outcomes
from quantstudio.core.target import target_named
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.pipeline.discovery import step_infos
from quantstudio.engine.pipeline.runner import (
    StepInputs,
    completed,
    observed_after,
    prepare,
    resolved,
)
from quantstudio.engine.quantization.build import build_variant, check_float_weights
from quantstudio.engine.search.presets import build_preset
from quantstudio.engine.search.step_choice import with_best_steps, with_steps_that_help
from quantstudio.engine.tasks.inputs import dataset_of, needs_statistics, statistics_of, value_of


def quantize(
    *,
    graph_path: str,
    output: str,
    recipe: Mapping[str, Any] | None = None,
    preset: str = "",
    aim: str = "",
    statistics: str = "",
    data: Mapping[str, Any] | None = None,
    data_digest: str = "",
    device: str = "cpu",
    choose_steps: bool = False,
    candidates: Sequence[Mapping[str, Any]] = (),
    seconds: float = 0.0,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> QuantizeResult:
    """Build a variant from a recipe or a preset, calibrating first where statistics are needed and not given.

    The steps of a recipe are run before (see `pipeline.runner.prepare`); `statistics` are those of the graph
    as it was opened, `device` is a torch device for steps that train. With `choose_steps` only those
    steps are kept that measure best on the data; of `candidates` those are added that measure better, within
    `seconds` (see `search.step_choice.with_steps_that_help`). A `preset` chooses the precisions instead; of
    the recipe, steps, seed, range settings and target are kept. `aim` is what the preset `auto` looks for.

    Raises:
        RecipeError: neither recipe nor preset, or the recipe cannot be read.
        CalibrationError: the statistics are those of another model.
        DataError: static quantization without statistics and without data, or data that is not what
            `data_digest` names.
    """
    token = cancel or never_cancelled()
    graph = load_graph(graph_path)
    chosen = completed(value_of(Recipe, recipe, "recipe")) if recipe is not None else None
    if chosen is None and not preset:
        raise RecipeError("nothing to build", hint="Give a recipe or a preset")
    plan = resolved(chosen, graph) if chosen is not None and not preset else None
    check_float_weights(graph, plan)
    dataset = _dataset(graph, data, data_digest)
    observed = statistics_of(graph, statistics)
    if chosen is not None and not preset:
        inputs, why = StepInputs(dataset, observed, device), ""
        if choose_steps:
            chosen, why = with_best_steps(graph, chosen, inputs, reporter=reporter, cancel=token)
        elif candidates:
            steps = [value_of(Step, one, "step") for one in candidates]
            chosen, why = with_steps_that_help(
                graph, chosen, steps, inputs, seconds=seconds, reporter=reporter, cancel=token
            )
        built = replace(_build(graph, chosen, inputs, Path(output), reporter, token), preset=why)
        if built.steps:
            applied = [step.settings for step in built.steps]
            chosen = replace(chosen, steps=with_outcomes(chosen.steps, applied, step_infos()))
        return QuantizeResult(built, chosen, dataset.digest if dataset else "")
    kept = (chosen or Recipe()).bare
    target = target_named(kept.target)
    has_steps = any(step.is_on for step in kept.steps)
    if observed is None and not has_steps and needs_statistics(graph, preset, target):
        observed = _observed(graph, dataset, kept.calibration.samples, reporter, token)
    made, built = build_preset(
        graph,
        dataset,
        observed,
        preset,
        Path(output),
        kept=kept,
        aim=aim_named(aim),
        reporter=reporter,
        cancel=token,
    )
    return QuantizeResult(built, made, dataset.digest if dataset else "")


def _dataset(graph: Graph, data: Mapping[str, Any] | None, digest: str) -> Dataset | None:
    dataset = dataset_of(graph, data) if data else None
    if dataset is not None and digest not in ("", dataset.digest):
        raise DataError(
            "the data is not what the recipe was made with",
            where=str((data or {}).get("path", "")),
            hint="Put the original data back, or quantize again with this data",
        )
    return dataset


def _build(
    graph: Graph, recipe: Recipe, inputs: StepInputs, output: Path, reporter: Reporter, cancel: CancelToken
) -> BuildResult:
    """The steps of the recipe, then the variant of the graph that comes of them."""
    prepared = prepare(graph, recipe, inputs, reporter=reporter, cancel=cancel)
    statistics, samples = inputs.statistics, recipe.calibration.samples
    if prepared.plan.is_static and prepared.steps:
        statistics = observed_after(prepared, inputs, reporter=reporter, cancel=cancel)
    elif prepared.plan.is_static and statistics is None:
        statistics = _observed(graph, inputs.dataset, samples, reporter, cancel)
    built = build_variant(
        prepared.graph,
        statistics,
        prepared.plan,
        output,
        measures_load=True,
        reporter=reporter,
        cancel=cancel,
    )
    return replace(built, steps=prepared.steps)


def _observed(
    graph: Graph, dataset: Dataset | None, samples: int, reporter: Reporter, cancel: CancelToken
) -> Statistics:
    if dataset is None:
        raise DataError(
            "static quantization needs calibration data",
            hint=Hint("Choose calibration data", HintAction.CHOOSE_DATA),
        )
    return calibrate(graph, dataset, samples=samples, reporter=reporter, cancel=cancel)
