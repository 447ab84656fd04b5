"""Weights between two neighbouring levels, moved to one of them by gradient descent (AdaRound)."""

from __future__ import annotations

import math

import torch

from quantstudio.core.precision import Grid, LayerScheme, integer_levels
from quantstudio.engine.quantization.written_weights import ScaleLayout

Tensor = torch.Tensor
# The rectified sigmoid of Nagel et al. 2020, eq. 23: it reaches 0 and 1.
_ZETA, _GAMMA = 1.1, -0.1
# A weight that lies on a level starts this far from it, so that it has a gradient.
_NEAREST, _FARTHEST = 0.02, 0.5
# Annealing of the exponent that drives weights to either level, eq. 24. The paper starts at 20 and takes
# 10,000 iterations; in 200, too many weights would be left in between.
_FIRST_EXPONENT, _LAST_EXPONENT = 8.0, 2.0
# Part of the iterations without it.
_WARM_UP = 0.2


class SoftWeight:
    """A weight of which every value is chosen between its level and the next one towards the float weight.

    Args:
        written: What the file holds, dequantized.
        wanted: The float weight.
        other: The other level of every value, see `other_levels`.
    """

    def __init__(self, written: Tensor, wanted: Tensor, other: Tensor) -> None:
        self.written, self._other = written, other
        self._move = other - written
        share = ((wanted - written) / torch.where(self._move == 0, 1.0, self._move)).clamp(
            _NEAREST, _FARTHEST
        )
        r = (share - _GAMMA) / (_ZETA - _GAMMA)
        self.parameter = torch.log(r / (1 - r)).requires_grad_(True)

    def share(self) -> Tensor:
        """How far every value is on its way to the other level, 0 to 1 (eq. 23)."""
        return (torch.sigmoid(self.parameter) * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)

    def value(self) -> Tensor:
        """The weight between its levels (eq. 22)."""
        return self.written + self.share() * self._move

    def chosen(self) -> Tensor:
        """The weight on its levels."""
        with torch.no_grad():
            return torch.where(self.share() >= 0.5, self._other, self.written)

    def penalty(self, exponent: float) -> Tensor:
        """What values between two levels cost, summed (eq. 24)."""
        return (1 - (2 * self.share() - 1).abs().pow(exponent)).sum()


def exponent_at(done: float) -> float | None:
    """Exponent of the penalty after a part of the iterations; None while there is none."""
    if done < _WARM_UP:
        return None
    left = 1 - (done - _WARM_UP) / (1 - _WARM_UP)
    return _LAST_EXPONENT + (_FIRST_EXPONENT - _LAST_EXPONENT) * 0.5 * (1 - math.cos(math.pi * left))


def other_levels(
    written: Tensor, wanted: Tensor, layout: ScaleLayout, scheme: LayerScheme, max_bits: int
) -> Tensor:
    """The level next to that of every value, on the side the float weight lies.

    Args:
        written: What the file holds, dequantized.
        wanted: The float weight.
        layout: The scales.
        scheme: Scheme of the layer.
        max_bits: Bits of a weight the kernel takes.
    """
    if scheme.weights.has_codebook and (table := _row_tables(written, layout, 1 << scheme.weights.bits)):
        return _in_tables(written, wanted, layout, table)
    scale = _spread(written, layout)
    if scheme.weights.grid is Grid.SIGN:
        return -written
    low, high = integer_levels(scheme.weights, max_bits)
    codes = torch.round(written / scale)
    up = torch.where(wanted >= written, 1.0, -1.0)
    # At the end of the grid the only neighbour is inside.
    moved = torch.where((codes + up > high) | (codes + up < low), codes - up, codes + up)
    return moved * scale


def _spread(weight: Tensor, layout: ScaleLayout) -> Tensor:
    scales = torch.from_numpy(layout.scales).to(weight.device)
    if layout.axis is None:
        return scales.reshape(())
    if layout.group_size:
        wide = scales.repeat_interleave(layout.group_size, layout.axis)
        return wide.narrow(layout.axis, 0, weight.shape[layout.axis])
    shape = [1] * weight.ndim
    shape[layout.axis] = -1
    return scales.reshape(shape)


def _rows(weight: Tensor, layout: ScaleLayout) -> Tensor:
    return weight.reshape(1, -1) if layout.axis is None else weight.movedim(layout.axis, 0).flatten(1)


def _row_tables(written: Tensor, layout: ScaleLayout, entries: int) -> list[Tensor] | None:
    """The levels of every channel, ascending; None where they are more than a table has."""
    if layout.group_size:
        return None
    tables = [torch.unique(row) for row in _rows(written, layout)]
    return tables if all(len(table) <= entries for table in tables) else None


def _in_tables(written: Tensor, wanted: Tensor, layout: ScaleLayout, tables: list[Tensor]) -> Tensor:
    rows, aims = _rows(written, layout), _rows(wanted, layout)
    moved = torch.empty_like(rows)
    for row, aim, table, out in zip(rows, aims, tables, moved, strict=True):
        place = torch.searchsorted(table, row.contiguous())
        up = torch.where(aim >= row, 1, -1)
        up = torch.where((place + up >= len(table)) | (place + up < 0), -up, up)
        out.copy_(table[(place + up).clamp(0, len(table) - 1)])
    if layout.axis is None:
        return moved.reshape(written.shape)
    shape = [written.shape[layout.axis], *(n for i, n in enumerate(written.shape) if i != layout.axis)]
    return moved.reshape(shape).movedim(0, layout.axis)
