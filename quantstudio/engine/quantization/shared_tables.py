"""Codebooks that the channels of a layer share: one table of INT8 codes, and a scale for each channel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import SMALLEST_SCALE
from quantstudio.engine.quantization.codebooks import means_of
from quantstudio.engine.quantization.weight_scales import ON_GRID, FloatArray

DoubleArray = NDArray[np.float64]

# The table is begun on a histogram of the weights, each over the largest of its channel.
_BINS = 2048
_LLOYD_ROUNDS = 60
_ROUNDS = 6
_SMALLEST = 1e-300


def shared_rows(
    rows: FloatArray, entries: int, high: int, tables: int = 1
) -> tuple[NDArray[np.int8], FloatArray]:
    """Rows [R, K] on tables of a few integers that they share, each with a scale of its own.

    Rows that lie on such a table already are kept as they are (`known_rows`). For others table and scales are
    fitted in turns to the least squared error.

    Args:
        rows: Weights, a row each.
        entries: Most entries of a table.
        high: Largest integer.
        tables: How many there are, each for as many rows.

    Returns:
        Integers, shape [R, K], and scales, shape [R].
    """
    codes, scales = np.zeros(rows.shape, np.int8), np.full(len(rows), SMALLEST_SCALE, np.float32)
    if not rows.size:
        return codes, scales
    parts = np.split(np.arange(len(rows)), tables)
    known = [known_rows(rows[part], entries, high) for part in parts]
    for part, found in zip(parts, known, strict=True):
        if found is not None:
            codes[part], scales[part] = np.rint(rows[part] / found[:, None]).astype(np.int8), found
    new = [part for part, found in zip(parts, known, strict=True) if found is None]
    if new:
        weights = rows[np.concatenate(new)].astype(np.float64)
        fitted = fitted_tables(weights, np.ones_like(weights), entries, high, len(new))
        for part, table, steps in zip(new, fitted[0], np.split(fitted[1], len(new)), strict=True):
            whole = table[nearest_entries(rows[part].astype(np.float64) / steps[:, None], table)]
            whole, own = readable(whole, steps, high)
            codes[part], scales[part] = whole, np.maximum(own.astype(np.float32), SMALLEST_SCALE)
    return codes, scales


def known_rows(rows: FloatArray, entries: int, high: int) -> FloatArray | None:
    """The scale of each row where all lie on one table; None where they do not.

    Rows whose values are all integer multiples of their largest magnitude over `high` say what the entries
    are, those of most values first; in every other row the largest is an entry, too, and the others follow.

    Args:
        rows: Weights [R, K].
        entries: Most entries of the table.
        high: Largest integer.
    """
    largest = np.abs(rows).max(axis=1).astype(np.float32)
    scales = np.maximum(largest / np.float32(high), SMALLEST_SCALE).astype(np.float32)
    is_zero = largest <= SMALLEST_SCALE * high
    codes, is_left = _whole(rows, scales)
    is_left |= is_zero
    if is_left.all():
        return scales if is_zero.all() else None
    table = np.unique(codes[~is_left])
    if len(table) > entries:
        table = _table_of(codes, np.flatnonzero(~is_left), entries)
        is_left |= ~np.isin(codes, table).all(axis=1)
    left = np.flatnonzero(is_left & ~is_zero)
    for peak in np.unique(np.abs(table))[::-1]:
        if peak in (0, high):
            continue
        tried = (largest[left] / np.float32(peak)).astype(np.float32)
        codes, is_off = _whole(rows[left], tried)
        fits = ~is_off & np.isin(codes, table).all(axis=1)
        scales[left[fits]] = tried[fits]
        left = left[~fits]
    return None if len(left) else scales


def _table_of(codes: NDArray[np.int64], rows: NDArray[np.intp], entries: int) -> NDArray[np.int64]:
    """What the rows that use most entries have: those of few may reach `high` by chance alone."""
    found = [np.unique(codes[row]) for row in rows]
    table = np.zeros(0, np.int64)
    for values in sorted(found, key=len, reverse=True):
        joined = np.union1d(table, values)
        table = joined if len(joined) <= entries else table
    return table


def _whole(rows: FloatArray, scales: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The integer next to every value, and which rows hold one that is not near it."""
    steps = rows / scales[:, None]
    near = np.rint(steps)
    return near.astype(np.int64), np.asarray(np.abs(steps - near).max(axis=1) >= ON_GRID)


def readable(codes: DoubleArray, scales: DoubleArray, high: int) -> tuple[DoubleArray, DoubleArray]:
    """Integers and scales that say themselves what table they lie on: what `known_rows` reads.

    Some row reaches `high`, and the rows that do use every entry there is; the few values of others that lie
    on none of these go to the next.

    Args:
        codes: Integers [R, K].
        scales: One a row, positive.
        high: Largest integer.
    """
    peaks = np.abs(codes).max(axis=1)
    if peaks.max() < high:
        ratio = high / max(float(peaks.max()), 1.0)
        codes, scales = np.rint(codes * ratio), scales / ratio
    table = np.unique(codes[np.abs(codes).max(axis=1) == high])
    if len(table):
        codes = np.where(np.isin(codes, table), codes, table[nearest_entries(codes, table)])
    return codes, scales


def on_tables(steps: DoubleArray, values: NDArray[np.int8], tables: int) -> NDArray[np.int8]:
    """For every step the nearest of the integers that values of its table have.

    Args:
        steps: What is wanted, in steps, [R, K].
        values: Integers that lie on the tables, [R, K].
        tables: How many there are, each for as many rows.
    """
    found = np.empty(values.shape, np.int8)
    for part in np.split(np.arange(len(values)), tables):
        table = np.unique(values[part])
        found[part] = table[nearest_entries(steps[part], table.astype(np.float64))]
    return found


