"""Weights alone on integers, of two to eight bits: integers in the file, float activations.

A MatMul behind a DequantizeLinear of its weight becomes one MatMulNBits kernel in ONNX Runtime; Gemm does
not, so it is written as MatMul and Add. Nothing else has such a kernel, and a DequantizeLinear it cannot
fuse the runtime (1.31) computes on every run: convolutions took twice their float time. There Cast and Mul
bring the integers back, which it computes once, at load: smaller in the file, as fast as float.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from quantstudio.core.precision import BLOCK_SIZE
from quantstudio.engine.quantization.block_weights import add_planes, in_planes
from quantstudio.engine.quantization.layer_node import LayerNode
from quantstudio.engine.quantization.quantized_weights import (
    WeightSource,
    add_dequantized,
    add_dequantized_int4,
    add_unpacked,
    fits_int4,
)
from quantstudio.engine.quantization.weights import QuantizedWeight


def write_weight_only(layer: LayerNode) -> None:
    """Write a layer with integer weights and float activations."""
    op_type = layer.node.op_type
    if op_type == "Gather" and layer.attribute("axis", 0) == 0 and _write_gather(layer):
        return
    if op_type == "MatMul" and layer.table and _write_head(layer):
        return
    if op_type == "Gemm" and 1 in layer.weight_indices() and not layer.attribute("transA", 0):
        _write_gemm(layer)
        return
    for index in layer.weight_indices():
        source = layer.source(index, layer.scheme)
        fuses = op_type == "MatMul" and index == 1 and source.value.ndim == 2
        layer.node.input[index] = _dequantized(layer, source) if fuses else _unpacked(layer, source)
    layer.nodes.append(layer.node)


def _unpacked(layer: LayerNode, source: WeightSource) -> str:
    """The weight as Cast and Mul of constants; grouped integers only DequantizeLinear can scale."""
    weight = source.quantized()
    if weight.group_size:
        return _dequantized(layer, source)
    return add_unpacked(layer.nodes, weight, source.name, source.key, is_int4=fits_int4(layer.scheme))


def _dequantized(layer: LayerNode, source: WeightSource) -> str:
    if layer.nodes.is_packed and in_planes(layer.scheme, source.value.size):
        return add_planes(layer.nodes, source.quantized(), layer.scheme.weights.bits, source.name, source.key)
    add = add_dequantized_int4 if fits_int4(layer.scheme) else add_dequantized
    return add(layer.nodes, source.quantized(), source.name, source.key)


def _write_gemm(layer: LayerNode) -> None:
    weight = _dequantized(layer, layer.product_source(layer.scheme))
    output = layer.node.output[0]
    if not layer.input(2):
        layer.nodes.add("MatMul", [layer.input(0), weight], layer.name, outputs=[output], own_name=True)
        return
    product = layer.nodes.names.fresh(f"{layer.name}_product")
    layer.nodes.add("MatMul", [layer.input(0), weight], layer.name, outputs=[product], own_name=True)
    layer.add_gemm_bias(product, output)


def _write_gather(layer: LayerNode) -> bool:
    """Rows are picked as integers and dequantized afterwards: the table itself never becomes float.

    Returns:
        False where the rows cannot be put back together (a rank that is not recorded).
    """
    source = layer.source(0, layer.scheme)
    if source.value.ndim != 2 or source.channel_axis != 0:
        return False
    weight = source.quantized()
    if fits_int4(layer.scheme):
        return _gather_nibbles(layer, source, weight)
    if weight.group_size:
        return _gather_groups(layer, source, weight)
    kept = _rows(layer, source, weight)
    rows = _gather(layer, kept[0], layer.name, own_name=True)
    real = layer.nodes.add("Cast", [rows], f"{layer.name}_Cast", to=TensorProto.FLOAT)
    scale = _gather(layer, kept[1], f"{layer.name}_scale") if weight.axis is not None else kept[1]
    layer.nodes.add("Mul", [real, scale], f"{layer.name}_Mul", outputs=[layer.node.output[0]])
    return True


def _rows(layer: LayerNode, source: WeightSource, weight: QuantizedWeight) -> tuple[str, ...]:
    """Names of the INT8 rows of a table and of their scales: one a row, or [V, groups, 1]."""
    constants = layer.nodes.constants
    shape = (-1, 1) if not weight.group_size else (len(weight.values), -1, 1)
    scales = weight.scales.reshape(shape) if weight.axis is not None else weight.scales
    return constants.shared(("rows", source.key)) or constants.share(
        ("rows", source.key),
        (
            constants.add(f"{source.name}_quantized", weight.values),
            constants.add(f"{source.name}_scale", scales),
        ),
    )


def _gather_groups(layer: LayerNode, source: WeightSource, weight: QuantizedWeight) -> bool:
    """INT8 rows with a scale a group; False where groups are not whole, or the rank is not recorded."""
    rank, (_, width), size = layer.index_rank, source.value.shape, weight.group_size
    if layer.is_narrow or rank is None or width % size:
        return False
    nodes, constants, name = layer.nodes, layer.nodes.constants, layer.name
    kept = _rows(layer, source, weight)
    real = nodes.add(
        "Cast", [_gather(layer, kept[0], name, own_name=True)], f"{name}_Cast", to=TensorProto.FLOAT
    )
    parts = constants.add(f"{name}_groups", np.array([0] * rank + [width // size, size], np.int64))
    apart = nodes.add("Reshape", [real, parts], f"{name}_Reshape")
    if weight.zeros is not None:
        zeros = constants.add(f"{name}_zero_point", weight.zeros.reshape(len(weight.values), -1, 1))
        middle = nodes.add(
            "Cast", [_gather(layer, zeros, f"{name}_zero")], f"{name}_Cast", to=TensorProto.FLOAT
        )
        apart = nodes.add("Sub", [apart, middle], f"{name}_Sub")
    scaled = nodes.add("Mul", [apart, _gather(layer, kept[1], f"{name}_scale")], f"{name}_Mul")
    shape = constants.add(f"{name}_shape", np.array([0] * rank + [width], np.int64))
    nodes.add("Reshape", [scaled, shape], f"{name}_Reshape", outputs=[layer.node.output[0]])
    return True


def _write_head(layer: LayerNode) -> bool:
    """A product with the transpose of an embedding, of the embedding's own integers.

    Returns:
        False where the embedding is not stored by rows.
    """
    source = layer.table_source()
    weight = source.quantized()
    (count, width), size = source.value.shape, weight.group_size
    if weight.axis is None:
        return False
    groups = -(-width // size) if size else 1
    nodes, constants, name = layer.nodes, layer.nodes.constants, layer.name
    if fits_int4(layer.scheme):
        block = _block(source, weight)
        if block % 2:
            return False
        kept = _nibbles(layer, source, weight)
        both = _split(layer, kept[0])
        shape = constants.add(f"{name}_rows", np.array([count, groups * block], np.int64))
        rows = nodes.add("Reshape", [both, shape], f"{name}_Reshape")
        if groups * block != width:
            rows = _first_columns(layer, rows, width)
        rows = nodes.add("Cast", [rows], f"{name}_Cast", to=TensorProto.INT8)
        rows = nodes.add("Sub", [rows, constants.add(f"{name}_centre", np.int8(8))], f"{name}_Sub")
    else:
        kept = _rows(layer, source, weight)
        rows = kept[0]
    matrix = nodes.add("Transpose", [rows], f"{name}_Transpose", perm=[1, 0])
    if fits_int4(layer.scheme):
        matrix = nodes.add("Cast", [matrix], f"{name}_Cast", to=TensorProto.INT4)
    # One scale a row of the table is one a column of the matrix.
    by_row = constants.add(f"{name}_scales", np.array([count, groups] if size else [count], np.int64))
    scale = nodes.add("Reshape", [kept[1], by_row], f"{name}_Reshape")
    attributes: dict[str, Any] = {"axis": 1}
    if size:
        scale = nodes.add("Transpose", [scale], f"{name}_Transpose", perm=[1, 0])
        attributes = {"axis": 0, "block_size": size}
    inputs = [matrix, scale]
    if weight.zeros is not None:
        add = constants.add_int4 if fits_int4(layer.scheme) else constants.add
        inputs.append(add(f"{name}_zero_point", np.ascontiguousarray(weight.zeros.T)))
    elif not fits_int4(layer.scheme):
        # Left out, the runtime (1.31) puts one in place that blocks do not take.
        zeros = np.zeros([groups, count] if size else [count], np.int8)
        inputs.append(constants.add(f"{name}_zero_point", zeros))
    matrix = nodes.add("DequantizeLinear", inputs, f"{name}_DequantizeLinear", **attributes)
    layer.node.input[1] = matrix
    layer.nodes.append(layer.node)
    return True


def _gather_nibbles(layer: LayerNode, source: WeightSource, weight: QuantizedWeight) -> bool:
    """Two integers per byte: gather bytes, split them into low and high halves, scale each group."""
    rank = layer.index_rank
    size = _block(source, weight)
    if rank is None or size % 2 or weight.axis is None:
        return False
    nodes, constants, name = layer.nodes, layer.nodes.constants, layer.name
    kept = _nibbles(layer, source, weight)
    both = _split(layer, _gather(layer, kept[0], name, own_name=True))
    real = nodes.add("Cast", [both], f"{name}_Cast", to=TensorProto.FLOAT)
    centre = constants.add(f"{name}_centre", np.float32(8))
    if weight.zeros is not None:
        zeros = (weight.zeros + np.int8(8)).astype(np.uint8).reshape(len(weight.values), -1, 1)
        table = constants.add(f"{name}_zero_point", zeros)
        centre = nodes.add(
            "Cast", [_gather(layer, table, f"{name}_zero")], f"{name}_Cast", to=TensorProto.FLOAT
        )
    centred = nodes.add("Sub", [real, centre], f"{name}_Sub")
    scaled = nodes.add("Mul", [centred, _gather(layer, kept[1], f"{name}_scale")], f"{name}_Mul")
    groups = -(-source.value.shape[1] // size)
    whole = groups * size == source.value.shape[1]
    shape = constants.add(f"{name}_shape", np.array([0] * rank + [groups * size], np.int64))
    output = [layer.node.output[0]]
    joined = nodes.add("Reshape", [scaled, shape], f"{name}_Reshape", outputs=output if whole else None)
    if not whole:
        _first_columns(layer, joined, source.value.shape[1], output)
    return True


def _first_columns(layer: LayerNode, table: str, width: int, outputs: list[str] | None = None) -> str:
    """Rows without what fills their last block."""
    nodes, name = layer.nodes, layer.name
    limits = [
        nodes.constants.add(f"{name}_{what}", np.array([value], np.int64))
        for what, value in (("start", 0), ("end", width), ("axis", -1))
    ]
    return nodes.add("Slice", [table, *limits], f"{name}_Slice", outputs=outputs)


def _block(source: WeightSource, weight: QuantizedWeight) -> int:
    """Integers of a row that lie together in the file: a block, or the whole of a row shorter than the usual.

    Shorter blocks are filled up as they were before the usual one had 128.
    """
    width, size = source.value.shape[1], weight.group_size
    is_whole = not size or (size >= BLOCK_SIZE and width < size and width % 2 == 0)
    return width if is_whole else size


def _nibbles(layer: LayerNode, source: WeightSource, weight: QuantizedWeight) -> tuple[str, ...]:
    """Names of the rows of a table, two integers a byte, and of their scales, [V, groups, 1]."""
    constants, size = layer.nodes.constants, _block(source, weight)
    return constants.shared(("nibbles", source.key)) or constants.share(
        ("nibbles", source.key),
        (
            constants.add(f"{source.name}_quantized", _packed_rows(weight.values, size)),
            constants.add(f"{source.name}_scale", weight.scales.reshape(len(weight.values), -1, 1)),
        ),
    )


def _split(layer: LayerNode, packed: str) -> str:
    """Bytes as their low halves and, behind them, their high halves."""
    nodes, constants, name = layer.nodes, layer.nodes.constants, layer.name
    mask = constants.add(f"{name}_nibble_mask", np.uint8(15))
    shift = constants.add(f"{name}_nibble_shift", np.uint8(4))
    low = nodes.add("BitwiseAnd", [packed, mask], f"{name}_BitwiseAnd")
    high = nodes.add("BitShift", [packed, shift], f"{name}_BitShift", direction="RIGHT")
    return nodes.add("Concat", [low, high], f"{name}_Concat", axis=-1)


def _packed_rows(values: NDArray[np.int8], size: int) -> NDArray[np.uint8]:
    """[V, D] integers in -7..7 as [V, groups, size / 2] bytes: first half of a group in the low nibbles."""
    rows, columns = values.shape
    groups = -(-columns // size)
    padded = np.zeros((rows, groups * size), dtype=np.int8)
    padded[:, :columns] = values
    shifted = (padded.reshape(rows, groups, size) + 8).astype(np.uint8)
    half = size // 2
    return np.asarray(shifted[..., :half] | (shifted[..., half:] << np.uint8(4)))


def _gather(layer: LayerNode, table: str, name: str, *, own_name: bool = False) -> str:
    options: dict[str, Any] = {"own_name": True} if own_name else {}
    output = layer.nodes.names.fresh(f"{name}_rows")
    return layer.nodes.add("Gather", [table, layer.input(1)], name, outputs=[output], axis=0, **options)
