"""Entry points that jobs and the command line may name: JSON values in, frozen values out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from quantstudio.core.costs import CostTable
from quantstudio.core.errors import DataError, ModelLoadError, RecipeError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.folders import cache_folder
from quantstudio.core.layers import ModelSummary
from quantstudio.core.recipe import CalibrationSettings, LayerRule, Recipe
from quantstudio.core.results import CompareResult, SensitivityResult
from quantstudio.core.search_results import ActivationFamily, SearchBudget, SearchResult
from quantstudio.core.statistics_file import (
    save_statistics,
    save_weight_statistics,
    statistics_digest,
)
from quantstudio.engine.analysis.costs import cost_table
from quantstudio.engine.analysis.store import default_store
from quantstudio.engine.analysis.weights import weight_statistics as weight_statistics_of
from quantstudio.engine.calibration.observer import calibrate as observe
from quantstudio.engine.evaluation.compare import compare as compare_models
from quantstudio.engine.graph.runtime import Optimization, available_providers, open_session, resolve_provider
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.model.open import open_model as open_graph
from quantstudio.engine.model.reading import ModelKind, kind_of
from quantstudio.engine.quantization.build import build_variant, check_float_weights
from quantstudio.engine.search.presets import build_preset
from quantstudio.engine.task_inputs import dataset_of, needs_statistics, statistics_of, value_of
from quantstudio.engine.task_results import (
    CalibrationFile,
    DataSummary,
    Devices,
    QuantizeResult,
    WeightFile,
)

DEFAULT_SAMPLES = 512


def open_model(
    *,
    path: str,
    trust: bool = False,
    factory: str = "",
    state: str = "",
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> ModelSummary:
    """Open a model file, normalise it into the cache, prove it, list its layers."""
    return open_graph(
        path, trust=trust, factory=factory, state=state, reporter=reporter, cancel=cancel or never_cancelled()
    ).summary


def devices(*, reporter: Reporter = NULL_REPORTER, cancel: CancelToken | None = None) -> Devices:
    """Execution providers and torch devices that are installed here."""
    from quantstudio.engine.torch_graph.device import available_devices  # imports torch

    del reporter
    (cancel or never_cancelled()).raise_if_set()
    return Devices(available_providers(), available_devices())


def data_summary(
    *,
    graph_path: str,
    data: Mapping[str, Any],
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> DataSummary:
    """Open a data set against a model and say what is in it."""
    del reporter
    dataset = dataset_of(load_graph(graph_path), data)
    (cancel or never_cancelled()).raise_if_set()
    first = next(iter(dataset.batches(1)))
    return DataSummary(
        samples=len(dataset),
        labelled=dataset.labels is not None,
        class_names=tuple(dataset.class_names),
        segments=tuple(dataset.segments),
        digest=dataset.digest,
        shapes={name: tuple(int(n) for n in array.shape[1:]) for name, array in first.feed.items()},
    )


def weight_statistics(
    *,
    graph_path: str,
    output: str = "",
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> WeightFile:
    """Weight histograms of every layer, written to an npz file; layers stream as "weights"."""
    graph = load_graph(graph_path)
    rows = weight_statistics_of(graph, reporter=reporter, cancel=cancel or never_cancelled())
    path = Path(output) if output else _cached("statistics", f"{graph.digest[:32]}-weights.npz")
    save_weight_statistics(path, rows)
    return WeightFile(str(path), len(rows))


def calibrate(
    *,
    graph_path: str,
    data: Mapping[str, Any],
    samples: int = DEFAULT_SAMPLES,
    output: str = "",
    provider: str = "cpu",
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> CalibrationFile:
    """Activation histograms of every tensor in one streaming pass, written to an npz file."""
    started = time.perf_counter()
    graph = load_graph(graph_path)
    dataset = dataset_of(graph, data)
    statistics = observe(
        graph,
        dataset,
        samples=samples,
        provider=provider,
        reporter=reporter,
        cancel=cancel or never_cancelled(),
    )
    name = f"{graph.digest[:16]}-{dataset.digest[:16]}-{statistics.samples}.npz"
    path = Path(output) if output else _cached("statistics", name)
    save_statistics(path, statistics)
    return CalibrationFile(
        path=str(path),
        digest=statistics_digest(statistics),
        samples=statistics.samples,
        tensors=len(statistics.tensors),
        seconds=time.perf_counter() - started,
        provider=resolve_provider(provider),
    )


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
    """Sensitivity of every layer; layers stream as "sensitivity".

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


