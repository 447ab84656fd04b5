"""The work behind `sparsify`: what each weight matters, and zeros for those that matter least."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.figures import counted, percent
from quantstudio.engine.compression.kept_layers import kept_layers
from quantstudio.engine.compression.pruning_settings import Pattern, Score, SparsifySettings
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import as_tensor
from quantstudio.engine.graph.runtime import worker_threads
from quantstudio.engine.model.derive import derived_graph, editable_copy
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.recovery.layer_matrix import LayerMatrix, layer_matrix
from quantstudio.engine.torch_graph.device import resolve_device, torch_settings
from quantstudio.engine.torch_graph.module import Hook, Node, TorchGraph, Value
from quantstudio.engine.torch_graph.registry import Result

Tensor = torch.Tensor
_BATCH = 16
# Places of a sample that are looked at.
_PLACES = 256
# Channels of fewer inputs have none to spare.
_FEWEST_COLUMNS = 8
_OPERATORS = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """A layer whose weights may become zero.

    Attributes:
        weight: Name of the weight.
        matrix: Weight and data as matrices.
        inputs: Input channels of a group; the rest of a column is the kernel.
    """

    weight: str
    matrix: LayerMatrix
    inputs: int


def sparsified(
    graph: Graph, context: StepContext, settings: SparsifySettings, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with weights at zero.

    Raises:
        RecipeError: no layer has a name that is to be kept.
        CalibrationError: what a layer reads, or a weight, is not finite.
        UnsupportedOpError: torch cannot compute the network.
        JobCancelled: `cancel` was set.
    """
    device = resolve_device(context.device)
    with torch_settings(worker_threads()), torch.no_grad():
        module = TorchGraph(graph.proto).to(device)
        layers = _layers(graph, module, kept_layers(graph, settings.keep, "sparsify"))
        if not layers:
            return StepOutcome(graph, "No layer has weights to spare.", {"layers": {}})
        sizes: Mapping[str, Tensor] = {}
        if settings.score is Score.MOMENTS:
            sizes = _input_sizes(module, layers, context, settings.samples, reporter, cancel)
        return _written(graph, module, layers, sizes, settings)


def _layers(graph: Graph, module: TorchGraph, kept: frozenset[str]) -> dict[str, _Layer]:
    found, taken = {}, set()
    for layer in graph.layers:
        name = layer.weight_name
        is_open = layer.op_type in _OPERATORS and not layer.scope and layer.name not in kept
        if not is_open or not layer.quantizable or name in taken or not module.has_node(layer.name):
            continue
        node = module.node(layer.name)
        weight = module.initializer(name)
        matrix = layer_matrix(node, list(node.inputs).index(name), weight)
        if matrix is None or weight.dtype != torch.float32:
            continue
        columns = matrix.to_matrix(weight).shape[2]
        if columns >= _FEWEST_COLUMNS:
            inputs = weight.shape[1] if layer.op_type == "Conv" else columns
            found[layer.name] = _Layer(name, matrix, int(inputs))
            taken.add(name)
    return found


def _input_sizes(
    module: TorchGraph,
    layers: Mapping[str, _Layer],
    context: StepContext,
    samples: int,
    reporter: Reporter,
    cancel: CancelToken,
) -> dict[str, Tensor]:
    """Root of the summed square of what each column multiplies, by layer, [G, 1, K]."""
    sums: dict[str, Tensor] = {}

    def measured(layer: _Layer) -> Hook:
        def hook(node: Node, inputs: tuple[Value, ...]) -> Result:
            data = inputs[layer.matrix.data_slot]
            if data is not None:
                rows = layer.matrix.rows_of(data, 0, _PLACES)
                squares = rows.double().square().sum(2)[:, None]
                sums[node.name] = sums[node.name] + squares if node.name in sums else squares
            return node.compute(*inputs)

        return hook

    module.hooks = {name: measured(layer) for name, layer in layers.items()}
    dataset = context.dataset
    count = min(samples, len(dataset))
    for batch in dataset.batches(_BATCH, stop=count):
        cancel.raise_if_set()
        reporter.progress(batch.start, count, "samples", "Measuring what weights multiply")
        module.run({name: torch.tensor(array) for name, array in batch.feed.items()})
    module.hooks = {}
    for name, total in sums.items():
        if not bool(torch.isfinite(total).all()):
            raise CalibrationError("what it reads is not finite on these samples", where=name)
    return {name: total.sqrt() for name, total in sums.items()}


def _written(
    graph: Graph,
    module: TorchGraph,
    layers: Mapping[str, _Layer],
    sizes: Mapping[str, Tensor],
    settings: SparsifySettings,
) -> StepOutcome:
    values: dict[str, NDArray[np.float32]] = {}
    shares: dict[str, float] = {}
    for name, layer in layers.items():
        weight = module.initializer(layer.weight)
        if not bool(torch.isfinite(weight).all()):
            raise CalibrationError("its weights hold NaN or infinity", where=name)
        matrix = layer.matrix.to_matrix(weight)
        score = matrix.double().abs()
        if name in sizes:
            score = score * sizes[name]
        left = _left(score, layer.inputs, settings)
        made = layer.matrix.to_weight(torch.where(left, matrix, torch.zeros_like(matrix)))
        values[layer.weight] = made.detach().cpu().numpy()
        shares[name] = float((made == 0).double().mean())
    model = editable_copy(graph)
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(as_tensor(tensor.name, np.ascontiguousarray(values[tensor.name])))
    zeros = sum(int((value == 0).sum()) for value in values.values())
    share = zeros / max(1, sum(value.size for value in values.values()))
    where = (
        "" if settings.pattern is Pattern.ANYWHERE else f", {settings.pattern} of neighbouring inputs left"
    )
    summary = (
        f"Set {percent(share)} of the weights of {counted(len(layers), 'layer')} to zero{where}: it runs "
        "dense, as fast as before, and only compressing the file makes it smaller."
    )
    details = {"layers": shares, "zeros": share}
    return StepOutcome(derived_graph(graph, model, "Set weights to zero."), summary, details)


def _left(score: Tensor, inputs: int, settings: SparsifySettings) -> Tensor:
    """Which weights stay, [G, O, K]; among equals those that come first."""
    block = settings.pattern.block
    if block is None:
        gone = round(score.shape[2] * settings.share)
        return _ranks(score) < score.shape[2] - gone
    left, of = block
    groups, outputs, columns = score.shape
    # Neighbours are input channels at one place of the kernel.
    turned = score.reshape(groups, outputs, inputs, columns // inputs).transpose(2, 3)
    whole = inputs // of * of
    stays = torch.ones_like(turned, dtype=torch.bool)
    parts = turned[..., :whole].reshape(*turned.shape[:3], -1, of)
    stays[..., :whole] = (_ranks(parts) < left).reshape(*turned.shape[:3], whole)
    return stays.transpose(2, 3).reshape(score.shape)


def _ranks(score: Tensor) -> Tensor:
    """Place of each value among its row, the largest first."""
    return score.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
