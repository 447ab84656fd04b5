"""Static INT8: Q/DQ pairs around activations, INT8 weights and INT32 biases behind DequantizeLinear.

U8 activations with S8 per-channel weights is the combination whose kernels are fast on x86; ONNX Runtime
fuses it to QLinearConv, QGemm, QLinearMatMul and MatMulIntegerToFloat.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from quantstudio.core.affine import IntegerGrid
from quantstudio.core.precision import Granularity
from quantstudio.engine.graph.builder import NodeList
from quantstudio.engine.quantization.activations import ActivationParams, range_of_constant
from quantstudio.engine.quantization.layer_node import LayerNode
from quantstudio.engine.quantization.quantized_weights import (
    FloatArray,
    WeightSource,
    add_dequantized,
    int8_constants,
    with_room_for_bias,
    without_groups,
)
from quantstudio.engine.quantization.weights import QuantizedWeight


def add_pair(nodes: NodeList, tensor: str, source: str, output: str, params: ActivationParams) -> None:
    """A Q/DQ pair reading `source` and writing `output`, with constants named after `tensor`.

    A QuantizeLinear fills the byte, so that fewer bits need a Clip of its integers; between integers, it
    keeps none of the kernels around from fusing.
    """
    scale, zero_point = _activation_constants(nodes, tensor, params)
    quantized = nodes.add(
        "QuantizeLinear",
        [source, scale, zero_point],
        f"{tensor}_QuantizeLinear",
        outputs=[nodes.names.fresh(f"{tensor}_quantized")],
    )
    if params.is_narrow:
        limits = _limits(nodes, params)
        quantized = nodes.add("Clip", [quantized, *limits], f"{tensor}_Clip")
    nodes.add(
        "DequantizeLinear",
        [quantized, scale, zero_point],
        f"{tensor}_DequantizeLinear",
        outputs=[output],
    )


def _limits(nodes: NodeList, params: ActivationParams) -> tuple[str, ...]:
    """Constants for the smallest and the largest integer of a grid."""
    key = ("limits", params.grid)
    name = f"int{params.grid.bits}"
    return nodes.constants.shared(key) or nodes.constants.share(
        key,
        (
            nodes.constants.add(f"{name}_low", params.as_byte(params.grid.low)),
            nodes.constants.add(f"{name}_high", params.as_byte(params.grid.high)),
        ),
    )


def _activation_constants(nodes: NodeList, tensor: str, params: ActivationParams) -> tuple[str, str]:
    """Constants for scale and zero point, shared by tensors with equal parameters."""
    key = ("activation", float(params.scale), params.zero_point, params.grid.signed)
    constants = nodes.constants
    kept = constants.shared(key)
    if kept is None:
        scale, zero = constants.add(f"{tensor}_scale", params.scale), params.as_byte(params.zero_point)
        zero_key = ("zero point", str(zero.dtype), int(zero))
        point = constants.shared(zero_key) if nodes.names.is_short else None
        point = point or constants.share(zero_key, (constants.add(f"{tensor}_zero_point", zero),))
        kept = constants.share(key, (scale, *point))
    return kept[0], kept[1]


def add_quantized_constant(nodes: NodeList, name: str, value: FloatArray, grid: IntegerGrid) -> str:
    """A constant operand of an integer operator, behind DequantizeLinear; the float name it gets."""
    made = nodes.made(("operand", name))
    if made is not None:
        return made
    params = range_of_constant(value, grid)
    scale, zero_point = _activation_constants(nodes, name, params)
    integers = np.rint(value / params.scale) + params.zero_point
    quantized = nodes.constants.add(f"{name}_quantized", params.as_byte(integers))
    output = nodes.add(
        "DequantizeLinear",
        [quantized, scale, zero_point],
        f"{name}_DequantizeLinear",
        outputs=[nodes.names.fresh(f"{name}_dequantized")],
    )
    return nodes.keep(("operand", name), output)


def write_static(layer: LayerNode) -> None:
    """Write a layer whose data input comes out of a Q/DQ pair."""
    match layer.node.op_type:
        case "Conv":
            _write_conv(layer)
        case "Gemm":
            _write_gemm(layer)
        case _:
            _write_matmul(layer)


def _write_conv(layer: LayerNode) -> None:
    source = layer.source(1, without_groups(layer.scheme))
    bias = layer.constant(2)
    weight, bias_name = _weight_and_bias(
        layer, source, None if bias is None else np.asarray(bias, np.float32)
    )
    layer.node.input[1] = weight
    if bias_name:
        layer.node.input[2] = bias_name
    layer.nodes.append(layer.node)


def _write_matmul(layer: LayerNode) -> None:
    """A product; with two activations there is nothing to do, their Q/DQ pairs say it all."""
    if layer.weight_indices():
        scheme = without_groups(layer.scheme)
        source = layer.source(1, scheme)
        if source.value.ndim != 2:
            # One scale for a stack of matrices: integer kernels take scales along the columns of one matrix.
            source = replace(source, scheme=replace(scheme, granularity=Granularity.PER_TENSOR))
        layer.node.input[1] = add_dequantized(layer.nodes, source.quantized(), source.name, source.key)
    layer.nodes.append(layer.node)


def _write_gemm(layer: LayerNode) -> None:
    source = layer.gemm_source(without_groups(layer.scheme))
    columns = source.value.shape[source.channel_axis or 0]
    bias = gemm_bias(layer, columns)
    if bias is None and layer.input(2):
        _write_gemm_apart(layer)
        return
    layer.node.input[1], bias_name = _weight_and_bias(layer, source, bias)
    if bias_name:
        layer.node.input[2] = bias_name
    layer.replace_attributes(alpha=None, beta=None)
    layer.nodes.append(layer.node)


def gemm_bias(layer: LayerNode, columns: int) -> FloatArray | None:
    """Beta times C as one value a column, or None where C is not constant or not of that form."""
    value = layer.constant(2)
    if value is None or value.dtype != np.float32 or value.size not in (1, columns):
        return None
    if value.ndim == 2 and value.shape[0] != 1:
        return None
    scaled = value.reshape(-1) * np.float32(layer.attribute("beta", 1.0))
    return np.ascontiguousarray(np.broadcast_to(scaled, (columns,)))


def _write_gemm_apart(layer: LayerNode) -> None:
    """A Gemm whose C is not a row of constants: integer MatMul, then a float Add."""
    source = layer.product_source(without_groups(layer.scheme))
    weight = add_dequantized(layer.nodes, source.quantized(), source.name, source.key)
    product = layer.nodes.names.fresh(f"{layer.name}_product")
    layer.nodes.add("MatMul", [layer.input(0), weight], layer.name, outputs=[product], own_name=True)
    layer.add_gemm_bias(product, layer.node.output[0])


def _weight_and_bias(layer: LayerNode, source: WeightSource, bias: FloatArray | None) -> tuple[str, str]:
    """Names of the dequantized weight and bias; the bias name is empty without one."""
    input_scale = layer.inputs[0].scale
    weight, enlarged = with_room_for_bias(source, source.quantized(), bias, input_scale)
    key = (source.key, layer.name) if enlarged else source.key
    weight_name = add_dequantized(layer.nodes, weight, source.name, key)
    if bias is None:
        return weight_name, ""
    weight_scale = int8_constants(layer.nodes, weight, source.name, key)[1]
    return weight_name, _add_bias(layer, weight, bias, weight_scale)


def _add_bias(layer: LayerNode, weight: QuantizedWeight, bias: FloatArray, weight_scale: str) -> str:
    input_scale = layer.inputs[0].scale
    constants = layer.nodes.constants
    scales = (weight.scales * input_scale).astype(np.float32)
    integers = np.rint(bias.astype(np.float64) / scales.astype(np.float64))
    limit = 2**31 - 1
    name = f"{layer.name}_bias"
    inputs = [constants.add(f"{name}_quantized", np.clip(integers, -limit, limit).astype(np.int32))]
    if layer.nodes.names.is_short:
        # The product is computed when the file is loaded; the zero point is the default.
        factor = _activation_constants(layer.nodes, layer.input(0), layer.inputs[0])[0]
        inputs.append(layer.nodes.add("Mul", [weight_scale, factor], name))
    else:
        inputs.append(constants.add(f"{name}_scale", scales))
        inputs.append(constants.add(f"{name}_zero_point", np.zeros(scales.shape, np.int32)))
    output = layer.nodes.names.fresh(f"{name}_dequantized")
    attributes: dict[str, Any] = {} if weight.axis is None else {"axis": 0}
    return layer.nodes.add(
        "DequantizeLinear", inputs, f"{name}_DequantizeLinear", outputs=[output], **attributes
    )
