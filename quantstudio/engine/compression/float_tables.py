"""Tables of floats that weights are picked from: of a tensor, of some channels, of each, or given."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from quantstudio.engine.recovery.code_grids import SMALLEST, Codes, Floats, best_tables, normal_equations
from quantstudio.engine.recovery.weight_formats import LayerFormat

Tensor = torch.Tensor

# Codes to either side of zero: so many that a table is not rounded.
_STEPS = 1 << 30
# Larger tables are not fitted to what a layer reads: their equations fill the memory, and nothing is gained.
MOST_FITTED = 64
_RIDGE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class FloatTables:
    """Tables of any values, each for as many neighbouring rows.

    Attributes:
        tables: Values [T, k], ascending.
        count: Rows R.
        is_fixed: Whether they are given.
    """

    tables: Floats
    count: int
    is_fixed: bool = False
    _of: Codes = field(init=False)
    _middles: Floats = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_of", np.arange(self.count) // self.together)
        object.__setattr__(self, "_middles", (self.tables[:, 1:] + self.tables[:, :-1]) / 2)

    @property
    def together(self) -> int:
        """Rows with one table."""
        return self.count // len(self.tables)

    def nearest(self, column: int, wanted: Floats) -> tuple[Codes, Floats]:
        """Code and value nearest to what is wanted in one column, each [R]."""
        del column
        return self.nearest_in(np.arange(self.count), wanted)

    def nearest_in(self, rows: Codes, wanted: Floats) -> tuple[Codes, Floats]:
        """Code and value nearest to what is wanted of some rows, each of their shape [N]."""
        own = self._of[rows]
        codes = (wanted[:, None] > self._middles[own]).sum(axis=1)
        return codes, self.tables[own, codes]

    def values(self, codes: Codes) -> Floats:
        """Values of codes [R, K]."""
        return self.tables[self._of[:, None], codes]

    def refitted(self, codes: Codes, target: Tensor, hessian: Tensor) -> FloatTables:
        """The tables that come closest to a target at these codes; entries nobody uses stay."""
        count, size = self.tables.shape
        if self.is_fixed or size > MOST_FITTED:
            return self
        gram, met = normal_equations(codes, size, target, hessian)
        gram, met = gram.reshape(count, -1, size, size).sum(1), met.reshape(count, -1, size).sum(1)
        ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1, keepdim=True) + SMALLEST
        found = torch.linalg.solve(gram + torch.diag_embed(ridge.expand(count, size)), met).numpy()
        used = np.zeros(self.tables.shape, dtype=bool)
        used[np.broadcast_to(self._of[:, None], codes.shape), codes] = True
        return replace(self, tables=np.where(used & np.isfinite(found), found, self.tables))

    def in_order(self, codes: Codes) -> tuple[FloatTables, Codes]:
        """The tables in ascending order, and the codes in it."""
        order = np.argsort(self.tables, axis=1, kind="stable")
        found = np.argsort(order, axis=1)[self._of[:, None], codes]
        return replace(self, tables=np.take_along_axis(self.tables, order, axis=1)), found

    def readable(self, codes: Codes) -> tuple[FloatTables, Codes]:
        """Itself: what few values there are shows the table."""
        return self, codes

    def with_rows(self, other: FloatTables, rows: np.typing.NDArray[np.bool_]) -> FloatTables:
        """The grid with some rows of another one, [R]; all or none of those that share a table."""
        whole = rows[:: self.together, None]
        return replace(self, tables=np.where(whole, other.tables, self.tables))


@dataclass(frozen=True, slots=True)
class TableFormat(LayerFormat):
    """Values of a layer's weights where they are picked from tables of floats.

    Attributes:
        tables: How many tables the layer has.
        given: The one table of the network; empty where each is the layer's own.
    """

    tables: int = 1
    given: tuple[float, ...] = ()

    def best(self, rows: Floats, importance: Floats) -> FloatTables:
        """The tables with the least weighted squared error for weights [R, K], each rounded by itself."""
        if self.given:
            return FloatTables(np.array([self.given]), len(rows), is_fixed=True)
        counts = np.broadcast_to(importance, rows.shape).reshape(self.tables, -1)
        return FloatTables(table_of(rows.reshape(self.tables, -1), counts, self.entries), len(rows))


def table_of(rows: Floats, importance: Floats, entries: int) -> Floats:
    """A table of each row, ascending, [T, k]: its own values where these are few, else their k-means."""
    found = best_tables(rows, importance, entries, _STEPS).table
    for number, row in enumerate(rows):
        values = np.unique(row)
        if len(values) <= entries:
            found[number] = np.pad(values, (0, entries - len(values)), mode="edge")
    return found


def table_format(entries: int, tables: int, given: tuple[float, ...] = ()) -> TableFormat:
    """The format of a layer with so many tables of so many entries."""
    return TableFormat(0, _STEPS, entries, is_shared=tables == 1, is_scaled=True, tables=tables, given=given)
