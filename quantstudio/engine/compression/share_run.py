"""The work of `share`: which weights gain from a table, and the values they take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from quantstudio.core.codec import to_json
from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import CalibrationError, RecipeError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.figures import counted, percent
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import FP32
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.recovered import LayerRecovered
from quantstudio.core.shared_values import index_bytes, table_pays
from quantstudio.engine.compression.float_tables import MOST_FITTED, TableFormat, table_format, table_of
from quantstudio.engine.compression.share_settings import ShareSettings, TableFor
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import as_tensor
from quantstudio.engine.graph.runtime import worker_threads
from quantstudio.engine.graph.view import GraphView
from quantstudio.engine.model.derive import derived_graph, editable_copy
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.recovery.bias_targets import find_targets, set_bias
from quantstudio.engine.recovery.gptq_layers import GptqLayer
from quantstudio.engine.recovery.gptq_run import GptqOptions, GptqRun
from quantstudio.engine.recovery.gptq_solve import feeds_of, places_of
from quantstudio.engine.recovery.gptq_store import LayerStore, prune_layers
from quantstudio.engine.recovery.layer_matrix import layer_matrix
from quantstudio.engine.recovery.walk import TwoPathWalk, samples_at_once
from quantstudio.engine.torch_graph.device import resolve_device, torch_settings

FloatArray = NDArray[np.float32]

_OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"})
_VERSION = 1
MEASURE = "power of the error of its weights, of that of the weights"


@dataclass(frozen=True, slots=True, eq=False)
class _Shared:
    """A weight that gets tables.

    Attributes:
        layer: The first layer that reads it.
        value: The weight as it is.
        axis: Axis its channels lie along.
        format: Its tables.
    """

    layer: LayerInfo
    value: FloatArray
    axis: int
    format: TableFormat

    @property
    def rows(self) -> NDArray[np.float64]:
        """A row a channel."""
        moved = np.moveaxis(self.value, self.axis, 0)
        return moved.reshape(self.value.shape[self.axis], -1).astype(np.float64)

    def plain(self) -> FloatArray:
        """Every weight at the entry nearest to it, of the tables with the least squared error."""
        grid = self.format.best(self.rows, np.ones((1, 1)))
        found = np.empty_like(self.rows)
        for column, wanted in enumerate(self.rows.T):
            found[:, column] = grid.nearest(column, wanted)[1]
        moved = np.moveaxis(self.value, self.axis, 0).shape
        return np.ascontiguousarray(np.moveaxis(found.reshape(moved), 0, self.axis), dtype=np.float32)


def shared(
    graph: Graph, context: StepContext, settings: ShareSettings, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with weights that take few values.

    Raises:
        RecipeError: a layer that is named has no weights that a table would make smaller.
        CalibrationError: a weight holds NaN or infinity, or what a layer reads does.
        UnsupportedOpError: there is data, and torch has no form of a node.
        JobCancelled: `cancel` was set.
    """
    weights = _weights(graph, settings)
    if not weights:
        return StepOutcome(graph, "No weight gains from a table: the graph is as it was.", {"layers": []})
    found: dict[str, FloatArray] = {}
    for number, (name, one) in enumerate(weights.items()):
        cancel.raise_if_set()
        reporter.progress(number, len(weights), "layers", f"Sharing values of {one.layer.name}")
        found[name] = one.plain()
    plain = {weights[name].layer.name: _error(weights[name].value, value) for name, value in found.items()}
    model, summary = editable_copy(graph), ""
    if context.data is not None and settings.entries <= MOST_FITTED:
        run = _solved(graph, context, settings, weights, found, reporter, cancel)
        for name, shift in run.shifts.items():
            bias = run.layers[name].bias
            if bias is not None:
                set_bias(model, bias, shift)
        found.update(run.weights)
        if run.gains:
            before = np.mean([gain.before for gain in run.gains.values()])
            after = np.mean([gain.after or 0.0 for gain in run.gains.values()])
            summary = (
                f" Outputs are off by {percent(float(after), 2)} of their power on average; weights rounded "
                f"by themselves would leave {percent(float(before), 2)}."
            )
    else:
        for name, error in plain.items():
            reporter.found(LayerRecovered(name, error, None, MEASURE))
        summary = f" Weights are off by {percent(float(np.mean(list(plain.values()))), 2)} of their power."
    for tensor in model.graph.initializer:
        if tensor.name in found:
            tensor.CopyFrom(as_tensor(tensor.name, found[tensor.name]))
    before_bytes = sum(4 * one.value.size for one in weights.values())
    after_bytes = sum(
        index_bytes(one.value.size, settings.entries, one.format.tables) for one in weights.values()
    )
    text = (
        f"The weights of {counted(len(weights), 'layer')} take {settings.entries} values a table: "
        f"{percent(after_bytes / before_bytes, 1)} of their bytes.{summary}"
    )
    details = {"layers": [one.layer.name for one in weights.values()], "entries": settings.entries}
    return StepOutcome(derived_graph(graph, model, text), text, details)


