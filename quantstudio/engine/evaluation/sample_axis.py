"""Where the samples are in an output: an axis, several rows a sample, or nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.errors import MeasureError
from quantstudio.core.hints import Hint, HintAction

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class SampleAxis:
    """How samples lie in an output.

    Attributes:
        axis: Their axis; -1 where there is none and the output is taken whole.
        fold: Rows of that axis a sample has.
    """

    axis: int
    fold: int = 1

    def rows(self, output: Array, held: int, count: int, name: str = "") -> Array:
        """The output with samples first, shape [count, ...].

        An output without a sample axis belongs, whole, to each sample of its feed.

        Args:
            output: What a run gave.
            held: Samples in the feed.
            count: Valid ones among them.
            name: Of the output, for error messages.

        Raises:
            MeasureError: the axis does not hold the samples.
        """
        if self.axis < 0 or self.axis >= output.ndim:
            return np.broadcast_to(output[None], (count, *output.shape))
        size = output.shape[self.axis]
        if size != held * self.fold:
            if held == 1:  # a feed of its own, of another size than the first: all of it is this sample's
                return output[None]
            raise MeasureError(
                f"output {name!r} has shape {list(output.shape)} for {held} samples, which were expected on "
                f"axis {self.axis}",
                hint=Hint(f"Name the axis that holds the samples of {name!r}", HintAction.NAME_BATCH_AXIS),
            )
        first = np.moveaxis(output, self.axis, 0)
        if self.fold > 1:
            first = first.reshape(held, self.fold, *first.shape[1:])
        return first[:count]


WHOLE = SampleAxis(-1)


def output_axis(
    small: Array,
    large: Array | None,
    held: int,
    *,
    declared: int | None,
    named: int | None,
) -> SampleAxis:
    """The sample axis of an output, from runs of `held` samples and of one more.

    Args:
        small: Output for `held` samples.
        large: Output for one more; None where the batch size is fixed.
        held: Samples of the first run.
        declared: Axis the symbols of the model name, if any.
        named: Axis the user named, if any.
    """
    shape = small.shape
    if named is not None:
        return SampleAxis(named, max(1, shape[named] // held))
    if large is not None:
        if large.ndim != small.ndim:
            return WHOLE
        grown = [k for k in range(small.ndim) if _fold(shape[k], large.shape[k], held)]
        if not grown:
            return WHOLE
        axis = declared if declared in grown else grown[0]
        return SampleAxis(axis, shape[axis] // held)
    if declared is not None and declared < small.ndim and shape[declared] == held:
        return SampleAxis(declared)
    return _fitting_axis(shape, held)


def _fold(small: int, large: int, held: int) -> bool:
    """Whether an axis grew as the samples did."""
    return small > 0 and small % held == 0 and large == small // held * (held + 1)


def _fitting_axis(shape: Sequence[int], held: int) -> SampleAxis:
    """Where nothing can grow: the first axis if it is as long as the samples, else the only such one."""
    if not shape:
        return WHOLE
    if shape[0] == held:
        return SampleAxis(0)
    fitting = [k for k, size in enumerate(shape) if size == held]
    if len(fitting) == 1:
        return SampleAxis(fitting[0])
    if held > 1 and shape[0] % held == 0:
        return SampleAxis(0, shape[0] // held)
    return WHOLE
