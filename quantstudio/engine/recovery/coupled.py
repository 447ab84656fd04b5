"""Weights of a layer chosen with those of its other channels, where errors of channels cancel further on.

The cost is that of an error at the layer's output in the metric of what it does to the answers (see
`output_metric`), tr(M D H D') for weights that are off by D: what a channel loses the channels after it in
the same column make up for, as later columns do for earlier ones. Rounding with feedback on both sides is
Tseng et al. 2025, YAQA, arXiv:2505.22988, section 3; along one side it is GPTQ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from quantstudio.core.events import CancelToken
from quantstudio.engine.recovery.code_grids import Codes, Floats, TableGrid

Tensor = torch.Tensor

# Part of the mean of its diagonal a metric leans on each channel's own error with: it was measured where
# nothing is rounded.
DAMPING = 0.02
_BLOCK = 64
# A round that gains less than this much is the last.
_WORTH_A_ROUND = 0.99
_ROUNDS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """Weights on their grid.

    Attributes:
        grid: A table a channel.
        codes: Entry of every weight, [O, K].
        loss: What they cost.
    """

    grid: TableGrid
    codes: Codes
    loss: float


class CoupledChannels:
    """One layer's problem over all its channels.

    Args:
        target: What the weights should be, [O, K].
        hessian: Second moments of what they meet, damped, [K, K].
        metric: What errors of channels cost together, [O, O], of mean diagonal 1.
        cancel: Looked at between sweeps.
    """

    def __init__(self, target: Floats, hessian: Floats, metric: Floats, cancel: CancelToken) -> None:
        self._target, self._hessian, self._cancel = target, hessian, cancel
        self._metric = metric + DAMPING * np.eye(len(metric))
        # What matters most first: all others can still make up for it.
        self._columns = np.argsort(-hessian.diagonal(), kind="stable")
        self._rows = np.argsort(-self._metric.diagonal(), kind="stable")
        self._across = _feedback(hessian[np.ix_(self._columns, self._columns)])
        self._down = _feedback(self._metric[np.ix_(self._rows, self._rows)])
        np.fill_diagonal(self._down, 0.0)

    def loss(self, grid: TableGrid, codes: Codes) -> float:
        """What weights cost: tr(M D H D') of their error D."""
        off = grid.values(codes) - self._target
        return float(((self._metric @ off) * (off @ self._hessian)).sum())

    def better(self, grid: TableGrid, codes: Codes) -> Choice:
        """The best found from what was chosen channel by channel; never worse than that."""
        best = Choice(grid, codes, self.loss(grid, codes))
        best = self._tried(best, grid, self._swept(grid))
        for _ in range(_ROUNDS):
            before = best.loss
            best = self._tried(best, *self._refitted(best).in_order(best.codes))
            best = self._tried(best, best.grid, self._moved(best))
            best = self._tried(best, best.grid, self._swept(best.grid))
            if best.loss > _WORTH_A_ROUND * before:
                break
        return best

    def _tried(self, best: Choice, grid: TableGrid, codes: Codes) -> Choice:
        self._cancel.raise_if_set()
        loss = self.loss(grid, codes)
        return Choice(grid, codes, loss) if loss < best.loss else best

    def _swept(self, grid: TableGrid) -> Codes:
        """Codes of one sweep: every error is spread over the columns and over the channels still to come.

        A weight waits for those before it in its row and in its column alone, so that an antidiagonal is
        rounded at once.
        """
        left = self._target[np.ix_(self._rows, self._columns)]
        count, columns = left.shape
        codes = np.empty((count, columns), np.int64)
        for begin in range(0, columns, _BLOCK):
            part = slice(begin, min(begin + _BLOCK, columns))
            now, across = left[:, part], self._across[part, part]
            width = now.shape[1]
            made_up, errors = np.zeros((count, width)), np.zeros((count, width))
            for o, j in _antidiagonals(count, width):
                wanted = now[o, j] + made_up[o, j]
                found, values = grid.nearest_in(self._rows[o], wanted)
                codes[o, begin + j] = found
                errors[o, j] = now[o, j] - values
                made_up[:, j] -= self._down[o].T * (wanted - values)
                now[o] -= errors[o, j][:, None] * across[j]
            left[:, part.stop :] -= errors @ self._across[part, part.stop :]
        return self._in_place(codes)

    def _moved(self, best: Choice) -> Codes:
        """Codes after every weight took the value that is best given all others, an antidiagonal at a time.

        Weights of one antidiagonal share neither row nor column and hardly touch each other.
        """
        codes, values = best.codes.copy(), best.grid.values(best.codes)
        count, columns = codes.shape
        slope = self._metric @ (values - self._target) @ self._hessian
        own, curvature = self._metric.diagonal(), self._hessian.diagonal()
        for begin in range(0, columns, _BLOCK):
            part = slice(begin, min(begin + _BLOCK, columns))
            near, moments = slope[:, part], self._hessian[part, part]
            steps = np.zeros_like(near)
            for o, j in _antidiagonals(count, near.shape[1]):
                wanted = values[o, begin + j] - near[o, j] / (own[o] * curvature[begin + j])
                found, chosen = best.grid.nearest_in(o, wanted)
                step = chosen - values[o, begin + j]
                at = np.flatnonzero(step)
                if at.size:
                    o, j, step = o[at], j[at], step[at]
                    codes[o, begin + j], values[o, begin + j] = found[at], chosen[at]
                    steps[o, j] = step
                    near += (self._metric[:, o] * step) @ moments[j]
            if part.stop < columns:
                slope[:, part.stop :] += self._metric @ steps @ self._hessian[part, part.stop :]
        return codes

    def _refitted(self, best: Choice) -> TableGrid:
        """Tables that cost least at these codes, one channel after the other, given those of all others."""
        grid, codes = best.grid, best.codes
        gram, met = grid.equations(codes, self._target, self._hessian)
        bent = (grid.values(codes) - self._target) @ self._hessian
        table = grid.table.copy()
        for o, metric in enumerate(self._metric):
            others = (metric[o] * bent[o] - metric @ bent) / metric[o]
            wanted = met[o] + np.bincount(codes[o], others, minlength=table.shape[1])
            fitted = grid.fitted(gram[o], wanted, codes[o])
            gain = [one @ gram[o] @ one - 2 * one @ wanted for one in (table[o], fitted)]
            if gain[1] < gain[0]:
                bent[o] += (fitted - table[o])[codes[o]] @ self._hessian
                table[o] = fitted
        return grid.with_table(table)

    def _in_place(self, codes: Codes) -> Codes:
        made = np.empty_like(codes)
        made[np.ix_(self._rows, self._columns)] = codes
        return made


def _feedback(matrix: Floats) -> Floats:
    """Upper triangle: what later places are moved by for an error of each, at the least cost."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(matrix)))
    upper = torch.linalg.cholesky(inverse, upper=True).numpy()
    made: Floats = upper / upper.diagonal()[:, None]
    return made


def _antidiagonals(rows: int, columns: int) -> list[tuple[Codes, Codes]]:
    """Rows and columns of the places on each antidiagonal, from the first corner to the last."""
    found = []
    for number in range(rows + columns - 1):
        o = np.arange(max(0, number - columns + 1), min(rows - 1, number) + 1)
        found.append((o, number - o))
    return found
