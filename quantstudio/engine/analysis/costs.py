"""What every layer takes in every scheme: exact bytes from real emissions, times measured on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from quantstudio.core.costs import CostTable, LayerCost
from quantstudio.core.errors import MeasureError, ModelLoadError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, Severity, never_cancelled
from quantstudio.core.precision import NAMED_SCHEMES
from quantstudio.core.recipe import Recipe, uniform_recipe
from quantstudio.core.statistics import Statistics
from quantstudio.engine.analysis.layer_time import layer_times_us
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.evaluation.latency import LatencyBudget, interleaved_latency
from quantstudio.engine.model.graph import Graph
from quantstudio.engine.quantization.emit import Emission, emit_with_plan
from quantstudio.engine.quantization.kernels import weight_bytes_by_layer
from quantstudio.engine.quantization.probe import probe_feeds
from quantstudio.engine.runtime import Feed, resolve_provider, worker_threads

SECONDS_PER_SCHEME = 0.25


@dataclass(slots=True)
class _Uniform:
    """One scheme for every layer that can have it."""

    emission: Emission
    path: Path
    bytes_by_layer: dict[str, int]
    times_us: dict[str, float] = field(default_factory=dict)
    other_us: float = 0.0
    p50_ms: float = 0.0


def cost_table(
    graph: Graph,
    statistics: Statistics | None,
    dataset: Dataset | None,
    *,
    threads: int | None = None,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> CostTable:
    """Bytes and times of every layer in every scheme it can have.

    Every scheme is emitted for all layers at once, timed interleaved with FP32, and profiled for its shares.
    Per-layer times are scaled so that the sum over layers is the measured total: borders and unlisted
    operators are shared out over the layers in proportion.

    Args:
        graph: The model.
        statistics: Activation statistics; without them static schemes have no costs.
        dataset: Where the timed sample comes from; None for synthetic input.
        threads: Threads of the timed runs; None for `worker_threads()`.
        reporter: Told of every scheme.
        cancel: Looked at before every scheme and every run.
    """
    token = cancel or never_cancelled()
    names = _schemes(graph, statistics)
    uniform: dict[str, _Uniform] = {}
    with tempfile.TemporaryDirectory() as folder:
        for index, name in enumerate(names):
            token.raise_if_set()
            reporter.progress(index, len(names) + 1, "schemes", "Pricing precisions")
            uniform[name] = _emitted(graph, statistics, name, Path(folder), token)
        feed = _timed_feed(graph, uniform["fp32"].emission, statistics, dataset)
        if feed is not None:
            _time(graph, uniform, feed, threads or worker_threads(), reporter, token)
        base = uniform["fp32"]
        structure = base.path.stat().st_size - sum(base.bytes_by_layer.values())
        overhead = {n: _overhead(graph, u, n, structure) for n, u in uniform.items()}
    reporter.progress(len(names) + 1, len(names) + 1, "schemes", "Pricing precisions")
    return CostTable(
        layers={layer.name: _layer_cost(layer.name, layer.schemes, uniform) for layer in graph.layers},
        structure_bytes=structure,
        overhead_bytes=overhead,
        fp32_ms=base.p50_ms,
        provider=resolve_provider("cpu"),
    )


def _schemes(graph: Graph, statistics: Statistics | None) -> tuple[str, ...]:
    possible = {name for layer in graph.layers for name in layer.schemes}
    return tuple(
        name
        for name, scheme in NAMED_SCHEMES.items()
        if name == "fp32" or (name in possible and not (scheme.is_static and statistics is None))
    )


def _emitted(
    graph: Graph, statistics: Statistics | None, name: str, folder: Path, cancel: CancelToken
) -> _Uniform:
    recipe = Recipe() if name == "fp32" else uniform_recipe(name)
    emission = emit_with_plan(graph, statistics, recipe, cancel)
    path = folder / f"{name}.onnx"
    path.write_bytes(emission.model.SerializeToString(deterministic=True))
    return _Uniform(emission, path, weight_bytes_by_layer(graph.layers, emission))


def _timed_feed(
    graph: Graph, base: Emission, statistics: Statistics | None, dataset: Dataset | None
) -> Feed | None:
    if dataset is not None:
        return next(iter(dataset.batches(1))).feed
    return next(iter(probe_feeds(base.model, statistics)), None) if graph.summary.inputs else None


def _time(
    graph: Graph,
    uniform: Mapping[str, _Uniform],
    feed: Feed,
    threads: int,
    reporter: Reporter,
    cancel: CancelToken,
) -> None:
    names = list(uniform)
    budget = LatencyBudget(seconds=SECONDS_PER_SCHEME * len(names), min_rounds=7)
    try:
        timed = interleaved_latency(
            [uniform[n].path for n in names], feed, threads=threads, budget=budget, cancel=cancel
        )
        for name, result in zip(names, timed.results, strict=True):
            row = uniform[name]
            row.p50_ms = result.p50
            row.times_us, row.other_us = layer_times_us(
                graph.layers, row.emission, row.path, feed, threads=threads, cancel=cancel
            )
    except (MeasureError, ModelLoadError) as error:
        reporter.message(f"Latency cannot be predicted: {error.what}", Severity.WARNING)
        for row in uniform.values():
            row.p50_ms = 0.0


def _overhead(graph: Graph, row: _Uniform, name: str, structure: int) -> int:
    affected = sum(name in layer.schemes for layer in graph.layers)
    extra = row.path.stat().st_size - sum(row.bytes_by_layer.values()) - structure
    return 0 if name == "fp32" or not affected else round(extra / affected)


def _layer_cost(layer: str, legal: tuple[str, ...], uniform: Mapping[str, _Uniform]) -> LayerCost:
    base = uniform["fp32"]
    ratios: dict[str, float] = {}
    share = _scaled_ms(base, layer) / base.p50_ms if base.p50_ms else 0.0
    if share > 0:
        for name, row in uniform.items():
            if name != "fp32" and name in legal and row.p50_ms > 0:
                ratios[name] = _scaled_ms(row, layer) / (share * base.p50_ms)
    return LayerCost(
        weight_bytes={n: u.bytes_by_layer[layer] for n, u in uniform.items() if n == "fp32" or n in legal},
        time_share=share,
        time_ratio=ratios,
    )


def _scaled_ms(row: _Uniform, layer: str) -> float:
    """The layer's part of the measured total, with its part of what no layer owns."""
    owned = sum(row.times_us.values())
    return row.p50_ms * row.times_us[layer] / owned if owned > 0 and row.p50_ms > 0 else 0.0
