"""A histogram that grows: 4096 bins whatever comes, exact ends, bounded memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.errors import CalibrationError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.statistics import ACTIVATION_BINS, Histogram

# Attention masks add the lowest float (-3.4e38), or -1e30 and lower, to switch positions off. Such values are
# not activations: a range that held them would leave one step for everything else.
MASK_MAGNITUDE = 1e30
# Smallest half range: below it 1/width overflows float32.
_SMALLEST_REACH = 2.0**-100
# 32768 float32 and their int64 bins fit a 1 MB level-2 cache; twice as fast as whole tensors.
_BLOCK = 1 << 15

FloatArray = NDArray[np.float32]


def not_finite(tensor: str, data: str) -> CalibrationError:
    """What a tensor with NaN or infinity in it is refused with; `data` says on which."""
    return CalibrationError(
        f"the model computes NaN or infinity here on {data}",
        where=f"tensor {tensor}",
        hint=Hint(
            "Check the data and its transform; if they are right, the network itself computes it",
            HintAction.CHECK_DATA,
        ),
    )


class TensorObserver:
    """Streaming distribution of one tensor.

    Bins cover [-R, R] with R a power of two. When a value outgrows R, pairs of bins merge into one and R
    doubles: exact, because every old edge that survives is a new edge.
    """

    __slots__ = ("_counts", "_reach", "_seen", "_stride", "has_masks", "maximum", "minimum", "name")

    def __init__(self, name: str, stride: int = 1) -> None:
        """Start empty.

        Args:
            name: Tensor, for error messages.
            stride: Every so many elements go into the bins; the ends always come from all elements.
        """
        self.name = name
        self.minimum = math.inf
        self.maximum = -math.inf
        self.has_masks = False
        self._counts = np.zeros(ACTIVATION_BINS, dtype=np.int64)
        self._reach = 0.0
        self._seen = 0
        self._stride = stride

    def observe(self, values: NDArray[Any]) -> None:
        """Take in one batch.

        Args:
            values: Any shape, float.

        Raises:
            CalibrationError: a value is NaN or infinite; the message names the tensor.
        """
        if not values.size:
            return
        flat = values.reshape(-1)
        # Strided by the running element count, so that the choice does not depend on the batch size.
        chosen = flat[-self._seen % self._stride :: self._stride]
        self._seen += flat.size
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise not_finite(self.name, "the calibration data")
        if low <= -MASK_MAGNITUDE or high >= MASK_MAGNITUDE:
            self.has_masks = True
            kept = flat[np.abs(flat) < MASK_MAGNITUDE]
            if not kept.size:
                return
            low, high = float(kept.min()), float(kept.max())
            chosen = chosen[np.abs(chosen) < MASK_MAGNITUDE]
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self._grow(max(-self.minimum, self.maximum))
        self._count(np.asarray(chosen, dtype=np.float32))

    @property
    def is_empty(self) -> bool:
        """Whether nothing but masks was seen."""
        return self.minimum > self.maximum

    def histogram(self) -> Histogram:
        """What was seen so far.

        Raises:
            CalibrationError: nothing was.
        """
        if self.is_empty:
            raise CalibrationError("no values were observed", where=f"tensor {self.name}")
        counts = self._counts.copy()
        if not counts.any():  # every chosen element was a mask; the ends are still known
            for value in (self.minimum, self.maximum):
                counts[self._bin(value)] += 1
        return Histogram(counts, -self._reach, self._reach, self.minimum, self.maximum)

    def _grow(self, magnitude: float) -> None:
        if magnitude <= self._reach:
            return
        reach = max(2.0 ** math.ceil(math.log2(magnitude)), _SMALLEST_REACH)
        if magnitude > reach:  # log2 rounded down
            reach *= 2
        while self._reach and self._reach < reach:
            merged = np.zeros_like(self._counts)
            quarter = ACTIVATION_BINS // 4
            merged[quarter : 3 * quarter] = self._counts[0::2] + self._counts[1::2]
            self._counts = merged
            self._reach *= 2
        self._reach = reach

    def _count(self, values: FloatArray) -> None:
        if not self._reach:  # only zeros so far
            self._reach = _SMALLEST_REACH
        per_unit = np.float32(ACTIVATION_BINS / (2 * self._reach))
        middle = np.float32(ACTIVATION_BINS / 2)
        size = min(_BLOCK, values.size)
        scaled, bins = np.empty(size, dtype=np.float32), np.empty(size, dtype=np.int64)
        # One bin more: a value of exactly R belongs to the last one.
        total = np.zeros(ACTIVATION_BINS + 1, dtype=np.int64)
        for start in range(0, values.size, _BLOCK):
            block = values[start : start + _BLOCK]
            np.multiply(block, per_unit, out=scaled[: block.size])
            scaled[: block.size] += middle
            np.copyto(bins[: block.size], scaled[: block.size], casting="unsafe")
            total += np.bincount(bins[: block.size], minlength=ACTIVATION_BINS + 1)
        self._counts += total[:-1]
        self._counts[-1] += total[-1]

    def _bin(self, value: float) -> int:
        return min(int((value / self._reach + 1) * ACTIVATION_BINS / 2), ACTIVATION_BINS - 1)
