"""Job specs for the engine's tasks, which are named by text. Nothing here runs anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantstudio.core.aim import DEFAULT_AIM, Aim
from quantstudio.core.codec import to_json
from quantstudio.core.costs import CostTable
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.folders import cache_folder
from quantstudio.core.layers import ModelSummary
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import SensitivityResult
from quantstudio.core.schemes import AUTO
from quantstudio.core.steps import Step
from quantstudio.jobs.spec import JobSpec, new_job
from quantstudio.workspace.search_terms import SearchTerms
from quantstudio.workspace.values import EngineOptions

TASKS = "quantstudio.engine.tasks."


def devices_job() -> JobSpec:
    """What is installed to compute on."""
    return new_job(f"{TASKS}devices:devices", {})


def steps_job() -> JobSpec:
    """Which steps a recipe may hold."""
    return new_job(f"{TASKS}recover:steps", {})


def open_model_job(path: str, *, trust: bool, factory: str, state: str) -> JobSpec:
    """Open, normalise and list a model."""
    return new_job(
        f"{TASKS}models:open_model", {"path": path, "trust": trust, "factory": factory, "state": state}
    )


def data_summary_job(model: ModelSummary, data: DataSpec) -> JobSpec:
    """Open a data set against the model."""
    return new_job(f"{TASKS}data:data_summary", {"graph_path": model.graph_path, "data": to_json(data)})


def examine_data_job(
    model: ModelSummary, data: DataSpec, test: DataSpec | None, *, is_asked: bool
) -> JobSpec:
    """Find the transform the model wants of a data set, and what is wrong with it."""
    params: dict[str, Any] = {
        "graph_path": model.graph_path,
        "data": to_json(data),
        "is_asked": is_asked,
    }
    if test is not None:
        params["test"] = to_json(test)
    return new_job(f"{TASKS}data:examine_data", params)


def judge_outputs_job(model: ModelSummary, data: DataSpec) -> JobSpec:
    """What the outputs of the model mean."""
    return new_job(f"{TASKS}judging:judge_outputs", {"graph_path": model.graph_path, "data": to_json(data)})


def levels_job(model: ModelSummary, inputs: Mapping[str, Any]) -> JobSpec:
    """Levels of the weights of one channel; `inputs` say of which, and in what."""
    return new_job(f"{TASKS}levels:channel_levels", {"graph_path": model.graph_path, **inputs})


def weights_job(model: ModelSummary) -> JobSpec:
    """Weight statistics of every layer."""
    return new_job(f"{TASKS}calibration:weight_statistics", {"graph_path": model.graph_path})


def calibrate_job(model: ModelSummary, data: DataSpec, samples: int) -> JobSpec:
    """Activation histograms."""
    return new_job(
        f"{TASKS}calibration:calibrate",
        {"graph_path": model.graph_path, "data": to_json(data), "samples": samples},
    )


def sensitivity_job(
    model: ModelSummary,
    data: DataSpec,
    *,
    method: str,
    samples: int,
    recipe: Recipe,
    layers: Sequence[str] = (),
    precisions: Sequence[str] = (),
    all_but: bool = False,
    accumulated: bool = False,
    device: str = "cpu",
) -> JobSpec:
    """Sensitivity of all layers, or exactly of some, in the usual precisions or in those named.

    It is that of the graph behind the steps of the recipe, which must look at no precision.
    """
    params: dict[str, Any] = {
        "graph_path": model.graph_path,
        "data": to_json(data),
        "method": method,
        "samples": samples,
        "calibrated": True,
        "device": device,
    }
    if recipe.steps:
        params["recipe"] = to_json(recipe)
    if layers:
        params["layers"] = list(layers)
    if precisions:
        params["precisions"] = list(precisions)
    if all_but:
        params["all_but"] = True
    if accumulated:
        params["accumulated"] = True
    return new_job(f"{TASKS}sensitivity:sensitivity", params)


def costs_job(model: ModelSummary, data: DataSpec | None, *, statistics: str, recipe: Recipe) -> JobSpec:
    """Bytes and times for predictions, of the graph behind the steps of the recipe."""
    params: dict[str, Any] = {"graph_path": model.graph_path, "statistics": statistics}
    if recipe.steps:
        params["recipe"] = to_json(recipe)
    if data is not None:
        params["data"] = to_json(data)
    return new_job(f"{TASKS}costs:costs", params)


def search_job(
    model: ModelSummary,
    data: DataSpec,
    terms: SearchTerms,
    *,
    output: Path,
    samples: int,
    statistics: str,
    sensitivity: SensitivityResult | None,
    costs: CostTable | None,
    recipe: Recipe,
    test_data: DataSpec | None,
) -> JobSpec:
    """The best mixed-precision plan within a budget, from tables made before.

    Of the recipe its steps, range settings and target are kept.
    """
    params: dict[str, Any] = {
        "graph_path": model.graph_path,
        "data": to_json(data),
        "output": str(output),
        "budget": to_json(terms.budget),
        "family": terms.family.value,
        "pins": [to_json(pin) for pin in terms.pins],
        "samples": samples,
        "statistics": statistics,
        "recipe": to_json(recipe.bare),
        "recover": terms.recover.value,
    }
    known = {"sensitivity": sensitivity, "costs": costs, "test_data": test_data}
    params |= {name: to_json(value) for name, value in known.items() if value is not None}
    return new_job(f"{TASKS}search:search", params)


def quantize_job(
    model: ModelSummary,
    recipe: Recipe,
    *,
    output: Path,
    statistics: str,
    data: DataSpec | None,
    preset: str = "",
    aim: Aim = DEFAULT_AIM,
    candidates: Sequence[Step] = (),
    seconds: float = 0.0,
) -> JobSpec:
    """Build a variant from the recipe, or from a preset that chooses its own; `aim` is of "auto" alone.

    Of `candidates` those steps are added that help, within `seconds`.
    """
    params: dict[str, Any] = {
        "graph_path": model.graph_path,
        "output": str(output),
        "statistics": statistics,
    }
    if data is not None:
        params["data"] = to_json(data)
    params["recipe"] = to_json(recipe.bare if preset else recipe)
    if preset:
        params["preset"] = preset
    if preset == AUTO:
        params["aim"] = aim.value
    if candidates:
        params |= {"candidates": [to_json(step) for step in candidates], "seconds": seconds}
    return new_job(f"{TASKS}quantize:quantize", params)


def compare_job(
    model: ModelSummary,
    data: DataSpec,
    variants: Sequence[Path],
    names: Sequence[str],
    *,
    options: EngineOptions,
) -> JobSpec:
    """Measure variants against the base."""
    params: dict[str, Any] = {
        "base": model.graph_path,
        "graph_path": model.graph_path,
        "base_bytes": model.file_bytes,
        "variants": [str(v) for v in variants],
        "names": list(names),
        "data": to_json(data),
        "provider": options.provider,
        "batch": options.batch,
    }
    if options.threads > 0:
        params["threads"] = options.threads
    return new_job(f"{TASKS}compare:compare", params)


def variant_path(model: ModelSummary, recipe: Recipe, statistics_digest: str, preset: str = "") -> Path:
    """Where a variant is built: named by what it is made of, so that the same build lands on itself."""
    folder = cache_folder("variants")
    kind = f"{preset}-{recipe.bare.digest[:16]}" if preset else recipe.digest[:16]
    return folder / f"{model.digest[:16]}-{statistics_digest[:12] or 'none'}-{kind}.onnx"