def _weights(graph: Graph, settings: ShareSettings) -> dict[str, _Shared]:
    """Weights that gain from tables, by initializer, in order of execution."""
    view, found = GraphView(graph.proto), dict[str, _Shared]()
    for layer in graph.layers:
        name, axis = layer.weight_name, layer.channel_axis
        value = view.array(name) if name and name not in found else None
        if value is None or value.dtype != np.float32 or layer.op_type not in _OPERATORS or layer.groups > 1:
            continue
        if axis is None or value.ndim < 2:
            continue
        channels = value.shape[axis]
        tables = {TableFor.CHANNEL: channels, TableFor.GROUP: channels // settings.group}.get(settings.per, 1)
        tables = tables if tables and channels % tables == 0 and _divides(settings, channels) else 1
        if not table_pays(value.size, settings.entries, tables):
            continue
        if not np.isfinite(value).all():
            raise CalibrationError("its weights hold NaN or infinity", where=layer.name)
        own = np.asarray(value, dtype=np.float32)
        found[name] = _Shared(layer, own, axis % value.ndim, table_format(settings.entries, tables))
    chosen = _named(found, settings)
    if settings.per is TableFor.NETWORK and chosen:
        every = np.concatenate([one.value.reshape(-1) for one in chosen.values()]).astype(np.float64)[None]
        given = tuple(table_of(every, np.ones_like(every), settings.entries)[0].tolist())
        own_format = table_format(settings.entries, 1, given)
        chosen = {name: _Shared(one.layer, one.value, one.axis, own_format) for name, one in chosen.items()}
    return chosen


def _divides(settings: ShareSettings, channels: int) -> bool:
    return settings.per is not TableFor.GROUP or channels % settings.group == 0


def _named(found: Mapping[str, _Shared], settings: ShareSettings) -> dict[str, _Shared]:
    chosen = dict[str, _Shared]()
    for name in filter(None, (part.strip() for part in settings.layers.split(","))):
        rule = LayerRule(FP32, (name,)).by_node([one.layer for one in found.values()])
        fitting = {key: one for key, one in found.items() if rule.matches(one.layer)}
        if not fitting:
            raise RecipeError(
                f"no layer {name!r} has weights that a table would make smaller",
                where="step share",
                hint=f"Layers that have: {', '.join(one.layer.name for one in found.values()) or 'none'}",
            )
        chosen.update(fitting)
    return chosen if settings.layers.strip() else dict(found)


def _solved(
    graph: Graph,
    context: StepContext,
    settings: ShareSettings,
    weights: Mapping[str, _Shared],
    plain: Mapping[str, FloatArray],
    reporter: Reporter,
    cancel: CancelToken,
) -> GptqRun:
    """Values that are chosen together, layer by layer behind those that are done."""
    dataset, device = context.dataset, resolve_device(context.device)
    fake = FakeQuantized(graph, None, resolve(Recipe(), graph.layers))
    layers = _layers(graph, fake, weights)
    for name, layer in layers.items():
        fake.weights[name, layer.matrix.slot] = torch.from_numpy(plain[layer.weight])
    places = places_of(dataset, settings.samples, samples_at_once(graph))
    count = sum(stop - start for start, stop in places)
    inputs = {
        "graph": graph.digest,
        "data": dataset.digest,
        "samples": count,
        "statistics": "",
        "version": f"share {_VERSION}",
        "settings": to_json(settings),
    }
    with torch_settings(worker_threads()), torch.no_grad():
        fake = fake.to(device).eval().requires_grad_(False)
        walk = TwoPathWalk(fake, feeds_of(dataset, places, device, cancel), cancel)
        options = GptqOptions(sweeps=settings.sweeps)
        run = GptqRun(walk, fake, layers, count, options, LayerStore(inputs), reporter, cancel)
        try:
            if layers:
                run.go()
        finally:
            prune_layers()
    return run


def _layers(graph: Graph, fake: FakeQuantized, weights: Mapping[str, _Shared]) -> dict[str, GptqLayer]:
    """Layers whose values can be chosen by what they read: those that alone read a matrix."""
    view, network = GraphView(graph.proto), fake.network
    targets = {target.layer: target for target in find_targets(graph)}
    found = {}
    for name, one in weights.items():
        layer = one.layer
        if layer.scope or not network.has_node(layer.name) or len(view.consumers[name]) != 1:
            continue
        node = network.node(layer.name)
        slots = [slot for slot, given in enumerate(node.inputs) if given == name]
        if len(slots) != 1 or len(node.inputs) < 2 or view.is_constant(node.inputs[1 - slots[0]]):
            continue
        matrix = layer_matrix(node, slots[0], network.initializer(name))
        if matrix is not None and matrix.groups == 1:
            own = (layer.name,)
            found[layer.name] = GptqLayer(layer.name, name, matrix, one.format, targets.get(layer.name), own)
    return found


def _error(value: FloatArray, found: FloatArray) -> float:
    power = float(np.square(value, dtype=np.float64).sum())
    off = float(np.square(value.astype(np.float64) - found).sum())
    return off / power if power and math.isfinite(power) else 0.0
