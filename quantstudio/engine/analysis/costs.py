"""What every layer takes in every scheme: exact bytes from real emissions, times measured on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from quantstudio.core.costs import (
    ONE_SCALE,
    PACKED,
    BorderCost,
    CostTable,
    LayerCost,
    LayerEdge,
    LiveTensor,
    PricedNetwork,
    container_name,
    file_name,
)
from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import MeasureError, ModelLoadError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, Severity, never_cancelled
from quantstudio.core.packing import WeightCount
from quantstudio.core.precision import FP32, STATIC_INT8, Granularity, LayerScheme
from quantstudio.core.recipe import SHARED_VALUES, Recipe, uniform_recipe
from quantstudio.core.results import LatencyResult
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.statistics import Statistics
from quantstudio.engine.analysis.graph_costs import held_bytes, layer_edges, live_tensors
from quantstudio.engine.analysis.layer_time import layer_times_us
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.evaluation.footprint import footprint
from quantstudio.engine.evaluation.latency import LatencyBudget, interleaved_latency
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import Feed, open_session, resolve_provider, run, worker_threads
from quantstudio.engine.graph.writing import write_model
from quantstudio.engine.quantization.emit import Emission, emit_with_plan
from quantstudio.engine.quantization.kernels import weight_bytes_by_layer
from quantstudio.engine.quantization.packed_prices import PackedPrices, packed_prices
from quantstudio.engine.quantization.probe import probe_feeds

SECONDS_PER_SCHEME = 0.25
# Plans with float and integer layers in turn, timed to learn what their borders cost: layers by the remainder
# of their position.
BORDER_PLANS = ((2, (0,)), (2, (1,)), (4, (0, 1)), (3, (0,)))
# Models of fewer weight bytes take next to nothing of a process: memory is measured of FP32 alone.
MEMORY_MATTERS_BYTES = 8 * 2**20


@dataclass(slots=True)
class _Uniform:
    """One scheme for every layer that can have it."""

    emission: Emission
    path: Path
    bytes_by_layer: dict[str, int]
    times_us: dict[str, float] = field(default_factory=dict)
    other_us: float = 0.0
    p50_ms: float = 0.0
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Border:
    """A plan of unlike neighbours: which layers are integer, and its time."""

    integers: frozenset[str]
    path: Path


def cost_table(
    graph: Graph,
    statistics: Statistics | None,
    dataset: Dataset | None,
    *,
    opened: Graph | None = None,
    threads: int | None = None,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> CostTable:
    """Bytes and times of every layer in every scheme it can have.

    Every scheme is emitted for all layers at once, timed interleaved with FP32, and profiled for its shares.
    Per-layer times are scaled so that the sum over layers is the measured total: unlisted operators are
    shared out over the layers in proportion. What borders between float and integer layers cost on top is
    fitted to plans in which both take turns. Memory is measured in fresh processes.

    Args:
        graph: The model, after the steps of a recipe where it has any.
        statistics: Activation statistics of it; without them static schemes have no costs.
        dataset: Where the timed sample comes from; None for synthetic input.
        opened: The model before the steps, which times are held against; None where there are none.
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
            uniform[name] = _emitted(graph, statistics, NAMED_SCHEMES[name], Path(folder), token)
        base, edges = uniform["fp32"], layer_edges(graph)
        borders = _border_plans(graph, statistics, edges, Path(folder), token)
        feed = _timed_feed(graph, base.emission, statistics, dataset, token)
        ratios: dict[Path, float] = {}
        timed: LatencyResult | None = None
        runtime_bytes = 0
        if feed is not None:
            base_path = Path((opened or graph).summary.graph_path)
            threads = threads or worker_threads()
            ratios, timed = _time(graph, base_path, uniform, borders, feed, threads, reporter, token)
            runtime_bytes = _weigh(uniform, feed, reporter, token)
        one_scale = _one_scale(graph, statistics, names, Path(folder), token)
        structure = base.path.stat().st_size - sum(base.bytes_by_layer.values())
        overhead = {n: _overhead(graph, u, n, structure) for n, u in (uniform | one_scale).items()}
        packed = packed_prices(graph, statistics, names, structure, cancel=token)
        shared = _shared(graph, Path(folder), token) if opened is not None else None
        overhead |= dict(packed.overhead) | _shared_overhead(shared, structure)
    reporter.progress(len(names) + 1, len(names) + 1, "schemes", "Pricing precisions")
    tensors = live_tensors(graph)
    written = ratios.get(base.path, 1.0)
    memory = _memory(graph, uniform, tensors, runtime_bytes)
    costs = CostTable(
        layers={
            name: replace(cost, memory_bytes=memory[name])
            for name, cost in _layer_costs(graph, uniform, one_scale, packed, shared).items()
        },
        structure_bytes=structure,
        overhead_bytes=overhead,
        fp32_ms=base.p50_ms / written,
        provider=resolve_provider("cpu"),
        edges=edges,
        tensors=tensors,
        written_ratio=written,
        fp32_memory_bytes=base.peak_bytes,
        threads=timed.threads if timed is not None else 0,
        other_load=timed.other_load if timed is not None else None,
        processor_mhz=timed.processor_mhz if timed is not None else None,
        network=_other_network(graph, opened),
    )
    return replace(costs, border=_border_cost(costs, borders, ratios))


