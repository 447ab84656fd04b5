"""Weights on a grid, chosen column by column so that what rounding one loses the others make up for.

Sources: GPTQ (Frantar et al. 2022, arXiv:2210.17323, eq. 2 and algorithm 1); GPTAQ (Li et al. 2025,
arXiv:2504.02692) for the target of a layer that sees quantized inputs and should give what the float network
gives on its own; tables refitted by least squares between sweeps as in SqueezeLLM and AQLM. What comes of
it hangs on the order of the columns, so several are tried, and every channel keeps what was best for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import CancelToken, never_cancelled
from quantstudio.engine.recovery.code_grids import CodeGrid, Codes, Floats, TableGrid
from quantstudio.engine.recovery.coupled import CoupledChannels

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
# Further orders of the columns, fewer the more a sweep costs (channels times columns squared): eight take
# another 3 to 8 % off the error, less where there are many columns to make up with.
_MOST_ORDERS = 8
_WORK = 2**26
_JITTER = 0.7


class SingularMomentsError(CalibrationError):
    """Second moments that no damping makes positive definite: nothing can be learned from them."""


def asymmetric_target(weight: Tensor, hessian: Tensor, wanted: Tensor) -> Tensor:
    """The weights that come closest to some output on quantized inputs: (Y x_q' + l W) (H + l)^-1.

    Args:
        weight: Float weights, float64 [G, O, K].
        hessian: Mean of x_q x_q', [G, K, K].
        wanted: Mean of y x_q' of the output y that is wanted, [G, O, K]: W E[x x_q'] where it is that of the
            float network.

    Raises:
        SingularMomentsError: the moments cannot be inverted.
        CalibrationError: they hold NaN or infinity.
    """
    _check_finite(hessian, wanted)
    mean = hessian.diagonal(dim1=1, dim2=2).mean(1)
    ridge = (TARGET_RIDGE * mean + TARGET_FLOOR)[:, None]
    factor = _cholesky(hessian + torch.diag_embed(ridge.expand(hessian.shape[:2])))
    met = (wanted + ridge[..., None] * weight).transpose(1, 2)
    return torch.cholesky_solve(met, factor).transpose(1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What a layer's weights become.

    Attributes:
        values: Weights on their grid, float64 [G, O, K].
        loss: What is left of the error that counts, in units of the output's power.
    """

    values: Tensor
    loss: float


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """A grid, the codes on it, and what is lost in each channel, [R]."""

    grid: CodeGrid
    codes: Codes
    losses: Floats

    @property
    def loss(self) -> float:
        return float(self.losses.sum())

    def or_better(self, other: _Found) -> _Found:
        """Every channel as it lost less; those alike that have their values in common."""
        better = other.losses < self.losses
        if self.grid.together > 1:
            now, then = (one.losses.reshape(-1, self.grid.together).sum(1) for one in (self, other))
            better = np.repeat(then < now, self.grid.together)
        return _Found(
            self.grid.with_rows(other.grid, better),
            np.where(better[:, None], other.codes, self.codes),
            np.where(better, other.losses, self.losses),
        )


class _Order:
    """Columns in the order they are gone through, and their moments in it.

    Args:
        hessian: Damped second moments, [G, K, K].
        keys: The largest comes first, [K].
    """

    def __init__(self, hessian: Tensor, keys: Tensor) -> None:
        self.columns = torch.argsort(keys, descending=True, stable=True)
        self.back = torch.argsort(self.columns)
        self.hessian = hessian[:, self.columns][:, :, self.columns].contiguous()
        self.inverse = torch.cholesky_inverse(_cholesky(self.hessian))
        self.upper = torch.linalg.cholesky(self.inverse, upper=True)

    def columns_first(self, matrix: Tensor) -> Floats:
        """[G, O, K] as [K, G, O], columns in this order."""
        columns: Floats = matrix[:, :, self.columns].permute(2, 0, 1).contiguous().numpy()
        return columns

    def in_place(self, codes: Codes) -> Codes:
        """[K, R] in this order as [R, K]."""
        return np.ascontiguousarray(codes[self.back.numpy()].T)


