"""Random inputs for models without data: enough to run and time them, never to judge accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.layers import TensorInfo

# Sizes given to dimensions the model leaves open: pictures stay small but survive five poolings.
OPEN_PICTURE_SIZE = 64
OPEN_SIZE = 16


def synthetic_feed(inputs: tuple[TensorInfo, ...], batch: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """One batch of random input.

    Args:
        inputs: The model's inputs.
        batch: Size of the first dimension where the model leaves it open.
        seed: Seed; the same seed gives the same arrays.

    Returns:
        Arrays by input name: normal for floats, 0 or 1 for integers (valid as token, mask and index).
    """
    rng = np.random.default_rng(seed)
    feed: dict[str, NDArray[Any]] = {}
    for info in inputs:
        other = OPEN_PICTURE_SIZE if len(info.shape) == 4 else OPEN_SIZE
        shape = tuple(
            d if isinstance(d, int) else batch if axis == 0 else other for axis, d in enumerate(info.shape)
        )
        if np.dtype(info.dtype).kind == "f":
            feed[info.name] = rng.standard_normal(shape).astype(info.dtype)
        else:
            feed[info.name] = rng.integers(0, 2, shape).astype(info.dtype)
    return feed
