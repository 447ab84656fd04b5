"""What values the weights of a channel may take: codes times a scale, or the entries of a small table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

Tensor = torch.Tensor
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

SMALLEST = 1e-30
_LLOYD_ROUNDS = 60
SCALES_TRIED = 40
SHORTEST_SCALE = 0.25
# Tables are refitted by least squares; a little ridge decides where a channel uses two entries alike.
_RIDGE = 1e-6


class CodeGrid(Protocol):
    """Values by code, a row a channel: rows number the channels of all groups, [R] = [G * O]."""

    @property
    def together(self) -> int:
        """How many neighbouring rows have their values in common: none takes others alone."""

    def nearest(self, column: int, wanted: Floats) -> tuple[Codes, Floats]:
        """Code and value nearest to what is wanted in one column, each [R]."""

    def values(self, codes: Codes) -> Floats:
        """Values of codes [R, K]."""

    def refitted(self, codes: Codes, target: Tensor, hessian: Tensor) -> CodeGrid:
        """The grid whose values at these codes come closest to a target.

        Args:
            codes: Codes [R, K].
            target: What the weights should be, [G, O, K].
            hessian: Second moments of what they meet, [G, K, K].
        """

    def in_order(self, codes: Codes) -> tuple[CodeGrid, Codes]:
        """The grid with ascending values, which looking up the nearest needs, and the codes in it."""

    def readable(self, codes: Codes) -> tuple[CodeGrid, Codes]:
        """The grid as what is written of it shows it, and the codes in it."""

    def with_rows(self, other: Self, rows: NDArray[np.bool_]) -> Self:
        """The grid with some rows of another one of its kind, [R]; all or none of those together."""


@dataclass(frozen=True, slots=True, eq=False)
class UniformGrid:
    """Whole codes from low to high times a scale; with `is_sign` the codes -1 and 1 alone.

    Attributes:
        low: Smallest code.
        high: Largest code.
        scales: One a row, [R, 1].
        is_sign: Whether there is no code 0.
        is_shared: Whether all channels have one scale.
    """

    low: int
    high: int
    scales: Floats
    is_sign: bool = False
    is_shared: bool = False

    @property
    def together(self) -> int:
        """Rows with one scale."""
        return len(self.scales) if self.is_shared else 1

    def nearest(self, column: int, wanted: Floats) -> tuple[Codes, Floats]:
        """Code and value nearest to what is wanted in one column, each [R]."""
        del column
        scale = self.scales[:, 0]
        codes = _sign(wanted) if self.is_sign else np.clip(np.rint(wanted / scale), self.low, self.high)
        return codes.astype(np.int64), codes * scale

    def values(self, codes: Codes) -> Floats:
        """Values of codes [R, K]."""
        return codes * self.scales

    def refitted(self, codes: Codes, target: Tensor, hessian: Tensor) -> UniformGrid:
        """The scales whose grid comes closest to a target at these codes."""
        groups, outputs, columns = target.shape
        c = torch.from_numpy(codes.astype(np.float64)).reshape(groups, outputs, columns)
        met = target @ hessian
        over, under = (c * met).sum(2), (c * (c @ hessian)).sum(2)
        if self.is_shared:
            over, under = over.sum().expand_as(over), under.sum().expand_as(under)
        scales = (over / under.clamp_min(SMALLEST)).reshape(-1, 1).numpy()
        good = np.isfinite(scales) & (scales > SMALLEST)
        kept = np.where(good, scales, self.scales)
        return UniformGrid(self.low, self.high, kept, self.is_sign, self.is_shared)

    def in_order(self, codes: Codes) -> tuple[UniformGrid, Codes]:
        """Itself: codes ascend."""
        return self, codes

    def readable(self, codes: Codes) -> tuple[UniformGrid, Codes]:
        """Itself: whole multiples show their scale."""
        return self, codes

    def with_rows(self, other: UniformGrid, rows: NDArray[np.bool_]) -> UniformGrid:
        """The grid with some rows of another one, [R]; all or none where they are shared."""
        return replace(self, scales=np.where(rows[:, None], other.scales, self.scales))


def _sign(wanted: Floats) -> Floats:
    return np.where(wanted < 0, -1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class TableGrid:
    """A table of values a channel, sorted; every entry a multiple of its largest one over `steps`.

    Attributes:
        table: Values [R, k], ascending.
        steps: Codes of the container to either side of zero.
        is_shared: Whether all channels have one table.
    """

    table: Floats
    steps: int
    is_shared: bool = False
    _middles: Floats = field(init=False)
    _rows: Codes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_middles", (self.table[:, 1:] + self.table[:, :-1]) / 2)
        object.__setattr__(self, "_rows", np.arange(len(self.table)))

    @property
    def together(self) -> int:
        """Rows with one table."""
        return len(self.table) if self.is_shared else 1

    @classmethod
    def snapped(cls, table: Floats, steps: int, *, is_shared: bool = False) -> TableGrid:
        """The table on the grid of its container, scaled so that its largest entry is the last code."""
        scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / steps, SMALLEST)
        return cls(np.sort(np.rint(table / scale), axis=1) * scale, steps, is_shared)

    def nearest(self, column: int, wanted: Floats) -> tuple[Codes, Floats]:
        """Code and value nearest to what is wanted in one column, each [R]."""
        del column
        codes = (wanted[:, None] > self._middles).sum(axis=1)
        return codes, self.table[self._rows, codes]

    def nearest_in(self, rows: Codes, wanted: Floats) -> tuple[Codes, Floats]:
        """Code and value nearest to what is wanted of some rows, each of their shape [N]."""
        codes = (wanted[:, None] > self._middles[rows]).sum(axis=1)
        return codes, self.table[rows, codes]

    def values(self, codes: Codes) -> Floats:
        """Values of codes [R, K]."""
        return np.take_along_axis(self.table, codes, axis=1)

    def equations(self, codes: Codes, target: Floats, hessian: Floats) -> tuple[Floats, Floats]:
        """What the entries of each row's table cost: quadratic form [R, k, k] and linear one [R, k].

        Args:
            codes: Codes [R, K].
            target: What the weights should be, [R, K].
            hessian: Second moments of what they meet, [K, K].
        """
        one, other = torch.from_numpy(target)[None], torch.from_numpy(hessian)[None]
        gram, met = normal_equations(codes, self.table.shape[1], one, other)
        return gram.numpy(), met.numpy()

    def fitted(self, gram: Floats, met: Floats, codes: Codes) -> Floats:
        """Entries of one row that cost least, on the grid of the container, [k].

        Args:
            gram: Quadratic form of what they cost, [k, k].
            met: Linear one, [k].
            codes: Codes of the row, [K]: entries that none of them has become zero.
        """
        used = np.bincount(codes, minlength=len(met)) > 0
        ridge = _RIDGE * gram.diagonal().mean() + SMALLEST
        entries = np.where(used, np.linalg.solve(gram + ridge * np.eye(len(met)), met), 0.0)
        scale = max(float(np.abs(entries).max()) / self.steps, SMALLEST)
        found: Floats = np.rint(entries / scale) * scale
        return found

    def with_table(self, table: Floats) -> TableGrid:
        """The same with other entries, in whatever order, [R, k]."""
        return replace(self, table=table)

    def refitted(self, codes: Codes, target: Tensor, hessian: Tensor) -> TableGrid:
        """The table that comes closest to a target at these codes; entries nobody uses become zero."""
        size = self.table.shape[1]
        gram, met = normal_equations(codes, size, target, hessian)
        used = torch.from_numpy(_used(codes, size))
        if self.is_shared:
            gram, met, used = gram.sum(0, keepdim=True), met.sum(0, keepdim=True), used.any(0, keepdim=True)
        ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1) + SMALLEST
        found = torch.linalg.solve(gram + torch.diag_embed(ridge[:, None].expand(-1, size)), met)
        table = torch.where(used, found, torch.zeros_like(found)).numpy()
        if self.is_shared:
            table = np.repeat(table, len(self.table), axis=0)
        return _unsorted_snapped(table, self.steps, is_shared=self.is_shared)

    def in_order(self, codes: Codes) -> tuple[TableGrid, Codes]:
        """The table in ascending order, and the codes in it."""
        order = np.argsort(self.table, axis=1, kind="stable")
        table = np.take_along_axis(self.table, order, axis=1)
        found = np.take_along_axis(np.argsort(order, 1), codes, 1)
        return TableGrid(table, self.steps, self.is_shared), found

    def readable(self, codes: Codes) -> tuple[TableGrid, Codes]:
        """The table without the entries no weight uses, on the container's grid again, and the codes in it.

        What is written must show its grid: its largest value has to be the last code.
        """
        used = _used(codes, self.table.shape[1])
        if self.is_shared:
            used[:] = used.any(axis=0)
        kept = _unsorted_snapped(np.where(used, self.table, 0.0), self.steps, is_shared=self.is_shared)
        return kept, codes

    def with_rows(self, other: TableGrid, rows: NDArray[np.bool_]) -> TableGrid:
        """The grid with some rows of another one, [R]; all or none where they are shared."""
        return replace(self, table=np.where(rows[:, None], other.table, self.table))


def normal_equations(codes: Codes, size: int, target: Tensor, hessian: Tensor) -> tuple[Tensor, Tensor]:
    """What values of `size` codes cost together: quadratic form [R, size, size] and linear one [R, size].

    Args:
        codes: Codes [R, K].
        size: How many there are.
        target: What the weights should be, [G, O, K].
        hessian: Second moments of what they meet, [G, K, K].
    """
    groups, outputs, columns = target.shape
    # Single precision is plenty for normal equations of 2^b unknowns that are rounded to 8 bits after.
    ones = torch.nn.functional.one_hot(torch.from_numpy(codes), size).float()
    ones = ones.reshape(groups, outputs, columns, size).transpose(2, 3)
    seen = (ones.reshape(groups, outputs * size, columns) @ hessian.float()).reshape(ones.shape)
    gram = (seen @ ones.transpose(2, 3)).double().reshape(-1, size, size)
    met = (ones @ (target @ hessian).float()[..., None])[..., 0].double().reshape(-1, size)
    return gram, met


def _unsorted_snapped(table: Floats, steps: int, *, is_shared: bool) -> TableGrid:
    """On the grid of the container, in the order of its codes, which a refit may leave unsorted."""
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / steps, SMALLEST)
    return TableGrid(np.rint(table / scale) * scale, steps, is_shared)


def _used(codes: Codes, size: int) -> NDArray[np.bool_]:
    used = np.zeros((len(codes), size), dtype=bool)
    np.put_along_axis(used, codes, values=True, axis=1)
    return used


def best_uniform(
    rows: Floats, importance: Floats, low: int, high: int, *, is_sign: bool = False, is_shared: bool = False
) -> UniformGrid:
    """The uniform grid with the least weighted squared error.

    Args:
        rows: Weights [R, K].
        importance: What an error counts, [R, K].
        low: Smallest code.
        high: Largest code.
        is_sign: Whether there is no code 0.
        is_shared: Whether all channels have one scale.
    """
    reach = max(high, 1) if is_sign or low >= -high else (high - low) / 2
    widest = np.maximum(np.abs(rows).max(axis=1, keepdims=True) / reach, SMALLEST)
    if is_shared:
        widest[:] = widest.max()
    best, least = widest.copy(), np.full((len(rows), 1), np.inf)
    for ratio in np.linspace(1.1, SHORTEST_SCALE if high > 1 else 0.1, SCALES_TRIED):
        scale = widest * ratio
        codes = _sign(rows) if is_sign else np.clip(np.rint(rows / scale), low, high)
        error = (importance * (codes * scale - rows) ** 2).sum(axis=1, keepdims=True)
        if is_shared:
            error[:] = error.sum()
        better = error < least
        best[better], least[better] = scale[better], error[better]
    return UniformGrid(low, high, best, is_sign=is_sign, is_shared=is_shared)


def best_tables(
    rows: Floats, importance: Floats, entries: int, steps: int, *, is_shared: bool = False
) -> TableGrid:
    """A table a channel with little weighted squared error: k-means in one dimension, from two beginnings.

    Args:
        rows: Weights [R, K].
        importance: What an error counts, [R, K] or [1, K].
        entries: Entries k of a table.
        steps: Codes of the container to either side of zero.
        is_shared: Whether all channels have one table.
    """
    importance = np.broadcast_to(importance, rows.shape)
    count = len(rows)
    if is_shared:
        rows, importance = rows.reshape(1, -1), importance.reshape(1, -1)
    order = np.argsort(rows, axis=1)
    sorted_rows = torch.from_numpy(np.take_along_axis(rows, order, axis=1))
    weights = np.take_along_axis(importance, order, axis=1)
    running = _Running(sorted_rows, weights)
    low, high = sorted_rows[:, :1], sorted_rows[:, -1:]
    part = (torch.arange(entries, dtype=torch.float64) + 0.5) / entries
    by_count = running.quantiles(part)
    by_range = low + (high - low) * part
    found = [running.lloyd(start) for start in (by_count, by_range, (by_count + by_range) / 2)]
    errors = torch.stack([error for _, error in found])
    best = errors.argmin(0)
    table = torch.stack([one for one, _ in found])[best, torch.arange(len(rows))]
    values = np.repeat(table.numpy(), count, axis=0) if is_shared else table.numpy()
    return TableGrid.snapped(values, steps, is_shared=is_shared)


class _Running:
    """Sums from the smallest value on: means between any two limits cost two look-ups."""

    def __init__(self, rows: Tensor, weights: Floats) -> None:
        self.rows = rows
        w = torch.from_numpy(np.ascontiguousarray(weights)).clamp_min(SMALLEST)
        zero = torch.zeros(len(rows), 1, dtype=torch.float64)
        self.weight = torch.cat([zero, w.cumsum(1)], dim=1)
        self.first = torch.cat([zero, (w * rows).cumsum(1)], dim=1)
        self.second = (w * rows * rows).sum(1)

    def quantiles(self, parts: Tensor) -> Tensor:
        wanted = self.weight[:, -1:] * parts
        at = torch.searchsorted(self.weight[:, 1:].contiguous(), wanted).clamp_max(self.rows.shape[1] - 1)
        return self.rows.gather(1, at)

    def lloyd(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """The table after some rounds, and its weighted squared error."""
        ends = torch.zeros(len(self.rows), 1, dtype=torch.int64)
        last = torch.full_like(ends, self.rows.shape[1])
        for _ in range(_LLOYD_ROUNDS):
            middles = ((table[:, 1:] + table[:, :-1]) / 2).contiguous()
            cuts = torch.cat([ends, torch.searchsorted(self.rows, middles), last], dim=1)
            weight, first = self.weight.gather(1, cuts).diff(dim=1), self.first.gather(1, cuts).diff(dim=1)
            moved = torch.where(weight > 0, first / weight.clamp_min(SMALLEST), table)
            if torch.equal(moved, table):
                break
            table = moved
        error = self.second - 2 * (table * first).sum(1) + (table * table * weight).sum(1)
        return table, error