class Compensation:
    """One layer's problem: a target, and what an error in each direction costs.

    Args:
        target: What the weights should be, float64 [G, O, K].
        hessian: Second moments of what they meet, [G, K, K].
        cancel: Looked at every few columns.

    Raises:
        SingularMomentsError: the moments cannot be inverted.
        CalibrationError: they hold NaN or infinity.
    """

    def __init__(self, target: Tensor, hessian: Tensor, cancel: CancelToken | None = None) -> None:
        self._cancel = cancel or never_cancelled()
        _check_finite(hessian, target)
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        damping = DAMPING * diagonal.mean(1, keepdim=True) + DAMPING_FLOOR
        hessian = hessian + torch.diag_embed(damping.expand_as(diagonal))
        self.groups, self.outputs, self.columns = target.shape
        # The columns that matter most first: what they lose can still be made up for by all the others.
        self._keys = hessian.diagonal(dim1=1, dim2=2).sum(0)
        self._order = _Order(hessian, self._keys)
        self.target, self.hessian = target, hessian
        curvature = 1 / self._order.inverse.diagonal(dim1=1, dim2=2)
        self.importance: Floats = curvature[:, self._order.back].numpy()

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
        return float(self._losses(values).sum())

    def _losses(self, values: Tensor) -> Floats:
        off = values - self.target
        losses: Floats = (off @ self.hessian * off).sum(2).reshape(-1).numpy()
        return losses

    def solved(self, grid: CodeGrid, sweeps: int, metric: Floats | None = None) -> Chosen:
        """The best found over several orders of the columns, channel by channel; then all channels together.

        Args:
            grid: Where to begin.
            sweeps: How often the grid is fitted to the codes, and each code moved to where it is best given
                all the others. No such round can lose; the last is one that gains next to nothing.
            metric: What errors of the channels cost together, [O, O]; None where each counts by itself.
                Where the channels have tables of their own, they are chosen once more for it.
        """
        best = self._settled(grid, self._order, sweeps)
        work = self.groups * self.outputs * self.columns**2
        random = np.random.default_rng(0)
        for _ in range(min(_MOST_ORDERS, _WORK // work) if sweeps else 0):
            jitter = np.exp(_JITTER * random.normal(size=self.columns))
            order = _Order(self.hessian, self._keys * torch.from_numpy(jitter))
            best = best.or_better(self._settled(best.grid, order, sweeps))
        found, codes = best.grid, best.codes
        if metric is not None and sweeps and isinstance(found, TableGrid) and not found.is_shared:
            channels = CoupledChannels(self.rows, self.hessian[0].numpy(), metric, self._cancel)
            together = channels.better(found, codes)
            found, codes = together.grid, together.codes
        values = self._values(*found.readable(codes))
        return Chosen(values, self.loss(values))

    def _settled(self, grid: CodeGrid, order: _Order, sweeps: int) -> _Found:
        """One compensated sweep, or rounding where that is better, then refits and moves."""
        best = self._found(grid, self._compensated(grid, order)).or_better(
            self._found(grid, self._rounded(grid))
        )
        for _ in range(sweeps):
            before = best.loss
            fitted = best.grid.refitted(best.codes, self.target, self.hessian)
            best = best.or_better(self._found(*fitted.in_order(best.codes)))
            best = best.or_better(self._found(best.grid, self._moved(best.grid, best.codes, order)))
            if best.loss > _WORTH_A_ROUND * before:
                break
        return best

    def _found(self, grid: CodeGrid, codes: Codes) -> _Found:
        return _Found(grid, codes, self._losses(self._values(grid, codes)))

    def _rounded(self, grid: CodeGrid) -> Codes:
        rows = self.rows
        return np.stack([grid.nearest(j, rows[:, j])[0] for j in range(self.columns)], axis=1)

    def _values(self, grid: CodeGrid, codes: Codes) -> Tensor:
        return torch.from_numpy(grid.values(codes)).reshape(self.target.shape)

    def _compensated(self, grid: CodeGrid, order: _Order) -> Codes:
        """Codes [R, K] of one sweep: each column's error is spread over those that are still to come."""
        left = order.columns_first(self.target)
        codes = np.empty((self.columns, self.groups * self.outputs), dtype=np.int64)
        errors = np.empty_like(left)
        places, upper = order.columns.tolist(), order.upper.numpy()
        for begin in range(0, self.columns, _BLOCK):
            self._cancel.raise_if_set()
            end = min(begin + _BLOCK, self.columns)
            for j in range(begin, end):
                codes[j], values = grid.nearest(places[j], left[j].reshape(-1))
                error = (left[j] - values.reshape(left[j].shape)) / upper[:, j, j, None]
                errors[j] = error
                left[j + 1 : end] -= upper[:, j, j + 1 : end].T[:, :, None] * error
            if end < self.columns:
                rest = torch.einsum(
                    "gij,igo->jgo", order.upper[:, begin:end, end:], torch.from_numpy(errors[begin:end])
                )
                left[end:] -= rest.numpy()
        return order.in_place(codes)

    def _moved(self, grid: CodeGrid, codes: Codes, order: _Order) -> Codes:
        """Codes after every weight in turn took the value that is best given all the others."""
        values = self._values(grid, codes)
        now = order.columns_first(values)
        slope = order.columns_first((values - self.target) @ self.hessian)
        places, moments = order.columns.tolist(), order.hessian.numpy()
        found = np.ascontiguousarray(codes.T[order.columns.numpy()])
        curvature = moments.diagonal(axis1=1, axis2=2)
        for begin in range(0, self.columns, _BLOCK):
            self._cancel.raise_if_set()
            end = min(begin + _BLOCK, self.columns)
            steps = np.empty((end - begin, self.groups, self.outputs))
            for j in range(begin, end):
                wanted = now[j] - slope[j] / curvature[:, j, None]
                found[j], values_j = grid.nearest(places[j], wanted.reshape(-1))
                step = values_j.reshape(wanted.shape) - now[j]
                steps[j - begin] = step
                slope[j + 1 : end] += moments[:, j, j + 1 : end].T[:, :, None] * step
            if end < self.columns:
                rest = torch.einsum(
                    "gij,igo->jgo", order.hessian[:, begin:end, end:], torch.from_numpy(steps)
                )
                slope[end:] += rest.numpy()
        return order.in_place(found)


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
    raise SingularMomentsError(
        "the second moments of what it reads are singular",
        hint="Give more samples, or samples that differ",
    )