def _schemes(graph: Graph, statistics: Statistics | None) -> tuple[str, ...]:
    """Names of the containers that differ in bytes or time: what is priced, whatever else lives in them."""
    possible = {name for layer in graph.layers for name in layer.schemes}
    return tuple(
        name
        for name, scheme in NAMED_SCHEMES.items()
        if name == "fp32"
        or (
            name in possible
            and container_name(scheme) == name
            and not (scheme.is_static and statistics is None)
        )
    )


def _emitted(
    graph: Graph, statistics: Statistics | None, scheme: LayerScheme, folder: Path, cancel: CancelToken
) -> _Uniform:
    recipe = Recipe() if scheme == FP32 else uniform_recipe(scheme)
    emission = emit_with_plan(graph, statistics, resolve(recipe, graph.layers), cancel)
    path = folder / f"{file_name(scheme).replace('/', '-')}.onnx"
    write_model(emission.model, path)
    return _Uniform(emission, path, weight_bytes_by_layer(graph.layers, emission))


def _other_network(graph: Graph, opened: Graph | None) -> PricedNetwork | None:
    """Layers of the graph, where they are not those of the model as it was opened."""
    if opened is None or graph.layers == opened.layers:
        return None
    return PricedNetwork(graph.layers, graph.summary.edges)


def _shared(graph: Graph, folder: Path, cancel: CancelToken) -> _Uniform | None:
    """The float file whose weights are looked up in tables; None where none of them takes few values."""
    plan = replace(resolve(Recipe(), graph.layers), emission=SHARED_VALUES)
    emission = emit_with_plan(graph, None, plan, cancel)
    if not emission.shared:
        return None
    path = folder / "shared.onnx"
    write_model(emission.model, path)
    return _Uniform(emission, path, weight_bytes_by_layer(graph.layers, emission))


def _shared_overhead(shared: _Uniform | None, structure: int) -> dict[str, float]:
    """Bytes of the operators that look floats up, a layer."""
    if shared is None:
        return {}
    extra = shared.path.stat().st_size - sum(shared.bytes_by_layer.values()) - structure
    return {f"fp32{PACKED}": extra / len(shared.bytes_by_layer)}


def _one_scale(
    graph: Graph, statistics: Statistics | None, names: Sequence[str], folder: Path, cancel: CancelToken
) -> dict[str, _Uniform]:
    """Files whose weights have one scale a tensor: they run like the others, and take fewer bytes."""
    found = {}
    for name in names:
        scheme = replace(NAMED_SCHEMES[name], granularity=Granularity.PER_TENSOR)
        if file_name(scheme) == f"{name}{ONE_SCALE}":
            cancel.raise_if_set()
            found[file_name(scheme)] = _emitted(graph, statistics, scheme, folder, cancel)
    return found


def _timed_feed(
    graph: Graph,
    base: Emission,
    statistics: Statistics | None,
    dataset: Dataset | None,
    cancel: CancelToken,
) -> Feed | None:
    """A sample of the data, or without data the first probe that the network accepts."""
    if dataset is not None:
        return next(iter(dataset.batches(1))).feed
    if not graph.summary.inputs:
        return None
    session = open_session(Path(graph.summary.graph_path), cancel=cancel)
    for feed in probe_feeds(base.model, statistics):
        try:
            run(session, feed, cancel=cancel)
        except MeasureError:
            continue
        return feed
    return None


