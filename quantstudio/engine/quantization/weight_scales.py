"""Scales of weights on a grid: of the full range, of the least squared error, or of the grid they lie on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import SMALLEST_SCALE

FloatArray = NDArray[np.float32]
Levels = tuple[int, int]

# Blocks of this many values stay in the level-2 cache through all candidates of the scale search (3x faster
# than whole tensors).
_BLOCK_ELEMENTS = 1 << 16
_CANDIDATES = 20
# Shortest clip range tried, as part of the largest magnitude: coarse grids gain from much harder clipping.
_SHORTEST_RANGE = {127: 0.5, 63: 0.5, 31: 0.45, 15: 0.4, 7: 0.35, 3: 0.25, 1: 0.1}
# Ranges tried with a zero point of their own: they fit both ends, and gain little from clipping.
_SHORTEST_AFFINE, _AFFINE_CANDIDATES = 0.7, 7
# Rows shorter than this are reduced across columns instead: numpy pays per row.
_SHORT_ROW = 128
# Part of a step by which a value may miss the grid it lies on.
ON_GRID = 1e-3
_WITNESSES = 8


def full_range_scales(rows: FloatArray, levels: Levels, limit: float | None = None) -> FloatArray:
    """The scale of each row [R, K] at which its levels reach all its values, or the limit set by hand."""
    low, high = levels
    largest, smallest = rows.max(axis=1), rows.min(axis=1)
    if -low == high:
        magnitude = np.maximum(largest, -smallest).astype(np.float32)
        if limit is not None:
            magnitude = np.minimum(magnitude, np.float32(limit))
        return np.asarray(np.maximum(magnitude / np.float32(high), SMALLEST_SCALE), dtype=np.float32)
    if limit is not None:
        largest, smallest = np.minimum(largest, np.float32(limit)), np.maximum(smallest, np.float32(-limit))
    scales = np.maximum(largest / np.float32(high), smallest / np.float32(low))
    return np.asarray(np.maximum(scales, SMALLEST_SCALE), dtype=np.float32)


def least_squares_scales(rows: FloatArray, levels: Levels) -> FloatArray:
    """The scale of each row with the least squared error among clip ranges, refined in closed form."""
    widest = full_range_scales(rows, levels)
    best = widest.copy()
    step = max(1, _BLOCK_ELEMENTS // rows.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        best[part] = _search_block(rows[part], widest[part], levels)
    return best


def _search_block(rows: FloatArray, widest: FloatArray, levels: Levels) -> FloatArray:
    low, high = (np.float32(level) for level in levels)
    symmetric = -low == high
    # |w| has the same error as w on a symmetric grid and needs one clip instead of two.
    values = np.abs(rows) if symmetric else rows
    axis = 1
    if rows.shape[1] < _SHORT_ROW:
        values = np.ascontiguousarray(values.T)
        axis = 0
    shape = (1, -1) if axis == 0 else (-1, 1)
    q, error = np.empty_like(values), np.empty_like(values)
    best, least = widest.copy(), np.full(len(widest), np.inf, dtype=np.float32)
    for scale in _candidates(rows, widest, levels):
        np.multiply(values, (1 / scale).reshape(shape), out=q)
        np.rint(q, out=q)
        np.minimum(q, high, out=q)
        if not symmetric:
            np.maximum(q, low, out=q)
        # For fixed integers the best scale is <w, q> / <q, q>; rounding again with it can only gain.
        scale = _fitted_scale(values, q, scale, axis)
        np.multiply(q, scale.reshape(shape), out=error)
        error -= values
        total = _row_sums(error, error, axis)
        better = total < least
        best[better], least[better] = scale[better], total[better]
    return best


def _candidates(rows: FloatArray, widest: FloatArray, levels: Levels) -> list[FloatArray]:
    ratios = np.linspace(1.0, _SHORTEST_RANGE.get(levels[1], 0.5), _CANDIDATES, dtype=np.float32)
    if -levels[0] == levels[1]:
        return [np.maximum(widest * ratio, SMALLEST_SCALE) for ratio in ratios]
    # The extra level below reaches half the values, not all: ranges of the symmetric grid are tried, too.
    symmetric = full_range_scales(rows, (-levels[1], levels[1]))
    return [widest, *(np.maximum(symmetric * ratio, SMALLEST_SCALE) for ratio in ratios)]


def _fitted_scale(values: FloatArray, q: FloatArray, scale: FloatArray, axis: int) -> FloatArray:
    power = _row_sums(q, q, axis)
    fitted = np.divide(_row_sums(values, q, axis), power, out=scale.copy(), where=power > 0)
    return np.maximum(fitted, SMALLEST_SCALE)


def _row_sums(a: FloatArray, b: FloatArray, axis: int) -> FloatArray:
    return np.asarray(np.einsum("ij,ij->i" if axis == 1 else "ij,ij->j", a, b))


def ternary_scales(rows: FloatArray) -> FloatArray:
    """The scale of each row with the least squared error on -1, 0, 1.

    For the m largest magnitudes on the grid it is their mean, and what the error falls by is m times its
    square: the best m is found among all. Values of at least half the scale round to those.

    Source: Li and Liu 2016, arXiv:1605.04711, eq. (5), solved exactly.
    """
    ordered = -np.sort(-np.abs(rows), axis=1)
    sums = np.cumsum(ordered, axis=1, dtype=np.float64)
    counts = np.arange(1, rows.shape[1] + 1)
    best = np.argmax(sums**2 / counts, axis=1)
    scales = np.take_along_axis(sums, best[:, None], axis=1)[:, 0] / (best + 1)
    return np.asarray(np.maximum(scales.astype(np.float32), SMALLEST_SCALE), dtype=np.float32)


def affine_rows(rows: FloatArray, bits: int) -> tuple[NDArray[np.int8], FloatArray, NDArray[np.int8]]:
    """Integers, scale and zero point of each row [R, K], of the range of least squared error around zero.

    Every row's range holds zero, which its zero point stands for exactly. A row that lies on such a grid
    already is kept.
    """
    last, middle = np.float32((1 << bits) - 1), 1 << bits - 1
    low, high = np.minimum(rows.min(axis=1), 0), np.maximum(rows.max(axis=1), 0)
    least = np.full(len(rows), np.inf, np.float32)
    scales, zeros = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
    for ratio in np.linspace(1.0, _SHORTEST_AFFINE, _AFFINE_CANDIDATES, dtype=np.float32):
        scale = np.maximum((high - low) * ratio / last, SMALLEST_SCALE).astype(np.float32)
        zero = np.clip(np.rint(-low * ratio / scale), 0, last)
        codes = np.clip(np.rint(rows / scale[:, None]) + zero[:, None], 0, last)
        error = (codes - zero[:, None]) * scale[:, None] - rows
        total = np.einsum("ij,ij->i", error, error)
        better = total < least
        least[better], scales[better], zeros[better] = total[better], scale[better], zero[better]
    known, places = _known_affine(rows, int(last))
    scales, zeros = np.where(known > 0, known, scales), np.where(known > 0, places, zeros)
    codes = np.clip(np.rint(rows / scales[:, None]) + zeros[:, None], 0, last)
    return (codes - middle).astype(np.int8), scales, (zeros - middle).astype(np.int8)


def _known_affine(rows: FloatArray, last: int) -> tuple[FloatArray, FloatArray]:
    """Scale and zero point of each row that lies on a grid of integers 0 to `last`; 0 for the others."""
    scales = known_scales(rows, (-last, last))
    steps = np.rint(rows / np.where(scales > 0, scales, np.float32(1))[:, None])
    low, high = np.minimum(steps.min(axis=1), 0), np.maximum(steps.max(axis=1), 0)
    return np.where(high - low <= last, scales, np.float32(0)), -low


def known_scales(rows: FloatArray, levels: Levels) -> FloatArray:
    """The scale of each row [R, K] that lies on a uniform grid already; 0 for the others.

    Such a row has integer multiples of its largest magnitude over k alone, to a thousandth of a step, for
    some k, and all its integers among the levels. Of several k the smallest is taken.
    """
    found = np.zeros(len(rows), dtype=np.float32)
    step = max(1, _BLOCK_ELEMENTS // _WITNESSES)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        found[part] = _known_block(rows[part], levels)
    return found


def _known_block(rows: FloatArray, levels: Levels) -> FloatArray:
    found = np.zeros(len(rows), dtype=np.float32)
    magnitude = np.maximum(rows.max(axis=1), -rows.min(axis=1)).astype(np.float32)
    left = np.flatnonzero(magnitude > levels[1] * SMALLEST_SCALE)
    columns = np.linspace(0, rows.shape[1] - 1, min(_WITNESSES, rows.shape[1])).astype(np.int64)
    # A few values tell most rows that are on no grid; where they do not, the one that did joins them.
    witnesses = rows[left][:, columns] / magnitude[left, None]
    for k in range(1, max(-levels[0], levels[1]) + 1):
        passed = np.flatnonzero(_missed(witnesses * np.float32(k)).max(axis=1) < ON_GRID)
        if not passed.size:
            continue
        q = rows[left[passed]] / magnitude[left[passed], None] * np.float32(k)
        off = _missed(q)
        near = np.rint(q)
        inside = (near.min(axis=1) >= levels[0]) & (near.max(axis=1) <= levels[1])
        good = (off.max(axis=1) < ON_GRID) & inside
        found[left[passed[good]]] = magnitude[left[passed[good]]] / np.float32(k)
        worst = np.take_along_axis(q, off.argmax(axis=1)[:, None], axis=1)[:, 0] / np.float32(k)
        witnesses[passed, k % witnesses.shape[1]] = worst
        kept = np.ones(len(left), dtype=bool)
        kept[passed[good]] = False
        left, witnesses = left[kept], witnesses[kept]
    return found


def _missed(q: FloatArray) -> FloatArray:
    """By how much of a step values miss the grid."""
    return np.asarray(np.abs(q - np.rint(q)))