def nearest_entries(values: DoubleArray, table: DoubleArray) -> NDArray[np.intp]:
    """Index of the nearest entry of an ascending table, shape of the values."""
    return np.searchsorted((table[1:] + table[:-1]) / 2, values)


def fitted_tables(
    rows: DoubleArray, importance: DoubleArray, entries: int, high: int, tables: int
) -> tuple[DoubleArray, DoubleArray]:
    """Tables of integers, ascending, and the scale of each row, with little weighted squared error.

    Args:
        rows: Weights [R, K].
        importance: What an error counts, [R, K].
        entries: Entries of a table.
        high: Largest integer, which one of them is.
        tables: How many there are, each for as many rows.

    Returns:
        Tables, shape [tables, entries], and scales, shape [R].
    """
    scales = np.maximum(np.abs(rows).max(axis=1), _SMALLEST)
    if tables == 1:
        table = _begun(rows / scales[:, None], importance * np.square(scales)[:, None], entries)[None]
    else:  # of few weights each: together
        table = means_of((rows / scales[:, None]).reshape(tables, -1), entries, is_thorough=True)
    first = entries * np.repeat(np.arange(tables), len(rows) // tables)[:, None]
    for number in range(_ROUNDS):
        place = first + _nearest_of_own(rows / scales[:, None], table)
        if number:
            weight = (importance * np.square(scales)[:, None]).reshape(-1)
            counts = np.bincount(place.reshape(-1), weight, table.size).reshape(table.shape)
            met = (importance * rows * scales[:, None]).reshape(-1)
            sums = np.bincount(place.reshape(-1), met, table.size).reshape(table.shape)
            table = np.sort(np.divide(sums, counts, out=table.copy(), where=counts > 0), axis=1)
        scales = fitted_scales(rows, table.reshape(-1)[place], importance, scales)
    parts = [snapped(one, own, high) for one, own in zip(table, np.split(scales, tables), strict=True)]
    return np.stack([one for one, _ in parts]), np.concatenate([own for _, own in parts])


def _nearest_of_own(values: DoubleArray, tables: DoubleArray) -> NDArray[np.intp]:
    """Index of the nearest entry of the table each row has, shape of the values [R, K]."""
    if len(tables) == 1:
        return nearest_entries(values, tables[0])
    parts = values.reshape(len(tables), -1)
    index = np.zeros(parts.shape, np.intp)
    for border in ((tables[:, 1:] + tables[:, :-1]) / 2).T:
        index += parts > border[:, None]
    return index.reshape(values.shape)


def fitted_scales(
    rows: DoubleArray, entries: DoubleArray, importance: DoubleArray, scales: DoubleArray
) -> DoubleArray:
    """The scale of each row with the least weighted squared error for the entries its weights have."""
    over = (importance * rows * entries).sum(axis=1)
    under = (importance * np.square(entries)).sum(axis=1)
    found = np.divide(over, under, out=np.zeros_like(over), where=under > 0)
    return np.where(found > 0, found, scales)


def snapped(table: DoubleArray, scales: DoubleArray, high: int) -> tuple[DoubleArray, DoubleArray]:
    """The table on whole numbers, its largest on `high`, and the scales that go with it."""
    step = max(float(np.abs(table).max()) / high, _SMALLEST)
    return np.rint(table / step), scales * step


def _begun(values: DoubleArray, weights: DoubleArray, entries: int) -> DoubleArray:
    """Means of k-means in one dimension over values between -1 and 1, on a histogram, from two beginnings."""
    place = np.clip(((values + 1) * (_BINS / 2)).astype(np.int64), 0, _BINS - 1).reshape(-1)
    counts: DoubleArray = np.bincount(place, weights.reshape(-1), _BINS).astype(np.float64)
    sums: DoubleArray = np.bincount(place, (weights * values).reshape(-1), _BINS).astype(np.float64)
    squares = float((weights * np.square(values)).sum())
    centres = ((np.arange(_BINS) + 0.5) * (2 / _BINS) - 1).astype(np.float64)
    running = np.cumsum(counts)
    parts = (np.arange(entries) + 0.5) / entries
    by_count: DoubleArray = centres[np.clip(np.searchsorted(running, parts * running[-1]), 0, _BINS - 1)]
    by_range: DoubleArray = np.linspace(-1.0, 1.0, entries)
    best, least = by_range, np.inf
    between: DoubleArray = ((by_count + by_range) / 2).astype(np.float64)
    for start in (by_count, by_range, between):
        table, error = _lloyd(start, centres, counts, sums, squares)
        if error < least:
            best, least = table, error
    return best


def _lloyd(
    table: DoubleArray, centres: DoubleArray, counts: DoubleArray, sums: DoubleArray, squares: float
) -> tuple[DoubleArray, float]:
    """Means after some rounds, and their weighted squared error."""
    for _ in range(_LLOYD_ROUNDS):
        index = nearest_entries(centres, table)
        held, total = np.bincount(index, counts, len(table)), np.bincount(index, sums, len(table))
        moved = np.divide(total, held, out=table.copy(), where=held > 0)
        if np.array_equal(moved, table):
            break
        table = np.sort(moved)
    index = nearest_entries(centres, table)
    held, total = np.bincount(index, counts, len(table)), np.bincount(index, sums, len(table))
    return table, squares - float((2 * table * total - np.square(table) * held).sum())
