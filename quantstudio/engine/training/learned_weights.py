"""Weights that are trained through their rounding: float weights, and the grids they are rounded on.

A weight is trained in units of its channel's spread, a scale as a factor of what it was, an entry of a table
as a part of the largest: so that one learning rate fits all of them, and layers whose BatchNormalization was
folded into channels of very different size, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from quantstudio.core.precision import Grid, LayerScheme, integer_levels
from quantstudio.engine.quantization.written_weights import ScaleLayout
from quantstudio.engine.torch_graph.rounding import rounded

Tensor = torch.Tensor
_SMALLEST = 1e-12


class LearnedWeight(Protocol):
    """A weight whose float values and grid are trained.

    Attributes:
        latent: The float values in units of their channel, trained.
        grid: What is trained of the grid.
    """

    latent: Tensor
    grid: list[Tensor]

    def value(self) -> Tensor:
        """The weight as its grid rounds it now, in its own shape; gradients reach latent and grid."""


def learned_weight(
    weight: Tensor, written: Tensor, layout: ScaleLayout, scheme: LayerScheme, max_bits: int
) -> LearnedWeight | None:
    """A weight to be trained; None where its grid is none that is trained here (blocks with zero points).

    Args:
        weight: The float weight.
        written: What the quantizer makes of it.
        layout: Which of its values share a scale.
        scheme: Of its layer.
        max_bits: Bits an integer kernel of the target takes.
    """
    levels = integer_levels(scheme.weights, max_bits)
    if scheme.weights.has_codebook and layout.axis is not None and not layout.group_size:
        entries = 1 << scheme.weights.bits
        rows, scales = _rows(written, layout.axis), torch.from_numpy(layout.scales).reshape(-1, 1)
        tables = scheme.weights.tables_of(len(rows))
        codes = torch.round(rows.cpu() / scales).numpy().astype(np.int64)
        found = [np.unique(part) for part in np.split(codes, tables)]
        # Layers that gain nothing by a table have INT8 instead.
        if all(len(part) <= entries for part in found):
            return TableWeight(weight, layout.axis, scales.to(weight.device), found, entries, levels[1])
    if layout.group_size and not scheme.symmetric and scheme.weights.has_range_rule:
        return None
    return SteppedWeight(weight, layout, levels, is_sign=scheme.weights.grid is Grid.SIGN)


class SteppedWeight:
    """A weight on equal steps: learned step sizes (Esser et al. 2020, arXiv:1902.08153).

    Args:
        weight: The float weight.
        layout: Which of its values share a scale.
        levels: Smallest and largest integer.
        is_sign: Whether there is no zero: the gradient then passes within twice the scale (Liu et al. 2020,
            ReActNet, arXiv:2003.03488).
    """

    def __init__(
        self, weight: Tensor, layout: ScaleLayout, levels: tuple[int, int], *, is_sign: bool
    ) -> None:
        self._layout, self._levels, self._is_sign = layout, levels, is_sign
        self._unit = _unit(weight, None if layout.group_size else layout.axis)
        self.latent = (weight / self._unit).requires_grad_(True)
        self._start = torch.from_numpy(np.ascontiguousarray(layout.scales)).to(weight.device)
        if layout.axis is not None and not layout.group_size:
            shape = [1] * weight.ndim
            shape[layout.axis] = -1
            self._start = self._start.reshape(shape)
        self.grid = [torch.ones_like(self._start).requires_grad_(True)]

    def value(self) -> Tensor:
        """The weight as its grid rounds it now."""
        scale = (self.grid[0] * self._start).clamp_min(_SMALLEST)
        layout = self._layout
        if layout.group_size and layout.axis is not None:
            length = self.latent.shape[layout.axis]
            scale = scale.repeat_interleave(layout.group_size, layout.axis).narrow(layout.axis, 0, length)
        steps = self.latent * self._unit / scale
        if self._is_sign:
            steps = steps.clamp(-2, 2)
            return (torch.where(steps < 0, -1.0, 1.0) + steps - steps.detach()) * scale
        low, high = self._levels
        return rounded(steps).clamp(low, high) * scale


class TableWeight:
    """A weight with a table of values: entries and scales are learned, indices assigned anew at every step.

    The forward pass takes the nearest entry; its gradient goes to the entry, and straight through to the
    float weight (Han et al. 2016, arXiv:1510.00149, section 3.3, for the entries). The largest entry of a
    table is the largest integer for good and moves with the scale alone.

    Args:
        weight: The float weight.
        axis: Axis of the channels.
        scales: What one integer is worth, [C, 1].
        codes: Integers of each table.
        entries: Entries a table has.
        high: The largest integer.
    """

    def __init__(
        self,
        weight: Tensor,
        axis: int,
        scales: Tensor,
        codes: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.int64]]],
        entries: int,
        high: int,
    ) -> None:
        self._axis, self._high, self._shape = axis, high, weight.shape
        rows = _rows(weight, axis)
        self._unit = _unit(rows, 0)
        self.latent = (rows / self._unit).requires_grad_(True)
        start = torch.stack([_filled(part, entries) for part in codes]).to(weight.device)
        largest = start.abs().amax(1, keepdim=True).clamp_min(1.0)
        each = len(rows) // len(codes)
        self._table_of = torch.arange(len(codes), device=weight.device).repeat_interleave(each)
        self._start = start / largest
        # Only the first of several that are as large is held.
        self._is_largest = torch.zeros_like(start, dtype=torch.bool)
        self._is_largest.scatter_(1, start.abs().argmax(1, keepdim=True), value=True)
        self._scale = scales * largest[self._table_of]
        self.grid = [
            torch.ones_like(self._scale).requires_grad_(True),
            self._start.clone().requires_grad_(True),
        ]

    def value(self) -> Tensor:
        """The weight as its table holds it now."""
        factor, entries = self.grid
        shares = torch.where(self._is_largest, self._start, entries)
        table = rounded(shares * self._high).clamp(-self._high, self._high) / self._high
        tables = table[self._table_of] * (factor * self._scale)
        tables, _ = tables.sort(1)
        latent = self.latent * self._unit
        with torch.no_grad():
            middles = ((tables[:, 1:] + tables[:, :-1]) / 2).contiguous()
            index = torch.searchsorted(middles, latent.detach().contiguous())
        rows = torch.gather(tables, 1, index) + (latent - latent.detach())
        moved = [self._shape[self._axis], *(n for i, n in enumerate(self._shape) if i != self._axis)]
        return rows.reshape(moved).movedim(0, self._axis)


def _rows(weight: Tensor, axis: int) -> Tensor:
    return weight.movedim(axis, 0).flatten(1)


def _unit(weight: Tensor, axis: int | None) -> Tensor:
    """Root mean square of every channel, in a shape that multiplies the weight."""
    if axis is None:
        return weight.square().mean().sqrt().clamp_min(_SMALLEST)
    others = [place for place in range(weight.ndim) if place != axis]
    if not others:
        return weight.square().mean().sqrt().clamp_min(_SMALLEST)
    found = weight.square().mean(others, keepdim=True).sqrt()
    # A channel that is all but zero is trained as the others are.
    return found.clamp_min(max(1e-2 * float(found.mean()), _SMALLEST))


def _filled(codes: np.ndarray[tuple[int, ...], np.dtype[np.int64]], entries: int) -> Tensor:
    """Integers of a table, and those that no weight uses spread between them: training may take them up."""
    found = sorted(float(code) for code in codes)
    while len(found) < entries:
        if len(found) == 1:
            found.append(0.0 if found[0] else 1.0)
            continue
        place = max(range(1, len(found)), key=lambda i: found[i] - found[i - 1])
        found.insert(place, (found[place - 1] + found[place]) / 2)
    return torch.tensor(found, dtype=torch.float32)
