"""Blocks of a channel's columns with a scale each, and a zero point where asked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from quantstudio.engine.recovery.code_grids import SCALES_TRIED, SHORTEST_SCALE, SMALLEST, Codes, Floats

Tensor = torch.Tensor

# Scales of neighbouring blocks are fitted together; a little ridge decides where codes leave them open.
_RIDGE = 1e-6
# Ranges tried with a zero point: they fit both ends already.
_SHORTEST_RANGE = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class BlockGrid:
    """Whole codes times the scale of their block, counted from its zero point.

    Attributes:
        low: Smallest integer.
        high: Largest integer.
        scales: One a row and block, [R, B].
        block: Columns of a block; the last one may be shorter.
        zeros: Integer that stands for zero, [R, B]; None where it is zero. Codes are integers less it.
        is_sign: Whether codes are -1 and 1 alone.
    """

    low: int
    high: int
    scales: Floats
    block: int
    zeros: Floats | None = None
    is_sign: bool = False

    @property
    def together(self) -> int:
        """One: every channel has its own."""
        return 1

    def nearest(self, column: int, wanted: Floats) -> tuple[Codes, Floats]:
        """Code and value nearest to what is wanted in one column, each [R]."""
        place = column // self.block
        scale = self.scales[:, place]
        if self.is_sign:
            codes = np.where(wanted < 0, -1.0, 1.0)
        else:
            zero = 0.0 if self.zeros is None else self.zeros[:, place]
            codes = np.clip(np.rint(wanted / scale), self.low - zero, self.high - zero)
        return codes.astype(np.int64), codes * scale

    def values(self, codes: Codes) -> Floats:
        """Values of codes [R, K]."""
        return codes * np.repeat(self.scales, self.block, axis=1)[:, : codes.shape[1]]

    def refitted(self, codes: Codes, target: Tensor, hessian: Tensor) -> BlockGrid:
        """The scales whose values at these codes come closest to a target, all blocks of a row together."""
        groups, outputs, columns = target.shape
        # Single precision is plenty for normal equations of a few unknowns.
        c = torch.from_numpy(codes.astype(np.float32)).reshape(groups, outputs, columns)
        moments = hessian.float()
        gram = torch.stack(
            [
                self._by_block(c[..., at : at + self.block] @ moments[:, at : at + self.block] * c)
                for at in range(0, columns, self.block)
            ],
            dim=2,
        ).double()
        met = self._by_block(c * (target @ hessian).float()).double()
        ridge = _RIDGE * gram.diagonal(dim1=2, dim2=3).mean(2)[..., None] + SMALLEST
        gram = gram + torch.diag_embed(ridge.expand(*gram.shape[:3]))
        found = torch.linalg.solve(gram, met).reshape(self.scales.shape).numpy()
        good = np.isfinite(found) & (found > SMALLEST)
        return replace(self, scales=np.where(good, found, self.scales))

    def in_order(self, codes: Codes) -> tuple[BlockGrid, Codes]:
        """Itself: codes ascend."""
        return self, codes

    def readable(self, codes: Codes) -> tuple[BlockGrid, Codes]:
        """Itself: whole multiples show their scale."""
        return self, codes

    def with_rows(self, other: BlockGrid, rows: NDArray[np.bool_]) -> BlockGrid:
        """The grid with some rows of another one, [R]."""
        zeros = self.zeros
        if zeros is not None and other.zeros is not None:
            zeros = np.where(rows[:, None], other.zeros, zeros)
        return replace(self, scales=np.where(rows[:, None], other.scales, self.scales), zeros=zeros)

    def _by_block(self, products: Tensor) -> Tensor:
        """Sums over the columns of every block, [G, O, B]."""
        short = -products.shape[-1] % self.block
        whole = torch.nn.functional.pad(products, (0, short))
        return whole.reshape(*products.shape[:-1], -1, self.block).sum(-1)


def best_blocks(
    rows: Floats, importance: Floats, low: int, high: int, block: int, *, is_sign: bool = False,
    is_affine: bool = False,
) -> BlockGrid:  # fmt: skip
    """The block grid with the least weighted squared error.

    For every width of the range the scale is fitted to the codes in closed form, which can only gain.

    Args:
        rows: Weights [R, K].
        importance: What an error counts, [R, K].
        low: Smallest integer.
        high: Largest integer.
        block: Columns a scale is for.
        is_sign: Whether there is no code 0.
        is_affine: Whether every block has a zero point of its own.
    """
    count, columns = rows.shape
    blocks = -(-columns // block)
    padding = ((0, 0), (0, blocks * block - columns))
    w = np.pad(rows, padding).reshape(-1, block).astype(np.float32)
    # What fills the last block counts nothing; no weight does, so that no scale is left open.
    counts = np.pad(np.maximum(importance, SMALLEST), padding).reshape(-1, block).astype(np.float32)
    counts /= np.maximum(counts.max(axis=1, keepdims=True), np.float32(SMALLEST))
    search = _Search(w, counts, low, high, is_sign)
    scales, zeros = search.affine() if is_affine else search.symmetric()
    return BlockGrid(
        low,
        high,
        scales.reshape(count, blocks).astype(np.float64),
        block,
        zeros.reshape(count, blocks).astype(np.float64) if is_affine else None,
        is_sign,
    )


class _Search:
    """The best of some ranges for every block, [N, block]."""

    def __init__(
        self, w: NDArray[np.float32], counts: NDArray[np.float32], low: int, high: int, is_sign: bool
    ) -> None:
        self.w, self.counts, self.low, self.high, self.is_sign = w, counts, low, high, is_sign
        self.weighted = w * counts
        shape = (len(w), 1)
        self.least = np.full(shape, np.inf, np.float32)
        self.scales, self.zeros = np.ones(shape, np.float32), np.zeros(shape, np.float32)

    def symmetric(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scales, and zero points that are zero."""
        reach = max(self.high, 1) if self.is_sign or self.low >= -self.high else (self.high - self.low) / 2
        widest = np.abs(self.w).max(axis=1, keepdims=True) / np.float32(reach)
        none = np.zeros_like(widest)
        for ratio in np.linspace(1.1, SHORTEST_SCALE if self.high > 1 else 0.1, SCALES_TRIED // 2):
            self._try(widest * np.float32(ratio), none)
        return self.scales, self.zeros

    def affine(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scales and zero points of ranges around zero."""
        bottom = np.minimum(self.w.min(axis=1, keepdims=True), 0)
        top = np.maximum(self.w.max(axis=1, keepdims=True), 0)
        for ratio in np.linspace(1.05, _SHORTEST_RANGE, SCALES_TRIED // 2, dtype=np.float32):
            scale = np.maximum(
                (top - bottom) * ratio / np.float32(self.high - self.low), np.float32(SMALLEST)
            )
            middle = self.low - bottom * ratio / scale
            for zero in (np.floor(middle), np.ceil(middle)):
                self._try(scale, np.clip(zero, self.low, self.high))
        return self.scales, self.zeros

    def _try(self, scale: NDArray[np.float32], zero: NDArray[np.float32]) -> None:
        scale = np.maximum(scale, np.float32(SMALLEST))
        if self.is_sign:
            codes = np.where(self.w < 0, np.float32(-1), np.float32(1))
        else:
            codes = np.clip(np.rint(self.w / scale), self.low - zero, self.high - zero)
        over = (self.weighted * codes).sum(axis=1, keepdims=True)
        under = (self.counts * codes * codes).sum(axis=1, keepdims=True)
        fitted = np.divide(over, under, out=scale.copy(), where=under > 0)
        fitted = np.where(fitted > SMALLEST, fitted, scale)
        error = (self.counts * (codes * fitted - self.w) ** 2).sum(axis=1, keepdims=True)
        better = error < self.least
        self.least[better], self.scales[better], self.zeros[better] = (
            error[better],
            fitted[better],
            zero[better],
        )