def costs(
    *,
    graph_path: str,
    data: Mapping[str, Any] | None = None,
    statistics: str = "",
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> CostTable:
    """Bytes and measured times of every layer in every scheme, for predictions."""
    graph = load_graph(graph_path)
    return cost_table(
        graph,
        statistics_of(graph, statistics),
        dataset_of(graph, data) if data else None,
        reporter=reporter,
        cancel=cancel or never_cancelled(),
    )


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
    check_float_weights(graph, chosen)
    dataset = dataset_of(graph, data) if data else None
    if dataset is not None and data_digest not in ("", dataset.digest):
        raise DataError(
            "the data is not what the recipe was made with",
            where=str((data or {}).get("path", "")),
            hint="Put the original data back, or quantize again with this data",
        )
    observed = statistics_of(graph, statistics)
    if observed is None and needs_statistics(graph, chosen, preset):
        if dataset is None:
            raise DataError(
                "static quantization needs calibration data",
                hint="Choose calibration data: Model, Data, or --data",
            )
        wanted = chosen.calibration.samples if chosen is not None else settings.samples
        observed = observe(graph, dataset, samples=wanted, reporter=reporter, cancel=token)
    if chosen is not None:
        built = build_variant(graph, observed, chosen, Path(output), reporter=reporter, cancel=token)
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
    calibration: Mapping[str, Any] | None = None,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> SearchResult:
    """Find, build and measure the best mixed-precision plan within a budget (`SearchBudget`).

    `pins` are rules (`LayerRule`) that fix the layers they match; `statistics`, `sensitivity` and `costs` are
    what earlier tasks made, so that it is not made again.

    Raises:
        RecipeError: no plan keeps the budget (an `InfeasibleBudgetError`), or a parameter cannot be read.
    """
    from quantstudio.engine.search.loop import search as search_plans  # imports torch
    from quantstudio.engine.search.workbench import Known, SearchRequest

    if family not in list(ActivationFamily):
        raise RecipeError(
            f"unknown activation family {family!r}", hint=f"Choose one of {', '.join(ActivationFamily)}"
        )
    graph = load_graph(graph_path)
    check_float_weights(graph)
    settings = value_of(CalibrationSettings, calibration, "calibration") if calibration else None
    with default_store() as store:
        return search_plans(
            graph,
            dataset_of(graph, data),
            Path(output),
            SearchRequest(
                budget=value_of(SearchBudget, budget or {}, "budget"),
                family=ActivationFamily(family),
                pins=tuple(value_of(LayerRule, pin, "pins") for pin in pins),
                samples=samples,
                calibration=settings,
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


def compare(
    *,
    base: str,
    variants: Sequence[str],
    data: Mapping[str, Any],
    graph_path: str = "",
    trust: bool = False,
    names: Sequence[str] | None = None,
    threads: int | None = None,
    provider: str = "cpu",
    batch: int = 1,
    latency: bool = True,
    footprint: bool = True,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> CompareResult:
    """Accuracy, agreement, latency and footprint of variants against a base, on the same samples.

    `graph_path` names the normalised graph that tells the input names; without it `base` itself is opened. A
    base that is not ONNX, or that the runtime refuses without repair, is measured in its normalised form.
    """
    token = cancel or never_cancelled()
    for variant in variants:
        if kind_of(Path(variant)) is not ModelKind.ONNX:
            raise ModelLoadError(
                "only ONNX files can be compared", where=variant, hint="Give what `quantize -o` wrote"
            )
    graph = load_graph(graph_path) if graph_path else open_graph(base, trust=trust, cancel=token)
    measured = _runnable(Path(base), Path(graph.summary.graph_path))
    return compare_models(
        measured,
        [Path(v) for v in variants],
        dataset_of(graph, data),
        names=tuple(names or (_names(base, variants) if measured != Path(base) else ())) or None,
        threads=threads,
        provider=provider,
        batch=batch,
        latency=latency,
        footprint=footprint,
        reporter=reporter,
        cancel=token,
    )


def _runnable(base: Path, normalised: Path) -> Path:
    """The base as it is, or its normalised form where it is no ONNX or the runtime refuses it as it is."""
    if base.suffix.lower() != ".onnx":
        return normalised
    try:
        open_session(base, threads=1, optimization=Optimization.NONE)
    except ModelLoadError:
        return normalised
    return base


def _names(base: str, variants: Sequence[str]) -> tuple[str, ...]:
    return tuple(Path(path).name for path in (base, *variants))


def _cached(folder: str, name: str) -> Path:
    return cache_folder(folder) / name
