"""Tables that channels share, all or in groups, with a scale for each: what values their weights may take."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from quantstudio.engine.quantization.shared_tables import fitted_tables, readable, snapped
from quantstudio.engine.recovery.code_grids import SMALLEST, Codes, Floats, normal_equations

Tensor = torch.Tensor

_RIDGE = 1e-6
# Tables and scales are fitted in turns: each in closed form, given the other.
_TURNS = 6


@dataclass(frozen=True, slots=True, eq=False)
class ScaledTables:
    """Tables of whole numbers, each for as many rows, and a scale for every row.

    Attributes:
        tables: Codes of the container [T, k], ascending; the largest of each is `steps`.
        scales: One a row, [R].
        steps: Codes of the container to either side of zero.
    """

    tables: Floats
    scales: Floats
    steps: int
    _of: Codes = field(init=False)
    _middles: Floats = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_of", np.repeat(np.arange(len(self.tables)), self.together))
        middles = (self.tables[:, 1:] + self.tables[:, :-1]) / 2
        object.__setattr__(self, "_middles", middles[self._of])

    @property
    def together(self) -> int:
        """Rows with one table."""
        return len(self.scales) // len(self.tables)

    def nearest(self, column: int, wanted: Floats) -> tuple[Codes, Floats]:
        """Code and value nearest to what is wanted in one column, each [R]."""
        del column
        codes = ((wanted / self.scales)[:, None] > self._middles).sum(axis=1)
        return codes, self.tables[self._of, codes] * self.scales

    def values(self, codes: Codes) -> Floats:
        """Values of codes [R, K]."""
        found: Floats = self.tables[self._of[:, None], codes] * self.scales[:, None]
        return found

    def refitted(self, codes: Codes, target: Tensor, hessian: Tensor) -> ScaledTables:
        """Tables and scales that come closest to a target at these codes; entries nobody uses become zero."""
        count, size = self.tables.shape
        gram, met = normal_equations(codes, size, target, hessian)
        tables, scales = torch.from_numpy(self.tables), torch.from_numpy(self.scales)
        for _ in range(_TURNS):
            scales = self._fitted(tables, scales, gram, met)
            whole = (scales[:, None, None].square() * gram).reshape(count, -1, size, size).sum(1)
            ridge = _RIDGE * whole.diagonal(dim1=1, dim2=2).mean(1, keepdim=True) + SMALLEST
            wanted = (scales[:, None] * met).reshape(count, -1, size).sum(1)
            tables = torch.linalg.solve(whole + torch.diag_embed(ridge.expand(count, size)), wanted)
        parts = [
            snapped(table, own, self.steps)
            for table, own in zip(tables.numpy(), np.split(scales.numpy(), count), strict=True)
        ]
        entries, fitted = np.stack([table for table, _ in parts]), np.concatenate([own for _, own in parts])
        scales = self._fitted(torch.from_numpy(entries), torch.from_numpy(fitted), gram, met)
        return ScaledTables(entries, scales.numpy(), self.steps)

    def in_order(self, codes: Codes) -> tuple[ScaledTables, Codes]:
        """The tables in ascending order, and the codes in it."""
        order = np.argsort(self.tables, axis=1, kind="stable")
        tables = np.take_along_axis(self.tables, order, axis=1)
        found = np.argsort(order, axis=1)[self._of[:, None], codes]
        return ScaledTables(tables, self.scales, self.steps), found

    def readable(self, codes: Codes) -> tuple[ScaledTables, Codes]:
        """The tables as the quantizer reads them off the weights, and the codes in them."""
        entries, scales, found = [], [], []
        for number, table in enumerate(self.tables):
            rows = self._of == number
            whole, own = readable(table[codes[rows]], self.scales[rows], self.steps)
            levels, places = np.unique(whole, return_inverse=True)
            entries.append(np.pad(levels, (0, len(table) - len(levels)), mode="edge"))
            scales.append(own)
            found.append(places.reshape(whole.shape))
        return ScaledTables(np.stack(entries), np.concatenate(scales), self.steps), np.concatenate(found)

    def with_rows(self, other: ScaledTables, rows: NDArray[np.bool_]) -> ScaledTables:
        """The grid with some rows of another one, [R]; all or none of those that share a table."""
        whole = rows[:: self.together, None]
        tables = np.where(whole, other.tables, self.tables)
        return ScaledTables(tables, np.where(rows, other.scales, self.scales), self.steps)

    def _fitted(self, tables: Tensor, scales: Tensor, gram: Tensor, met: Tensor) -> Tensor:
        """The best scale of each row for its table; the one it had where none is positive."""
        own = tables[torch.from_numpy(self._of)]
        over, under = (met * own).sum(1), torch.einsum("ri,rij,rj->r", own, gram, own)
        found = over / under.clamp_min(SMALLEST)
        return torch.where(torch.isfinite(found) & (found > SMALLEST), found, scales)


def best_shared_tables(
    rows: Floats, importance: Floats, entries: int, steps: int, tables: int = 1
) -> ScaledTables:
    """The tables and scales with little weighted squared error, each weight rounded by itself.

    Args:
        rows: Weights [R, K].
        importance: What an error counts, [R, K] or [1, K].
        entries: Entries k of a table.
        steps: Codes of the container to either side of zero.
        tables: How many there are, each for as many rows.
    """
    counts = np.broadcast_to(importance, rows.shape)
    found, scales = fitted_tables(rows, counts, entries, steps, tables)
    return ScaledTables(found, np.maximum(scales, SMALLEST), steps)
