"""The weights a variant computes with, in the shapes of the graph they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import onnx
from numpy.typing import NDArray

from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.errors import BuildError
from quantstudio.core.precision import FP32, Granularity, LayerScheme, Precision
from quantstudio.core.recipe import PACKED_FILES
from quantstudio.core.target import target_named
from quantstudio.engine.graph.builder import Constants, NodeList
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.names import NameSource
from quantstudio.engine.graph.protos import bodies
from quantstudio.engine.graph.view import GraphView, Scope
from quantstudio.engine.quantization.activations import ActivationParams
from quantstudio.engine.quantization.layer_node import LayerNode
from quantstudio.engine.quantization.plan import Plan, activation_inputs
from quantstudio.engine.quantization.qdq import gemm_bias
from quantstudio.engine.quantization.quantized_weights import (
    FloatArray,
    WeightSource,
    with_room_for_bias,
    without_groups,
)
from quantstudio.engine.quantization.weights import QuantizedWeight, quantize_weight

# A layer and the input of its node that holds a weight.
WeightSlot = tuple[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class ScaleLayout:
    """Which values of a weight share a scale.

    Attributes:
        axis: Axis the scales run along (per channel: the channels, per group: the grouped axis); None for
            one scale.
        group_size: Weights a scale covers along `axis`; 0 unless per group.
        scales: The scales: [], [C], or the weight's shape with `axis` shortened to the groups; those of the
            weight as the graph holds it.
    """

    axis: int | None
    group_size: int = 0
    scales: FloatArray = field(default_factory=lambda: np.ones((), np.float32))


@dataclass(slots=True)
class WrittenWeights:
    """What the emitter writes of the weights of all layers.

    Attributes:
        values: Dequantized weight by layer and input of its node, shape of the graph's initializer.
        scales: How the scales of an integer weight lie in it.
        bias_steps: Step of the 32-bit bias by layer, shape [C] or [].
        bias_factors: What a layer multiplies its bias with before that, where it is not 1.
    """

    values: dict[WeightSlot, FloatArray] = field(default_factory=dict)
    scales: dict[WeightSlot, ScaleLayout] = field(default_factory=dict)
    bias_steps: dict[str, FloatArray] = field(default_factory=dict)
    bias_factors: dict[str, float] = field(default_factory=dict)


def written_weights(graph: Graph, view: GraphView, plan: Plan, effective: EffectivePlan) -> WrittenWeights:
    """The weights of every layer that is not FP32, by the emitter's own quantizers.

    Args:
        graph: Normalised model.
        view: Its main graph as the plan was made for it.
        plan: What is on integers.
        effective: What every layer becomes.

    Raises:
        BuildError: a weight holds NaN or infinity; names the layer.
    """
    layers = {layer.name: layer for layer in graph.layers}
    most = target_named(effective.target).weight_bits
    nodes = NodeList(NameSource(graph.proto), Constants(NameSource(graph.proto)))
    found = WrittenWeights()
    for node, scope in _nodes(view.nodes, view.main):
        layer, scheme = layers.get(node.name), plan.schemes.get(node.name, FP32)
        if layer is None or scheme == FP32:
            continue
        inputs = _read_params(node, view, plan) if scope.parent is None else {}
        written = LayerNode(
            node=node,
            layer=layer,
            scheme=scheme,
            scope=scope,
            nodes=nodes,
            clip=effective.weight_ranges.get(node.name),
            inputs=inputs,
            max_bits=8 if scheme.is_weight_only else most,
            is_narrow=effective.emission < PACKED_FILES,
        )
        try:
            _add(written, found)
        except BuildError as error:
            raise BuildError(error.what, where=error.where or layer.name, hint=error.hint) from error
    return found


def _nodes(nodes: list[onnx.NodeProto], scope: Scope) -> Iterator[tuple[onnx.NodeProto, Scope]]:
    """Every node with the scope its constants are looked up in, bodies included."""
    for node in nodes:
        yield node, scope
        for body in bodies(node):
            inner = Scope(body, scope, {tensor.name: tensor for tensor in body.initializer})
            yield from _nodes(list(body.node), inner)


def _read_params(node: onnx.NodeProto, view: GraphView, plan: Plan) -> dict[int, ActivationParams]:
    """Scale and zero point of each input of an integer layer."""
    if node.name not in plan.integer:
        return {}
    bits = plan.schemes[node.name].activations.bits
    return {
        index: plan.narrowed.get((name, bits), plan.quantized[name])
        for index, name in activation_inputs(node, view)
        if name in plan.quantized
    }


def _add(layer: LayerNode, found: WrittenWeights) -> None:
    indices = layer.weight_indices()
    if layer.scheme.weights == Precision.FP16:
        for index in indices:
            half = np.asarray(layer.weight(index).astype(np.float16), dtype=np.float32)
            found.values[layer.name, index] = half
    elif layer.node.op_type == "LSTM" and layer.scheme.is_dynamic:
        for index in indices:
            found.values[layer.name, index] = _by_direction(layer, index)
    elif layer.scheme.is_weight_only:
        for index in indices:
            _put(found, (layer.name, index), layer.source(index, layer.scheme).quantized())
    elif 1 in indices:
        _add_integer(layer, found)


def _by_direction(layer: LayerNode, index: int) -> FloatArray:
    """A recurrent weight [directions, 4 * hidden, columns], each direction by itself."""
    scheme = without_groups(layer.scheme)
    parts = layer.weight(index)
    return np.stack(
        [
            quantize_weight(
                part, scheme, 0, layer.clip, layer.max_bits, is_narrow=layer.is_narrow
            ).dequantized
            for part in parts
        ]
    )


def _add_integer(layer: LayerNode, found: WrittenWeights) -> None:
    """The weight of a static or dynamic layer, and the grid of its bias."""
    source, alpha = _source(layer), 1.0
    if layer.node.op_type == "Gemm":
        alpha = float(layer.attribute("alpha", 1.0))
    weight, bias = source.quantized(), _bias(layer, source)
    if bias is not None:
        scale = layer.inputs[0].scale
        weight, _ = with_room_for_bias(source, weight, bias, scale)
        found.bias_steps[layer.name] = np.asarray(weight.scales * scale, dtype=np.float32)
        beta = float(layer.attribute("beta", 1.0))
        if beta != 1.0:
            found.bias_factors[layer.name] = beta
    _put(found, (layer.name, 1), weight, alpha)


def _put(found: WrittenWeights, slot: WeightSlot, weight: QuantizedWeight, alpha: float = 1.0) -> None:
    value = weight.dequantized if alpha == 1.0 else weight.dequantized / np.float32(alpha)
    found.values[slot] = np.ascontiguousarray(value, dtype=np.float32)
    scales = np.asarray(weight.scales / np.float32(alpha), dtype=np.float32)
    found.scales[slot] = ScaleLayout(weight.axis, weight.group_size, scales)


def _source(layer: LayerNode) -> WeightSource:
    scheme = without_groups(layer.scheme)
    source = layer.gemm_source(scheme) if layer.node.op_type == "Gemm" else layer.source(1, scheme)
    if layer.node.op_type == "MatMul" and source.value.ndim != 2:
        return replace(source, scheme=_one_scale(scheme))
    return source


def _one_scale(scheme: LayerScheme) -> LayerScheme:
    return replace(scheme, granularity=Granularity.PER_TENSOR)


def _bias(layer: LayerNode, source: WeightSource) -> NDArray[np.float32] | None:
    """The bias that becomes 32-bit integers, or None where it stays float or there is none."""
    if not layer.scheme.is_static:
        return None
    if layer.node.op_type == "Gemm":
        return gemm_bias(layer, source.value.shape[source.channel_axis or 0])
    if layer.node.op_type != "Conv":
        return None
    return cast("NDArray[np.float32] | None", layer.constant(2))
