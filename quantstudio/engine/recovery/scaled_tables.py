"""A table that all channels of a layer share, with a scale for each: what values their weights may take."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from quantstudio.engine.quantization.shared_tables import fitted_table, readable, snapped
from quantstudio.engine.recovery.code_grids import SMALLEST, Codes, Floats, normal_equations

Tensor = torch.Tensor

_RIDGE = 1e-6
# Table and scales are fitted in turns: each in closed form, given the other.
_TURNS = 6


@dataclass(frozen=True, slots=True, eq=False)
class ScaledTable:
    """One table of whole numbers, and a scale for every row.

    Attributes:
        table: Codes of the container [k], ascending; the largest is `steps`.
        scales: One a row, [R].
        steps: Codes of the container to either side of zero.
    """

    table: Floats
    scales: Floats
    steps: int
    _middles: Floats = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_middles", (self.table[1:] + self.table[:-1]) / 2)

    @property
    def is_shared(self) -> bool:
        """Always: no channel can take another table by itself."""
        return True

    def nearest(self, column: int, wanted: Floats) -> tuple[Codes, Floats]:
        """Code and value nearest to what is wanted in one column, each [R]."""
        del column
        codes = np.searchsorted(self._middles, wanted / self.scales)
        return codes, self.table[codes] * self.scales

    def values(self, codes: Codes) -> Floats:
        """Values of codes [R, K]."""
        found: Floats = self.table[codes] * self.scales[:, None]
        return found

    def refitted(self, codes: Codes, target: Tensor, hessian: Tensor) -> ScaledTable:
        """Table and scales that come closest to a target at these codes; entries nobody uses become zero."""
        size = len(self.table)
        gram, met = normal_equations(codes, size, target, hessian)
        table, scales = torch.from_numpy(self.table), torch.from_numpy(self.scales)
        for _ in range(_TURNS):
            scales = _scales(table, scales, gram, met)
            whole = (scales[:, None, None].square() * gram).sum(0)
            ridge = (_RIDGE * whole.diagonal().mean() + SMALLEST).expand(size)
            table = torch.linalg.solve(whole + torch.diag(ridge), (scales[:, None] * met).sum(0))
        entries, fitted = snapped(table.numpy(), scales.numpy(), self.steps)
        scales = _scales(torch.from_numpy(entries), torch.from_numpy(fitted), gram, met)
        return ScaledTable(entries, scales.numpy(), self.steps)

    def in_order(self, codes: Codes) -> tuple[ScaledTable, Codes]:
        """The table in ascending order, and the codes in it."""
        order = np.argsort(self.table, kind="stable")
        return ScaledTable(self.table[order], self.scales, self.steps), np.argsort(order)[codes]

    def readable(self, codes: Codes) -> tuple[ScaledTable, Codes]:
        """The table as the quantizer reads it off the weights, and the codes in it."""
        whole, scales = readable(self.table[codes], self.scales, self.steps)
        table, found = np.unique(whole, return_inverse=True)
        return ScaledTable(table, scales, self.steps), found.reshape(codes.shape)

    def with_rows(self, other: ScaledTable, rows: NDArray[np.bool_]) -> ScaledTable:
        """The other one where all rows are its own, [R]."""
        return other if bool(rows.all()) else self


def _scales(table: Tensor, scales: Tensor, gram: Tensor, met: Tensor) -> Tensor:
    """The best scale of each row for a table; the one it had where none is positive."""
    over, under = met @ table, torch.einsum("i,rij,j->r", table, gram, table)
    found = over / under.clamp_min(SMALLEST)
    return torch.where(torch.isfinite(found) & (found > SMALLEST), found, scales)


def best_shared_table(rows: Floats, importance: Floats, entries: int, steps: int) -> ScaledTable:
    """The table and the scales with little weighted squared error, each weight rounded by itself.

    Args:
        rows: Weights [R, K].
        importance: What an error counts, [R, K] or [1, K].
        entries: Entries k of the table.
        steps: Codes of the container to either side of zero.
    """
    table, scales = fitted_table(rows, np.broadcast_to(importance, rows.shape), entries, steps)
    return ScaledTable(table, np.maximum(scales, SMALLEST), steps)
