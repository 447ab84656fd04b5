"""FP16 storage: half the bytes in the file, float32 arithmetic (x86 has no faster half-precision kernels)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from quantstudio.core.errors import BuildError
from quantstudio.engine.quantization.layer_node import LayerNode

# Largest finite half; beyond it a weight would become infinite.
LARGEST_HALF = float(np.finfo(np.float16).max)


def write_float16(layer: LayerNode) -> None:
    """Write a layer whose weights are float16 constants behind a Cast, which the runtime folds at load."""
    nodes = layer.nodes
    for index in layer.weight_indices():
        name = layer.input(index)
        made = nodes.made(("float16", name))
        if made is None:
            half = _as_half(layer, index)
            kept = nodes.constants.shared(("float16", name)) or nodes.constants.share(
                ("float16", name), (nodes.constants.add(f"{name}_float16", half),)
            )
            output = nodes.names.fresh(f"{name}_float32")
            nodes.add("Cast", kept, f"{name}_Cast", outputs=[output], to=TensorProto.FLOAT)
            made = nodes.keep(("float16", name), output)
        layer.node.input[index] = made
    nodes.append(layer.node)


def _as_half(layer: LayerNode, index: int) -> NDArray[np.float16]:
    """The weight in half precision.

    Raises:
        BuildError: a value is beyond the range of half precision; clipping it would change the network.
    """
    weight = layer.weight(index)
    if np.isnan(weight).any():
        raise BuildError(
            "its weight holds NaN", where=layer.name, hint="Keep the layer in FP32, or repair the model"
        )
    largest = float(np.abs(weight).max(initial=0.0))
    if not largest <= LARGEST_HALF:
        raise BuildError(
            f"its weights reach {largest:g}, FP16 ends at {LARGEST_HALF:g}",
            where=layer.name,
            hint="Give the layer another precision, such as fp32 or weight-int8",
        )
    return weight.astype(np.float16)
