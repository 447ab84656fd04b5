"""Rounding to an integer grid as QuantizeLinear defines it, independent of everything under test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import IntegerGrid

FloatArray = NDArray[np.float32]


def fake_quantize(
    x: FloatArray, scale: FloatArray | np.float32, zero_point: int, grid: IntegerGrid
) -> FloatArray:
    """`x` rounded to the grid and mapped back; `scale` broadcasts against x.

    Rounds half to even, as QuantizeLinear does.
    """
    q = np.rint(x / scale)
    q += zero_point
    np.clip(q, grid.low, grid.high, out=q)
    q -= zero_point
    return np.asarray(q * scale, dtype=np.float32)
