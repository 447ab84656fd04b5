"""Dynamic INT8: the activation range is measured on every run, weights are S8 per channel.

DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul, which ONNX Runtime fuses to DynamicQuantizeMatMul, or
to MatMulIntegerToFloat where several layers read the same quantized input.
"""

from __future__ import annotations

from dataclasses import replace

from onnx import TensorProto

from quantstudio.core.precision import Granularity
from quantstudio.engine.quantization.layer_node import LayerNode
from quantstudio.engine.quantization.quantized_weights import int8_constants, without_groups


def write_dynamic(layer: LayerNode) -> None:
    """Write a Gemm or MatMul with a constant second operand."""
    nodes, name = layer.nodes, layer.name
    source = layer.product_source(without_groups(layer.scheme))
    if source.value.ndim != 2:
        source = replace(source, scheme=replace(source.scheme, granularity=Granularity.PER_TENSOR))
    values, scales, zeros = int8_constants(nodes, source.quantized(), source.name, source.key)
    data, data_scale, data_zero = _quantized_input(layer)
    integer = nodes.add(
        "MatMulInteger",
        [data, values, data_zero, zeros],
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
