"""Dynamic INT8: the activation range is measured on every run, weights are S8 per channel.

DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul, which ONNX Runtime fuses to DynamicQuantizeMatMul, or
to MatMulIntegerToFloat where several layers read the same quantized input. LSTM has a kernel of its own in
ONNX Runtime, DynamicQuantizeLSTM, and no form in standard ONNX.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from quantstudio.core.precision import Granularity
from quantstudio.engine.quantization.layer_node import LayerNode
from quantstudio.engine.quantization.packed_weights import packed_values
from quantstudio.engine.quantization.quantized_weights import int8_constants, without_groups, zero_points
from quantstudio.engine.quantization.weights import quantize_weight

CONTRIB_DOMAIN = "com.microsoft"


def write_dynamic(layer: LayerNode) -> None:
    """Write a Gemm or MatMul with a constant second operand, or an LSTM."""
    if layer.node.op_type == "LSTM":
        _write_lstm(layer)
        return
    nodes, name = layer.nodes, layer.name
    source = layer.product_source(without_groups(layer.scheme))
    if source.value.ndim != 2:
        source = replace(source, scheme=replace(source.scheme, granularity=Granularity.PER_TENSOR))
    weight = source.quantized()
    values, scales = int8_constants(nodes, weight, source.name, source.key)
    zeros = [] if nodes.names.is_short else [zero_points(nodes, weight, source.name, source.key)]
    data, data_scale, data_zero = _quantized_input(layer)
    integer = nodes.add(
        "MatMulInteger",
        [data, values, data_zero, *zeros],
        name,
        outputs=[nodes.names.fresh(f"{name}_integer")],
        own_name=True,
    )
    real = nodes.add("Cast", [integer], f"{name}_Cast", to=TensorProto.FLOAT)
    scale = nodes.add("Mul", [data_scale, scales], f"{name}_scale_Mul")
    output = layer.node.output[0]
    if layer.input(2):
        product = nodes.add("Mul", [real, scale], f"{name}_Mul")
        layer.add_gemm_bias(product, output)
    else:
        nodes.add("Mul", [real, scale], f"{name}_Mul", outputs=[output])


def _write_lstm(layer: LayerNode) -> None:
    """DynamicQuantizeLSTM; it takes both weights with the gates along the last axis."""
    inputs = [layer.input(index) for index in range(8)]
    for index, key in ((1, "w"), (2, "r")):
        values, scales = _lstm_weight(layer, index)
        constants = layer.nodes.constants
        inputs[index] = packed_values(
            layer.nodes, values, layer.scheme.weights, f"{layer.name}_{key}", (0, 2)
        )
        inputs.append(constants.add(f"{layer.name}_{key}_scale", scales))
        inputs.append(constants.add(f"{layer.name}_{key}_zero_point", np.zeros(scales.shape, np.int8)))
    # The kernel knows no `layout`; the planner lets only the default one through.
    attributes = {
        item.name: onnx.helper.get_attribute_value(item)
        for item in layer.node.attribute
        if item.name != "layout"
    }
    layer.nodes.add(
        "DynamicQuantizeLSTM",
        inputs,
        layer.name,
        outputs=list(layer.node.output),
        own_name=True,
        domain=CONTRIB_DOMAIN,
        **attributes,
    )


def _lstm_weight(layer: LayerNode, index: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Integers [directions, columns, 4 * hidden] and scales [directions, 4 * hidden]."""
    scheme = without_groups(layer.scheme)
    each = [
        quantize_weight(part, scheme, 0, layer.clip, layer.max_bits, is_narrow=layer.is_narrow)
        for part in layer.weight(index)
    ]
    gates = layer.weight(index).shape[1]
    values = np.ascontiguousarray(np.stack([one.values.T for one in each]))
    return values, np.stack([np.broadcast_to(one.scales, (gates,)) for one in each])


def _quantized_input(layer: LayerNode) -> tuple[str, str, str]:
    """Integer values, scale and zero point of the input; layers that read the same input share them."""
    nodes, tensor = layer.nodes, layer.input(0)
    key = ("dynamic", tensor)
    outputs = [f"{tensor}_dynamic{suffix}" for suffix in ("", "_scale", "_zero_point")]
    made = nodes.made(key)
    if made is None:
        outputs = [nodes.names.fresh(name) for name in outputs]
        nodes.add("DynamicQuantizeLinear", [tensor], f"{tensor}_DynamicQuantizeLinear", outputs=outputs)
        nodes.keep(key, "\n".join(outputs))
    else:
        outputs = made.split("\n")
    return outputs[0], outputs[1], outputs[2]
