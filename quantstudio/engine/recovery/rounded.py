"""Weights as their plan rounds them: on the grid of their layer, as floats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.layers import LayerInfo
from quantstudio.core.recipe import PACKED_FILES
from quantstudio.core.target import target_named
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import as_array, as_tensor, used_names
from quantstudio.engine.quantization.quantized_weights import without_groups
from quantstudio.engine.quantization.weights import quantize_weight

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def rounded_weight(
    weight: NDArray[np.float32], layer: LayerInfo, plan: EffectivePlan
) -> NDArray[np.float32] | None:
    """What the plan makes of a weight of a convolution or product, integers times scales; None of others.

    Args:
        weight: The weight, as the graph holds it; it need not be the one the layer has now.
        layer: Its layer.
        plan: What the layers become.

    Raises:
        BuildError: the weight holds NaN or infinity.
    """
    scheme = plan.schemes[layer.name]
    if layer.op_type not in _PRODUCTS or layer.scope or not scheme.weights.is_integer:
        return None
    if layer.op_type == "MatMul" and weight.ndim != 2:
        return None
    max_bits = 8 if scheme.is_weight_only else target_named(plan.target).weight_bits
    scheme = scheme if scheme.is_weight_only else without_groups(scheme)
    clip = plan.weight_ranges.get(layer.name)
    made = quantize_weight(
        weight, scheme, layer.channel_axis, clip, max_bits, is_narrow=plan.emission < PACKED_FILES
    )
    return made.dequantized


def round_weights(graph: Graph, plan: EffectivePlan) -> None:
    """Put in place of the weights what the plan makes of them; the quantizer keeps what lies on a grid.

    Args:
        graph: Graph to edit, in place; its model must be a copy. A weight that two layers read stays.
        plan: What its layers become.

    Raises:
        BuildError: a weight holds NaN or infinity.
    """
    tensors = {tensor.name: tensor for tensor in graph.proto.graph.initializer}
    uses = list(used_names(graph.proto.graph))
    for layer in graph.layers:
        if layer.weight_name not in tensors or uses.count(layer.weight_name) != 1:
            continue
        weight = as_array(tensors[layer.weight_name])
        if weight.dtype != np.float32:
            continue
        made = rounded_weight(weight.astype(np.float32, copy=False), layer, plan)
        if made is not None:
            tensors[layer.weight_name].CopyFrom(as_tensor(layer.weight_name, made))
