"""Float weights that take few values, written as indices into tables of floats.

ONNX Runtime looks them up when it loads the file, as it unpacks integers (`packed_weights.py`): what runs is
the float layer. Weights say themselves that they take few values; nothing else has to.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.shared_values import MOST_ENTRIES, index_bytes, table_pays, table_size
from quantstudio.engine.graph.builder import NodeList
from quantstudio.engine.quantization.packed_weights import from_table, from_tables

FloatArray = NDArray[np.float32]


def shared_floats(nodes: NodeList, value: FloatArray, name: str, axis: int | None) -> str | None:
    """A weight as indices and tables; name of the tensor, None where that is no smaller.

    Args:
        nodes: Where it is written.
        value: The weight.
        name: Of the weight.
        axis: Axis its channels lie along, so that some of them may have a table; None without.
    """
    # NaN is no entry, as it equals nothing.
    if value.size <= MOST_ENTRIES or not np.isfinite(value).all():
        return None
    found = min(_forms(value, axis), default=None)
    if found is None:
        return None
    _, tables, entries = found
    if tables == 1:
        return from_table(nodes, value, entries, name)
    channel_axis = axis or 0
    rows = np.moveaxis(value, channel_axis, 0).reshape(tables, -1)
    return from_tables(nodes, value, rows, entries, name, (channel_axis,))


def _forms(value: FloatArray, axis: int | None) -> Iterator[tuple[int, int, int]]:
    """Bytes, tables and entries of each form that is smaller than the floats."""
    channels = value.shape[axis] if axis is not None and value.ndim > 1 else 1
    rows = np.moveaxis(value, axis or 0, 0).reshape(channels, -1)
    # Where single channels take many values, so does every number of them.
    if _most_values(rows[:1]) > MOST_ENTRIES or _most_values(rows) > MOST_ENTRIES:
        return
    for tables in (count for count in range(1, channels + 1) if channels % count == 0):
        most = _most_values(rows.reshape(tables, -1))
        if most <= MOST_ENTRIES and table_pays(value.size, most, tables):
            yield index_bytes(value.size, most, tables), tables, table_size(most)


def _most_values(rows: FloatArray) -> int:
    """Most values that any row takes."""
    return 1 + int((np.diff(np.sort(rows, axis=1), axis=1) != 0).sum(axis=1).max(initial=0))
