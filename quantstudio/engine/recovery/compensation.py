"""Weights on a grid, chosen column by column so that what rounding one loses the others make up for.

Sources: GPTQ (Frantar et al. 2022, arXiv:2210.17323, eq. 2 and algorithm 1); GPTAQ (Li et al. 2025,
arXiv:2504.02692) for the target of a layer that sees quantized inputs and should give what the float network
gives on its own; tables refitted by least squares between sweeps as in SqueezeLLM and AQLM.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import CancelToken, never_cancelled
from quantstudio.engine.recovery.code_grids import CodeGrid, Codes, Floats

Tensor = torch.Tensor

# Part of the mean diagonal the target leans on the float weights with, and what holds it where a layer never
# fires.
TARGET_RIDGE = 0.05
TARGET_FLOOR = 1e-6
DAMPING = 0.01
DAMPING_FLOOR = 1e-9
_BLOCK = 64
# A round that gains less than this much is the last.
_WORTH_A_ROUND = 0.995
_TRIES = 4


def asymmetric_target(weight: Tensor, hessian: Tensor, across: Tensor) -> Tensor:
    """The weights that do on quantized inputs what the float ones do on their own: W (C + l) (H + l)^-1.

    Args:
        weight: Float weights, float64 [G, O, K].
        hessian: Mean of x_q x_q', [G, K, K].
        across: Mean of x x_q', [G, K, K].

    Raises:
        CalibrationError: the moments hold NaN or infinity, or cannot be inverted.
    """
    _check_finite(hessian, across)
    mean = hessian.diagonal(dim1=1, dim2=2).mean(1)
    ridge = torch.diag_embed((TARGET_RIDGE * mean + TARGET_FLOOR)[:, None].expand(hessian.shape[:2]))
    factor = _cholesky(hessian + ridge)
    wanted = (weight @ (across + ridge)).transpose(1, 2)
    return torch.cholesky_solve(wanted, factor).transpose(1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What a layer's weights become.

    Attributes:
        values: Weights on their grid, float64 [G, O, K].
        loss: What is left of the error that counts, in units of the output's power.
    """

    values: Tensor
    loss: float


