"""The grid a layer's weights go on, from the scheme the plan gives it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantstudio.core.precision import Granularity, Grid, LayerScheme, Precision, integer_levels
from quantstudio.engine.recovery.block_grids import best_blocks
from quantstudio.engine.recovery.code_grids import CodeGrid, Floats, best_tables, best_uniform
from quantstudio.engine.recovery.scaled_tables import best_shared_tables


@dataclass(frozen=True, slots=True)
class LayerFormat:
    """What values a layer's weights may take.

    Attributes:
        low: Smallest integer.
        high: Largest integer.
        entries: Values in a table; 0 for equal steps.
        block: Columns a scale is for; 0 for a whole channel.
        is_sign: Whether there is no zero.
        is_shared: Whether all channels share one scale, or one table.
        is_affine: Whether every block has a zero point of its own.
        is_scaled: Whether channels share a table, and have a scale each.
        is_grouped: Whether so do some of them, and not all.
    """

    low: int
    high: int
    entries: int = 0
    block: int = 0
    is_sign: bool = False
    is_shared: bool = False
    is_affine: bool = False
    is_scaled: bool = False
    is_grouped: bool = False

    def best(self, rows: Floats, importance: Floats) -> CodeGrid:
        """The grid with the least weighted squared error for weights [R, K], each rounded by itself."""
        if self.is_scaled:
            tables = (Precision.GROUP4 if self.is_grouped else Precision.TABLE4).tables_of(len(rows))
            return best_shared_tables(rows, importance, self.entries, self.high, tables)
        if self.entries:
            return best_tables(rows, importance, self.entries, self.high, is_shared=self.is_shared)
        importance = np.broadcast_to(importance, rows.shape)
        levels = self.low, self.high
        if self.block:
            return best_blocks(
                rows, importance, *levels, self.block, is_sign=self.is_sign, is_affine=self.is_affine
            )
        return best_uniform(rows, importance, *levels, is_sign=self.is_sign, is_shared=self.is_shared)


def layer_format(
    scheme: LayerScheme, *, is_split: bool, can_group: bool, weight_bits: int
) -> LayerFormat | None:
    """The format as the quantizer reads it off the weights afterwards; None where it could not.

    Args:
        scheme: Scheme of the layer; its weights are integer.
        is_split: Whether scales of weights stored alone cover channels of several groups, as in a stack of
            matrices, whose integer kernels take one scale for all.
        can_group: Whether scales may run along blocks of a channel.
        weight_bits: Bits an integer kernel of the target takes; weights stored alone may have all of theirs.
    """
    low, high = integer_levels(scheme.weights, Precision.INT8.bits if scheme.is_weight_only else weight_bits)
    is_tensor = scheme.granularity is Granularity.PER_TENSOR
    if is_split and scheme.is_weight_only and not is_tensor:
        return None
    if scheme.weights.has_codebook:
        is_one = is_tensor or is_split
        is_scaled = scheme.weights.shares_table and not is_one
        return LayerFormat(
            low,
            high,
            1 << scheme.weights.bits,
            is_shared=is_one,
            is_scaled=is_scaled,
            is_grouped=is_scaled and scheme.weights.grid is Grid.GROUP,
        )
    is_group = scheme.granularity is Granularity.PER_GROUP and scheme.is_weight_only and can_group
    block = scheme.group_size if is_group else 0
    is_sign = scheme.weights.grid is Grid.SIGN
    return LayerFormat(
        low,
        high,
        0,
        block,
        is_sign,
        is_shared=is_tensor or is_split,
        is_affine=block > 0 and not scheme.symmetric and scheme.weights.has_range_rule,
    )
