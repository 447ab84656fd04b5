"""Codebooks: 2^b INT8 codes for each row of weights, chosen by k-means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import SMALLEST_SCALE
from quantstudio.engine.quantization.weight_scales import ON_GRID, FloatArray

DoubleArray = NDArray[np.float64]

_ROUNDS = 40
# Values that are sorted and summed at once; rows of a block are searched together.
_BLOCK_ELEMENTS = 1 << 20


def codebook_rows(rows: FloatArray, entries: int, high: int) -> tuple[NDArray[np.int8], FloatArray]:
    """Rows [R, K] on tables of a few integers each.

    The scale of a row puts the largest entry of its table on `high` exactly. A row that has no more values
    than entries, all multiples of its largest magnitude over `high`, is kept as it is. For the others the
    entries are the means of k-means (Lloyd's algorithm from the better of two starts, weighted equally),
    rounded to integers.

    Args:
        rows: Weights that share a table, a row each.
        entries: Most entries of a table.
        high: Largest integer.

    Returns:
        Integers, shape [R, K], and scales, shape [R].
    """
    codes, scales = np.zeros(rows.shape, np.int8), np.full(len(rows), SMALLEST_SCALE, np.float32)
    step = max(1, _BLOCK_ELEMENTS // max(rows.shape[1], 1))
    for start in range(0, len(rows) if rows.size else 0, step):
        part = slice(start, start + step)
        codes[part], scales[part] = _block(rows[part], entries, high)
    return codes, scales


def _block(rows: FloatArray, entries: int, high: int) -> tuple[NDArray[np.int8], FloatArray]:
    magnitude = np.maximum(rows.max(axis=1), -rows.min(axis=1)).astype(np.float32)
    scales = np.maximum(magnitude / np.float32(high), SMALLEST_SCALE).astype(np.float32)
    codes = rows / scales[:, None]
    is_known = _is_known(codes, entries)
    if not is_known.all():
        new = ~is_known
        table = means_of(rows[new].astype(np.float64), entries)
        largest = np.abs(table).max(axis=1)
        scales[new] = np.maximum((largest / high).astype(np.float32), SMALLEST_SCALE)
        steps = np.clip(np.rint(table / scales[new].astype(np.float64)[:, None]), -high, high)
        codes[new] = _nearest(rows[new] / scales[new][:, None], steps.astype(np.float32))
    return np.rint(codes).astype(np.int8), scales


def _is_known(codes: FloatArray, entries: int) -> NDArray[np.bool_]:
    """Which rows of values in steps lie on a table of so many integers."""
    near = np.rint(codes)
    found = np.abs(codes - near).max(axis=1) < ON_GRID
    ordered = np.sort(near[found], axis=1)
    found[found] = (np.diff(ordered, axis=1) > 0).sum(axis=1) < entries
    return np.asarray(found)


def _nearest(values: FloatArray, tables: FloatArray) -> FloatArray:
    """For every value the entry of its row's ascending table that is nearest."""
    borders = (tables[:, 1:] + tables[:, :-1]) / 2
    index = np.zeros(values.shape, np.intp)
    for entry in range(borders.shape[1]):
        index += values > borders[:, entry, None]
    return np.take_along_axis(tables, index, axis=1)


def means_of(rows: DoubleArray, entries: int, *, is_thorough: bool = False) -> DoubleArray:
    """Ascending means of each row by k-means, [R, entries], from the better of two starts, or of three."""
    ordered = np.sort(rows, axis=1)
    count = rows.shape[1]
    places = ((np.arange(entries) + 0.5) / entries * count).astype(np.int64).clip(0, count - 1)
    shares = np.linspace(0.0, 1.0, entries)
    low, high = ordered[:, :1], ordered[:, -1:]
    search = _Search(ordered)
    by_count, by_range = ordered[:, places], low + (high - low) * shares
    best, least = search.refined(by_count)
    for start in (by_range, (by_count + by_range) / 2)[: 1 + is_thorough]:
        other, error = search.refined(start)
        better = error < least
        best[better], least[better] = other[better], error[better]
    return best


class _Search:
    """Lloyd's algorithm on sorted rows: what is nearest to a mean is a range, its sum a difference of two."""

    def __init__(self, ordered: DoubleArray) -> None:
        rows, count = ordered.shape
        self.count = count
        self.size = np.maximum(np.abs(ordered).max(axis=1, keepdims=True), 1e-300)
        # All rows in one ascending vector: one search finds the borders of every row.
        self.offset = 4.0 * np.arange(rows)[:, None]
        self.flat = (ordered / self.size + self.offset).reshape(-1)
        zero = np.zeros((rows, 1))
        self.sums = np.concatenate([zero, np.cumsum(ordered, axis=1)], axis=1)
        self.squares = np.square(ordered).sum(axis=1)

    def refined(self, means: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
        """Means after so many rounds, and the squared error of each row."""
        for _ in range(_ROUNDS):
            counts, sums = self._parts(means)
            new = np.divide(sums, counts, out=means.copy(), where=counts > 0)
            if np.array_equal(new, means):
                break
            means = new
        counts, sums = self._parts(means)
        gain = np.divide(np.square(sums), counts, out=np.zeros_like(sums), where=counts > 0)
        return means, self.squares - gain.sum(axis=1)

    def _parts(self, means: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
        """How many values are nearest to each mean, and their sum."""
        borders = (means[:, 1:] + means[:, :-1]) / 2
        places = np.searchsorted(self.flat, borders / self.size + self.offset)
        places -= self.count * np.arange(len(means))[:, None]
        ends = np.zeros((len(means), 1), np.int64)
        places = np.concatenate([ends, places.clip(0, self.count), ends + self.count], axis=1)
        sums = np.diff(np.take_along_axis(self.sums, places, axis=1), axis=1)
        return np.diff(places, axis=1).astype(np.float64), sums
