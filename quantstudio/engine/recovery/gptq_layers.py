"""The layers whose weights can be chosen with compensation, and what is known of each beforehand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.target import target_named
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.view import GraphView
from quantstudio.engine.quantization.block_weights import tied_tables
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.recovery.bias_targets import BiasTarget, find_targets
from quantstudio.engine.recovery.layer_matrix import LayerMatrix, layer_matrix
from quantstudio.engine.recovery.weight_formats import LayerFormat, layer_format

Tensor = torch.Tensor

_OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True, eq=False)
class GptqLayer:
    """A layer to solve.

    Attributes:
        name: The layer.
        weight: Initializer that holds its weight.
        matrix: Weight and data as matrices.
        format: What values the weights may take.
        bias: Where its mean error can be taken up; None where it has no constant bias.
        readers: Layers that read the same weight, in order.
    """

    name: str
    weight: str
    matrix: LayerMatrix
    format: LayerFormat
    bias: BiasTarget | None
    readers: tuple[str, ...]


def gptq_layers(graph: Graph, fake: FakeQuantized, effective: EffectivePlan) -> dict[str, GptqLayer]:
    """The layers to solve by name, in order of execution.

    A weight that anything else reads, or in another format, stays as it is: what is good for one reader would
    be on no grid of the other. So do one whose range was set by hand, and the head of a decoder that is its
    embedding, too, which the file holds once for both.

    Args:
        graph: The network.
        fake: The same in torch, rounded as planned.
        effective: What every layer becomes.
    """
    module, schemes = fake.network, fake.plan.schemes
    view = GraphView(graph.proto)
    weight_bits = target_named(effective.target).weight_bits
    targets = {target.layer: target for target in find_targets(graph)}
    tied = tied_tables(view, {layer.name: layer for layer in graph.layers}, schemes)
    readers: dict[str, list[str]] = defaultdict(list)
    for layer in graph.layers:
        if layer.weight_name:
            readers[layer.weight_name].append(layer.name)
    found: dict[str, GptqLayer] = {}
    for layer in graph.layers:
        scheme, name = schemes.get(layer.name), layer.weight_name
        if scheme is None or not scheme.weights.is_integer or not name or layer.scope or layer.name in tied:
            continue
        if layer.op_type not in _OPERATORS or not module.has_node(layer.name) or not view.is_constant(name):
            continue
        node = module.node(layer.name)
        slots = [slot for slot, given in enumerate(node.inputs) if given == name]
        if len(view.consumers[name]) != len(readers[name]) or len(slots) != 1:
            continue
        if layer.name in effective.weight_ranges or view.is_constant(node.inputs[1 - slots[0]]):
            continue
        weight = module.initializer(name)
        matrix = layer_matrix(node, slots[0], weight) if weight.dtype == torch.float32 else None
        if matrix is None:
            continue
        format_ = layer_format(
            scheme,
            is_split=matrix.groups > 1 and layer.op_type != "Conv",
            can_group=layer.op_type in ("Gemm", "MatMul") and weight.ndim == 2,
            weight_bits=weight_bits,
        )
        if format_ is None:
            continue
        readers_of = tuple(readers[name])
        found[layer.name] = GptqLayer(layer.name, name, matrix, format_, targets.get(layer.name), readers_of)
    return {name: layer for name, layer in found.items() if _agree(layer, found)}


def _agree(layer: GptqLayer, found: Mapping[str, GptqLayer]) -> bool:
    """Whether all readers of a weight are solved, in one format and with the same matrices."""
    others = [found.get(name) for name in layer.readers]
    return all(
        other is not None
        and other.format == layer.format
        and other.matrix.node.op_type == layer.matrix.node.op_type
        and other.matrix.slot == layer.matrix.slot
        and other.matrix.groups == layer.matrix.groups
        for other in others
    )
