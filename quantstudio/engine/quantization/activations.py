"""Scale and zero point of activations on the grid of a target: unsigned 8 bits unless it says otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import IntegerGrid, affine_qparams
from quantstudio.core.errors import CalibrationError
from quantstudio.core.recipe import CalibrationSettings
from quantstudio.core.statistics import Histogram
from quantstudio.engine.calibration.ranges import activation_range

ACTIVATION_GRID = IntegerGrid(bits=8, signed=False)
# A tensor that is always zero has no range; any scale holds it, and one far from zero keeps the int32 bias
# scale (input scale times weight scale) out of the denormals.
NARROWEST_RANGE = 1e-20


@dataclass(frozen=True, slots=True)
class ActivationParams:
    """real = scale * (q - zero_point), q on the grid; a byte holds it, however few bits it has.

    Attributes:
        scale: Step, > 0.
        zero_point: Integer that means zero.
        grid: The integers.
        tensor: Whose range this is: a tensor that is only moved has that of the one it is made from.
    """

    scale: np.float32
    zero_point: int
    grid: IntegerGrid = ACTIVATION_GRID
    tensor: str = field(default="", compare=False)

    @property
    def is_narrow(self) -> bool:
        """Whether values must be kept to fewer integers than a byte holds."""
        return self.grid.bits < ACTIVATION_GRID.bits

    def as_byte(self, value: int | NDArray[np.float32]) -> NDArray[Any]:
        """Integers of the grid in the type the file holds them in."""
        kept = np.clip(value, self.grid.low, self.grid.high)
        return np.asarray(kept).astype(np.int8 if self.grid.signed else np.uint8)


def range_params(
    histogram: Histogram | None,
    settings: CalibrationSettings,
    override: tuple[float, float] | None,
    grid: IntegerGrid = ACTIVATION_GRID,
) -> ActivationParams:
    """Scale and zero point from a histogram, or from a range set by hand.

    Args:
        histogram: Distribution; may be None with an override.
        settings: How the range is read off the histogram.
        override: Range set by hand (low, high); wins.
        grid: The integers.

    Raises:
        CalibrationError: the range is not finite or reversed, or there is neither histogram nor override.
    """
    if override is not None:
        low, high = override
    elif histogram is not None:
        low, high = activation_range(histogram, settings, grid)
    else:
        raise CalibrationError("there is neither a histogram nor a range")
    try:
        scale, zero_point = affine_qparams(low, high, grid)
    except ValueError as error:
        raise CalibrationError(str(error), hint="Give a finite range with low below high") from error
    if max(high, 0.0) - min(low, 0.0) < NARROWEST_RANGE:
        return ActivationParams(np.float32(1.0), 0, grid)
    return ActivationParams(scale, zero_point, grid)


def range_of_constant(value: NDArray[np.float32], grid: IntegerGrid = ACTIVATION_GRID) -> ActivationParams:
    """Scale and zero point that hold every value of a constant operand."""
    low, high = min(float(value.min()), 0.0), max(float(value.max()), 0.0)
    if high - low < NARROWEST_RANGE:
        return ActivationParams(np.float32(1.0), 0, grid)
    return ActivationParams(*affine_qparams(low, high, grid), grid)


def clamped_params(params: ActivationParams, low: float, high: float) -> ActivationParams:
    """Params that represent nothing outside [low, high].

    A Relu or Clip with these limits is then redundant; ONNX Runtime drops it only under that condition. A
    grid symmetric about zero cannot leave one side out: there the operator stays, and so do the params.

    Args:
        params: From the tensor's own range.
        low: Lower limit, <= 0.
        high: Upper limit, > 0.
    """
    if params.grid.signed:
        return params
    steps = params.grid.steps
    zero_point = 0 if low == 0 else params.zero_point
    top = float(params.scale) * (steps - params.zero_point)
    scale = np.float32(top / steps) if low == 0 else params.scale
    if math.isfinite(high) and zero_point < steps:
        scale = min(scale, _at_most(high, steps - zero_point))
    if math.isfinite(low) and zero_point > 0:
        scale = min(scale, _at_most(-low, zero_point))
    return replace(params, scale=np.float32(scale), zero_point=zero_point)


def _at_most(limit: float, count: int) -> np.float32:
    """Largest float32 whose float32 product with `count` does not exceed the limit."""
    scale = np.float32(limit / count)
    while scale * np.float32(count) > np.float32(limit):
        scale = np.nextafter(scale, np.float32(0))
    return scale