def _time(
    graph: Graph,
    opened: Path,
    uniform: Mapping[str, _Uniform],
    borders: Sequence[_Border],
    feed: Feed,
    threads: int,
    reporter: Reporter,
    cancel: CancelToken,
) -> tuple[dict[Path, float], LatencyResult | None]:
    """Time and profile every scheme; returns what files take over the opened model, by path, and its time."""
    names = list(uniform)
    paths = [opened, *(uniform[n].path for n in names), *(one.path for one in borders)]
    budget = LatencyBudget(seconds=SECONDS_PER_SCHEME * len(paths), min_rounds=7)
    try:
        timed = interleaved_latency(paths, feed, threads=threads, budget=budget, cancel=cancel)
        # Paired ratios: a drifting machine moves medians of whole columns apart.
        ratios = {path: 1 / one.value for path, one in zip(paths, timed.speedups, strict=True)}
        for name in names:
            row = uniform[name]
            row.p50_ms = timed.results[0].p50 * ratios[row.path]
            with cancel.timing():
                row.times_us, row.other_us = layer_times_us(
                    graph.layers, row.emission, row.path, feed, threads=threads, cancel=cancel
                )
    except (MeasureError, ModelLoadError) as error:
        reporter.message(f"Latency cannot be predicted: {error.what}", Severity.WARNING)
        for row in uniform.values():
            row.p50_ms = 0.0
        return {}, None
    return ratios, timed.results[0]


def _border_plans(
    graph: Graph,
    statistics: Statistics | None,
    edges: Sequence[LayerEdge],
    folder: Path,
    cancel: CancelToken,
) -> list[_Border]:
    able = [layer.name for layer in graph.layers if "static-int8" in layer.schemes]
    if statistics is None or len(able) < 2 or not edges:
        return []
    plans = []
    for index, (period, rests) in enumerate(BORDER_PLANS):
        cancel.raise_if_set()
        names = [name for position, name in enumerate(able) if position % period in rests]
        path = folder / f"border{index}.onnx"
        plan = resolve(Recipe().assign(names, STATIC_INT8), graph.layers)
        model = emit_with_plan(graph, statistics, plan, cancel).model
        write_model(model, path)
        plans.append(_Border(frozenset(names), path))
    return plans


def _border_cost(costs: CostTable, borders: Sequence[_Border], ratios: Mapping[Path, float]) -> BorderCost:
    """A price for each tensor that changes precision and for each of its elements, by least squares.

    What a layer costs on its own was taken off before; layouts that differ between float and integer kernels
    are in it as well, so it is more than a Q or DQ alone.
    """
    rows, rest = [], []
    for one in borders:
        own = sum(
            cost.time_share * (cost.time_ratio.get("static-int8", 1.0) if name in one.integers else 1.0)
            for name, cost in costs.layers.items()
        )
        crossing = [
            e.elements for e in costs.edges if (e.producer in one.integers) != (e.consumer in one.integers)
        ]
        if one.path in ratios:
            rows.append((float(len(crossing)), float(sum(crossing))))
            rest.append((ratios[one.path] - costs.written_ratio * own) * costs.fp32_ms)
    if not rows or not any(count for count, _ in rows):
        return BorderCost()
    matrix = np.asarray(rows)
    scale = np.maximum(matrix.max(axis=0), 1.0)
    each, element = nnls(matrix / scale, np.asarray(rest))[0] / scale
    return BorderCost(float(each), float(element), float(each), float(element))


def _weigh(uniform: Mapping[str, _Uniform], feed: Feed, reporter: Reporter, cancel: CancelToken) -> int:
    """Peak memory of FP32, and of every scheme of a model that is large enough; what the runtime takes."""
    weights = sum(uniform["fp32"].bytes_by_layer.values())
    names = list(uniform) if weights >= MEMORY_MATTERS_BYTES else ["fp32"]
    runtime_bytes = 0
    try:
        for index, name in enumerate(names):
            reporter.progress(index, len(names), "processes", "Measuring memory")
            found = footprint(uniform[name].path, feed, probes=1, cancel=cancel)
            uniform[name].peak_bytes = found.peak_memory_bytes
            runtime_bytes = runtime_bytes or found.runtime_memory_bytes
    except (MeasureError, ModelLoadError) as error:
        reporter.message(f"Memory cannot be predicted: {error.what}", Severity.WARNING)
        uniform["fp32"].peak_bytes = 0
    return runtime_bytes