class Compensation:
    """One layer's problem: a target, and what an error in each direction costs.

    Args:
        target: What the weights should be, float64 [G, O, K].
        hessian: Second moments of what they meet, [G, K, K].
        cancel: Looked at every few columns.

    Raises:
        CalibrationError: the moments hold NaN or infinity, or cannot be inverted.
    """

    def __init__(self, target: Tensor, hessian: Tensor, cancel: CancelToken | None = None) -> None:
        self._cancel = cancel or never_cancelled()
        _check_finite(hessian, target)
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        damping = DAMPING * diagonal.mean(1, keepdim=True) + DAMPING_FLOOR
        hessian = hessian + torch.diag_embed(damping.expand_as(diagonal))
        self.groups, self.outputs, self.columns = target.shape
        # The columns that matter most first: what they lose can still be made up for by all the others.
        diagonal = hessian.diagonal(dim1=1, dim2=2).sum(0)
        self._order = torch.argsort(diagonal, descending=True, stable=True)
        self._back = torch.argsort(self._order)
        self.target, self.hessian = target, hessian
        self._sorted = hessian[:, self._order][:, :, self._order].contiguous()
        inverse = torch.cholesky_inverse(_cholesky(self._sorted))
        self._upper = torch.linalg.cholesky(inverse, upper=True)
        self.importance: Floats = (1 / inverse.diagonal(dim1=1, dim2=2))[:, self._back].numpy()

    @property
    def rows(self) -> Floats:
        """The target, a row a channel of all groups: [R, K]."""
        rows: Floats = self.target.reshape(-1, self.columns).numpy()
        return rows

    @property
    def row_importance(self) -> Floats:
        """What an error in each column counts when the others make up for it, [R, K]."""
        return np.repeat(self.importance, self.outputs, axis=0)

    def loss(self, values: Tensor) -> float:
        """Squared error at the layer's output, a mean over inputs, summed over its channels."""
        off = values - self.target
        return float((off @ self.hessian * off).sum())

    def solved(self, grid: CodeGrid, sweeps: int) -> Chosen:
        """The best found: one compensated sweep, or rounding where that is better, then refits and moves.

        Args:
            grid: Where to begin.
            sweeps: How often the grid is fitted to the codes, and each code moved to where it is best given
                all the others. No such round can lose; the last is one that gains next to nothing.
        """
        least, codes = min(
            ((self._loss_of(grid, codes), codes) for codes in (self._compensated(grid), self._rounded(grid))),
            key=lambda found: found[0],
        )
        for _ in range(sweeps):
            fitted = grid.refitted(codes, self.target, self.hessian)
            if self._loss_of(fitted, codes) < least:
                grid, codes = fitted.in_order(codes)
            moved = self._moved(grid, codes)
            loss = self._loss_of(grid, moved)
            if loss >= least:
                break
            is_done = loss > _WORTH_A_ROUND * least
            codes, least = moved, loss
            if is_done:
                break
        grid, codes = grid.readable(codes)
        values = self._values(grid, codes)
        return Chosen(values, self.loss(values))

    def _rounded(self, grid: CodeGrid) -> Codes:
        rows = self.rows
        return np.stack([grid.nearest(j, rows[:, j])[0] for j in range(self.columns)], axis=1)

    def _values(self, grid: CodeGrid, codes: Codes) -> Tensor:
        return torch.from_numpy(grid.values(codes)).reshape(self.target.shape)

    def _loss_of(self, grid: CodeGrid, codes: Codes) -> float:
        return self.loss(self._values(grid, codes))

    def _compensated(self, grid: CodeGrid) -> Codes:
        """Codes [R, K] of one sweep: each column's error is spread over those that are still to come."""
        left = self._columns_first(self.target)
        codes = np.empty((self.columns, self.groups * self.outputs), dtype=np.int64)
        errors = np.empty_like(left)
        order, upper = self._order.tolist(), self._upper.numpy()
        for begin in range(0, self.columns, _BLOCK):
            self._cancel.raise_if_set()
            end = min(begin + _BLOCK, self.columns)
            for j in range(begin, end):
                codes[j], values = grid.nearest(order[j], left[j].reshape(-1))
                error = (left[j] - values.reshape(left[j].shape)) / upper[:, j, j, None]
                errors[j] = error
                left[j + 1 : end] -= upper[:, j, j + 1 : end].T[:, :, None] * error
            if end < self.columns:
                rest = torch.einsum(
                    "gij,igo->jgo", self._upper[:, begin:end, end:], torch.from_numpy(errors[begin:end])
                )
                left[end:] -= rest.numpy()
        return np.ascontiguousarray(codes[self._back.numpy()].T)

    def _moved(self, grid: CodeGrid, codes: Codes) -> Codes:
        """Codes after every weight in turn took the value that is best given all the others."""
        values = self._values(grid, codes)
        now = self._columns_first(values)
        slope = self._columns_first((values - self.target) @ self.hessian)
        found = np.ascontiguousarray(codes.T[self._order.numpy()])
        order, moments = self._order.tolist(), self._sorted.numpy()
        curvature = moments.diagonal(axis1=1, axis2=2)
        for begin in range(0, self.columns, _BLOCK):
            self._cancel.raise_if_set()
            end = min(begin + _BLOCK, self.columns)
            steps = np.empty((end - begin, self.groups, self.outputs))
            for j in range(begin, end):
                wanted = now[j] - slope[j] / curvature[:, j, None]
                found[j], values_j = grid.nearest(order[j], wanted.reshape(-1))
                step = values_j.reshape(wanted.shape) - now[j]
                steps[j - begin] = step
                slope[j + 1 : end] += moments[:, j, j + 1 : end].T[:, :, None] * step
            if end < self.columns:
                rest = torch.einsum("gij,igo->jgo", self._sorted[:, begin:end, end:], torch.from_numpy(steps))
                slope[end:] += rest.numpy()
        return np.ascontiguousarray(found[self._back.numpy()].T)

    def _columns_first(self, matrix: Tensor) -> Floats:
        """[G, O, K] as [K, G, O], columns in the order they are gone through."""
        columns: Floats = matrix[:, :, self._order].permute(2, 0, 1).contiguous().numpy()
        return columns


def _check_finite(*tensors: Tensor) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise CalibrationError(
            "the second moments of what it reads hold NaN or infinity",
            hint="Keep the layer in FP32, or repair the model",
        )


def _cholesky(matrix: Tensor) -> Tensor:
    """The factor of a matrix that is positive definite but for rounding errors."""
    mean = matrix.diagonal(dim1=1, dim2=2).mean(1)
    for attempt in range(_TRIES):
        found = torch.linalg.cholesky_ex(matrix)
        if not bool(found.info.any()):
            factor: Tensor = found.L
            return factor
        extra = (10.0**attempt * 1e-3 * mean + DAMPING_FLOOR)[:, None].expand(matrix.shape[:2])
        matrix = matrix + torch.diag_embed(extra)
    raise CalibrationError(
        "the second moments of what it reads are singular",
        hint="Give more samples, or samples that differ",
    )
