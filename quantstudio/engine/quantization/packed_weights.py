"""Weights of fewer than eight bits packed into bytes, and the constant operators that unpack them to INT8.

ONNX Runtime computes what hangs on constants alone when it loads a file, before it looks for Q/DQ pairs: what
runs is what an INT8 file runs, and the file is smaller. Four bits are a type of ONNX; other widths are digits
of numbers in a few bytes, brought apart by division and remainder, which every runtime reads alike (shifts
and masks are misread by some). A codebook is a table of INT8 codes, of a channel, of some or of
the layer, that the digits pick from.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from quantstudio.core.packing import BYTES, NIBBLES, WORDS, WeightCount, packed_bytes
from quantstudio.core.precision import Grid, WeightFormat, integer_levels
from quantstudio.engine.graph.builder import NodeList

Integers = NDArray[np.int8]
Values = NDArray[np.int8] | NDArray[np.float32]


def packed_values(
    nodes: NodeList, values: Integers, weights: WeightFormat, name: str, channels: tuple[int, ...]
) -> str:
    """INT8 values of a weight, packed where that makes the file smaller; name of the tensor.

    Args:
        nodes: Where it is written.
        values: Integers, shape of the weight.
        weights: Their format.
        name: Of the weight.
        channels: Axes that channels lie along; none where the whole tensor has one table.
    """
    radix = len(code_levels(weights)) if not weights.has_codebook else 1 << weights.bits
    if not nodes.is_packed or not _pays(values, weights, channels):
        return _plain(nodes, values, name)
    if weights.has_codebook:
        rows = _table_rows(values, weights, channels)
        if weights.shares_table and len(rows) == 1:
            return from_table(nodes, values, radix, name)
        return from_tables(nodes, values, rows, radix, name, channels)
    if radix == NIBBLES:
        return nodes.add("Cast", [nodes.constants.add_int4_weight(name, values)], name, to=TensorProto.INT8)
    levels = code_levels(weights)
    digits = np.searchsorted(levels, values.reshape(-1)).astype(np.uint8)
    table = _shared(nodes, "levels", levels)
    picked = nodes.add("Gather", [table, _digits(nodes, digits, radix, name)], name)
    return _shaped(nodes, picked, digits.size, radix, values.shape)


def _plain(nodes: NodeList, values: Integers, name: str) -> str:
    if nodes.names.is_short:
        return nodes.constants.add_weight(name, values)
    return nodes.constants.add(f"{name}_quantized", values)


def code_levels(weights: WeightFormat) -> Integers:
    """Every integer a format without a codebook takes, ascending."""
    low, high = integer_levels(weights)
    step = 2 if weights.grid is Grid.SIGN else 1
    return np.arange(low, high + 1, step, dtype=np.int8)


def _pays(values: Integers, weights: WeightFormat, channels: tuple[int, ...]) -> bool:
    tables = math.prod(values.shape[axis] for axis in channels)
    if packed_bytes(weights, WeightCount(values.size, tables)) is None:
        return False
    if not weights.has_codebook:
        return True
    # A row with more codes than its table has room for was not rounded to one.
    rows = _table_rows(values, weights, channels)
    distinct = 1 + (np.diff(np.sort(rows, axis=1), axis=1) != 0).sum(axis=1).max(initial=0)
    return bool(distinct <= 1 << weights.bits)


def _table_rows(values: Integers, weights: WeightFormat, channels: tuple[int, ...]) -> Integers:
    """Values that share a table, a row each: of one channel, of some, or all."""
    rest = tuple(axis for axis in range(values.ndim) if axis not in channels)
    count = weights.tables_of(math.prod(values.shape[axis] for axis in channels))
    return values.transpose(*channels, *rest).reshape(count, -1)


def from_table(nodes: NodeList, values: Values, radix: int, name: str) -> str:
    """Values as indices into one table of at most `radix`; name of the tensor."""
    levels, index = np.unique(values, return_inverse=True)
    # The largest again where there are fewer: a reader tells the bits by the length.
    table = nodes.constants.add(f"{name}_table", np.pad(levels, (0, radix - len(levels)), mode="edge"))
    index = index.reshape(values.shape)
    if radix in (NIBBLES, BYTES):
        return nodes.add("Gather", [table, _whole_index(nodes, index.astype(np.uint8), radix, name)], name)
    digits = _digits(nodes, index.reshape(-1).astype(np.uint8), radix, name)
    picked = nodes.add("Gather", [table, digits], name)
    return _shaped(nodes, picked, index.size, radix, values.shape)


def from_tables(
    nodes: NodeList, values: Values, rows: Values, radix: int, name: str, channels: tuple[int, ...]
) -> str:
    """Values as indices into tables of at most `radix`; name of the tensor.

    Args:
        nodes: Where they are written.
        values: Shape of the weight.
        rows: The same, a row each for those that share a table.
        radix: Entries of a table.
        name: Of the weight.
        channels: Axes that channels lie along.
    """
    tables, index = _tables(rows, radix)
    # A matrix with its channels in columns, and a table for each: no transposing.
    across = rows.T.shape == values.shape and channels == (1,)
    if across:
        tables, index = tables.T.copy(), index.T.copy()
    table = nodes.constants.add(f"{name}_table", tables)
    if radix in (NIBBLES, BYTES):
        picks = _whole_index(nodes, index, radix, name)
    else:
        digits = _digits(nodes, index.reshape(-1), radix, name)
        picks = _shaped(nodes, digits, index.size, radix, index.shape)
    codes = nodes.add("GatherElements", [table, picks], name, axis=0 if across else 1)
    rest = tuple(axis for axis in range(values.ndim) if axis not in channels)
    order = (*channels, *rest)
    shape = tuple(values.shape[axis] for axis in order)
    if not across and shape != rows.shape:
        codes = nodes.add("Reshape", [codes, _shape(nodes, shape)], name)
    if not across and order != tuple(range(values.ndim)):
        codes = nodes.add("Transpose", [codes], name, perm=[order.index(axis) for axis in range(values.ndim)])
    return codes


def _whole_index(nodes: NodeList, index: NDArray[np.uint8], radix: int, name: str) -> str:
    """Indices of a width that ONNX has a type of, as a table takes them."""
    if radix == NIBBLES:
        packed = nodes.constants.add_int4_weight(name, index.astype(np.int8), signed=False)
    else:
        packed = nodes.constants.add_weight(name, index)
    return nodes.add("Cast", [packed], name, to=TensorProto.INT32)


def _tables(rows: Values, radix: int) -> tuple[Values, NDArray[np.uint8]]:
    """Ascending codes of each row, the largest repeated where there are fewer; the index of each value."""
    tables = np.empty((len(rows), radix), rows.dtype)
    index = np.empty(rows.shape, np.uint8)
    for row, values in enumerate(rows):
        codes, index[row] = np.unique(values, return_inverse=True)
        tables[row, : len(codes)] = codes
        tables[row, len(codes) :] = codes[-1]
    return tables, index


def _digits(nodes: NodeList, digits: NDArray[np.uint8], radix: int, name: str) -> str:
    """Integers [digits of a word, words]: a row holds the digits of one place, so that they lie in order."""
    word = WORDS[radix]
    kind, dtype = (TensorProto.INT32, np.int32) if word.bytes < 4 else (TensorProto.INT64, np.int64)
    powers = (radix ** np.arange(word.digits, dtype=np.int64)).astype(dtype)
    packed = nodes.constants.add_weight(name, packed_digits(digits, radix))
    whole = nodes.add("Cast", [packed], name, to=kind)
    if word.bytes > 1:
        places = (256 ** np.arange(word.bytes, dtype=np.int64)).astype(dtype)
        whole = nodes.add("MatMul", [_shared(nodes, "places", places), whole], name)
    moved = nodes.add("Div", [whole, _shared(nodes, "powers", powers[:, None])], name)
    return nodes.add("Mod", [moved, _shared(nodes, "radix", np.array(radix, dtype))], name)


def packed_digits(digits: NDArray[np.uint8], radix: int) -> NDArray[np.uint8]:
    """Bytes of a vector of digits: [words], or [bytes of a word, words] where one takes several.

    With n words, word w holds the digits w, w + n, w + 2n, ... from its lowest place up.
    """
    word = WORDS[radix]
    count = -(-digits.size // word.digits)
    whole = np.zeros(count, np.uint64)
    for place in reversed(range(word.digits)):
        part = digits[place * count : (place + 1) * count]
        whole *= np.uint64(radix)
        whole[: part.size] += part
    if word.bytes == 1:
        return whole.astype(np.uint8)
    shifts = np.uint64(8) * np.arange(word.bytes, dtype=np.uint64)
    return (whole >> shifts[:, None] & np.uint64(255)).astype(np.uint8)


def _shaped(nodes: NodeList, tensor: str, count: int, radix: int, shape: tuple[int, ...]) -> str:
    """A tensor of digits without those that fill the last word, in a shape."""
    if count % WORDS[radix].digits:
        flat = nodes.add("Reshape", [tensor, _shape(nodes, (-1,))], tensor)
        tensor = nodes.add("Slice", [flat, _shape(nodes, (0,)), _shape(nodes, (count,))], tensor)
    return nodes.add("Reshape", [tensor, _shape(nodes, shape)], tensor)


def _shape(nodes: NodeList, shape: tuple[int, ...]) -> str:
    """A vector of sizes or places, written once."""
    return _shared(nodes, "shape", np.array(shape, np.int64))


def _shared(nodes: NodeList, what: str, value: NDArray[np.generic]) -> str:
    """A constant that is written once."""
    key = (what, value.dtype.str, value.shape, value.tobytes())
    kept = nodes.constants.shared(key)
    return (kept or nodes.constants.share(key, (nodes.constants.add(what, value),)))[0]