def _memory(
    graph: Graph, uniform: Mapping[str, _Uniform], tensors: Sequence[LiveTensor], runtime_bytes: int
) -> dict[str, dict[str, int]]:
    """What each layer's parameters add to the peak, by scheme name.

    The runtime holds a weight several times while it loads and packs it. How often is read off the FP32
    process; other schemes were measured, or follow from the bytes they bring and unpack.
    """
    base = uniform["fp32"]
    floats = {layer.name: base.bytes_by_layer[layer.name] for layer in graph.layers}
    total = max(sum(floats.values()), 1)
    held = held_bytes(tensors, frozenset())
    copies = float(np.clip((base.peak_bytes - runtime_bytes - held) / total, 1.0, 4.0))
    found: dict[str, dict[str, int]] = {name: {"fp32": round(copies * size)} for name, size in floats.items()}
    for scheme, row in uniform.items():
        able = [layer.name for layer in graph.layers if scheme in layer.schemes]
        if scheme == "fp32" or not able:
            continue
        affected = max(sum(floats[name] for name in able), 1)
        is_static = NAMED_SCHEMES[scheme].is_static
        kept = held_bytes(tensors, frozenset(able) if is_static else frozenset()) - held
        change = (row.peak_bytes - base.peak_bytes - kept) / affected if row.peak_bytes else None
        unpacks = NAMED_SCHEMES[scheme].is_weight_only or NAMED_SCHEMES[scheme].is_float
        for name in able:
            stored = row.bytes_by_layer[name]
            bytes_held = (
                copies * (floats[name] if unpacks else stored) + (stored if unpacks else 0)
                if change is None
                else copies * floats[name] + change * floats[name]
            )
            found[name][scheme] = round(bytes_held)
    return found


def _overhead(graph: Graph, row: _Uniform, name: str, structure: int) -> float:
    affected = sum(name.removesuffix(ONE_SCALE) in layer.schemes for layer in graph.layers)
    extra = row.path.stat().st_size - sum(row.bytes_by_layer.values()) - structure
    return 0.0 if name == "fp32" or not affected else extra / affected


def _layer_costs(
    graph: Graph,
    uniform: Mapping[str, _Uniform],
    one_scale: Mapping[str, _Uniform],
    packed: PackedPrices,
    shared: _Uniform | None,
) -> dict[str, LayerCost]:
    """Bytes and times of every layer; the times of one scheme add up to its measured total."""
    base = uniform["fp32"]
    shares = _parts(base, [layer.name for layer in graph.layers], base.p50_ms)
    shares = {name: part / base.p50_ms if base.p50_ms else 0.0 for name, part in shares.items()}
    ratios: dict[str, dict[str, float]] = {layer.name: {} for layer in graph.layers}
    for scheme, row in uniform.items():
        able = [layer.name for layer in graph.layers if scheme in layer.schemes and shares[layer.name] > 0]
        if scheme == "fp32" or not able or row.p50_ms <= 0:
            continue
        # Layers that cannot have the scheme take what they take in FP32.
        others = base.p50_ms * sum(share for name, share in shares.items() if name not in set(able))
        for name, part in _parts(row, able, max(row.p50_ms - others, 0.0)).items():
            ratios[name][scheme] = part / (shares[name] * base.p50_ms)
    return {
        layer.name: LayerCost(
            weight_bytes={
                n: u.bytes_by_layer[layer.name]
                for n, u in (*uniform.items(), *one_scale.items())
                if n == "fp32" or n.removesuffix(ONE_SCALE) in layer.schemes
            }
            | dict(packed.by_layer[layer.name])
            | ({} if shared is None else {f"fp32{PACKED}": shared.bytes_by_layer[layer.name]}),
            time_share=shares[layer.name],
            time_ratio=ratios[layer.name],
            count=WeightCount.of(layer),
        )
        for layer in graph.layers
    }


def _parts(row: _Uniform, names: Sequence[str], total_ms: float) -> dict[str, float]:
    """A time shared out over layers by what their kernels take, with their part of what no layer owns."""
    owned = sum(row.times_us.get(name, 0.0) for name in names)
    return {name: total_ms * row.times_us.get(name, 0.0) / owned if owned > 0 else 0.0 for name in names}
