"""Blocks of few bits in a file, and tables that a decoder reads at both ends.

What stands here is standard ONNX that ONNX Runtime folds at load. Weights of two and three bits lie in planes
of bits; `BitShift`, `BitwiseAnd` and Casts make INT4 of them, and DequantizeLinear with MatMul becomes one
MatMulNBits (seen in 1.31: as fast as a file of INT4). An embedding that is the head, too, is stored once, by
rows: the embedding gathers rows, the head takes their transpose.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import LayerScheme
from quantstudio.engine.graph.builder import NodeList
from quantstudio.engine.graph.view import GraphView
from quantstudio.engine.quantization.quantized_weights import int4_zeros
from quantstudio.engine.quantization.weights import QuantizedWeight

# Widths of the planes a value of so many bits lies in, the lowest first.
_PLANES = {1: (2,), 2: (2,), 3: (2, 1)}
_ROWS_COMPARED = 4


def in_planes(scheme: LayerScheme, size: int) -> bool:
    """Whether so many weights of a scheme lie in planes: below four bits, in whole bytes."""
    return scheme.weights.bits in _PLANES and not scheme.weights.has_codebook and size % 8 == 0


def add_planes(nodes: NodeList, weight: QuantizedWeight, bits: int, name: str, key: Hashable) -> str:
    """A weight in planes of bits and what makes floats of it; the name of its output.

    Args:
        nodes: Where it is written.
        weight: Integers that two or three bits hold.
        bits: Bits of the format; signs take two.
        name: Of the initializer it comes from.
        key: Equal keys share what is written.
    """
    made = nodes.made(("planes", key))
    if made is not None:
        return made
    widths, constants = _PLANES[bits], nodes.constants
    lowest = np.int8(1 << sum(widths) - 1)
    codes = (weight.values.reshape(-1) + lowest).astype(np.uint8)
    values = _unpacked(nodes, codes & np.uint8(3), widths[0], name)
    if len(widths) > 1:
        top = _unpacked(nodes, codes >> np.uint8(2), widths[1], f"{name}_top")
        place = constants.add(f"{name}_place", np.uint8(2))
        top = nodes.add("BitShift", [top, place], f"{name}_BitShift", direction="LEFT")
        values = nodes.add("BitwiseOr", [values, top], f"{name}_BitwiseOr")
    values = nodes.add("Cast", [values], f"{name}_Cast", to=TensorProto.INT8)
    values = nodes.add("Sub", [values, constants.add(f"{name}_lowest", lowest)], f"{name}_Sub")
    shape = constants.add(f"{name}_shape", np.array(weight.values.shape, np.int64))
    values = nodes.add("Reshape", [values, shape], f"{name}_Reshape")
    values = nodes.add("Cast", [values], f"{name}_Cast", to=TensorProto.INT4)
    inputs = [values, constants.add(f"{name}_scale", weight.scales), *int4_zeros(nodes, weight, name)]
    attributes: dict[str, Any] = {} if weight.axis is None else {"axis": weight.axis}
    if weight.group_size:
        attributes["block_size"] = weight.group_size
    output = [nodes.names.fresh(f"{name}_dequantized")]
    nodes.add("DequantizeLinear", inputs, f"{name}_DequantizeLinear", outputs=output, **attributes)
    return nodes.keep(("planes", key), output[0])


def _unpacked(nodes: NodeList, codes: NDArray[np.uint8], width: int, name: str) -> str:
    """Codes of a few bits, packed into bytes part by part, and what takes them apart again."""
    count = 8 // width
    parts = codes.reshape(count, -1)
    packed = np.zeros(parts.shape[1], np.uint8)
    for place, part in enumerate(parts):
        packed |= (part << np.uint8(place * width)).astype(np.uint8)
    constants = nodes.constants
    source = constants.add(f"{name}_packed", packed)
    mask = constants.add(f"{name}_mask", np.uint8((1 << width) - 1))
    apart = []
    for place in range(count):
        shift = constants.add(f"{name}_shift", np.uint8(place * width))
        moved = (
            nodes.add("BitShift", [source, shift], f"{name}_BitShift", direction="RIGHT") if place else source
        )
        apart.append(nodes.add("BitwiseAnd", [moved, mask], f"{name}_BitwiseAnd"))
    return nodes.add("Concat", apart, f"{name}_Concat", axis=0)


def tied_tables(
    view: GraphView, layers: Mapping[str, LayerInfo], schemes: Mapping[str, LayerScheme]
) -> dict[str, str]:
    """The table of rows that the matrix of a product is the transpose of, by the product's layer.

    Exporters write the head of a decoder as a copy of its embedding, and so does the folding of a Transpose.
    Only pairs that are stored alone in one and the same scheme are named: one copy serves both.
    """
    found: dict[str, str] = {}
    tables = [layer for layer in layers.values() if layer.op_type == "Gather" and not layer.scope]
    for table in tables:
        scheme = schemes.get(table.name)
        if scheme is None or not scheme.is_weight_only or len(table.weight_shape) != 2:
            continue
        for layer in layers.values():
            is_head = layer.op_type == "MatMul" and layer.weight_shape == table.weight_shape[::-1]
            if not is_head or layer.scope or schemes.get(layer.name) != scheme:
                continue
            if _is_transpose(view, layer.weight_name, table.weight_name):
                found[layer.name] = table.weight_name
    return found


def _is_transpose(view: GraphView, matrix: str, table: str) -> bool:
    first, second = view.array(matrix), view.array(table)
    if first is None or second is None or first.shape != second.shape[::-1]:
        return False
    # Two large arrays are compared whole only where a few rows agree.
    rows = slice(0, _ROWS_COMPARED)
    return bool(np.array_equal(first.T[rows], second[rows]) and np.array_equal(first.T, second))
