"""What a clip range does to weights whose scale is chosen channel by channel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import ClipEffect, IntegerGrid, clip_effect, sqnr_db


def channel_clip_effect(
    counts: NDArray[np.int64],
    edges: NDArray[np.float64],
    channels: tuple[NDArray[np.float32], NDArray[np.float32]],
    clip: float,
    grid: IntegerGrid,
) -> ClipEffect:
    """Effect of clipping at [-clip, clip] when every output channel has its own symmetric scale.

    Only the pooled histogram is needed: values beyond the clip lose their excess whatever the channel, and a
    channel whose own range is smaller than the clip keeps its finer step, so the rounding error is the mean
    of step^2 / 12 over the channels.

    Args:
        counts: Weights in each bin over all channels, shape [B].
        edges: Bin edges, shape [B + 1], ascending.
        channels: Smallest and largest weight per channel, two arrays of shape [C].
        clip: Largest magnitude to keep, >= 0.
        grid: Signed integer grid.

    Returns:
        The effect; scale and grid ends are those of the widest channel.

    Raises:
        ValueError: the clip is not finite or negative.
    """
    pooled = clip_effect(counts, edges, -clip, clip, grid)
    centres = (edges[1:] + edges[:-1]) / 2
    total = max(int(counts.sum()), 1)
    excess = np.maximum(np.abs(centres) - clip, 0.0)
    outside = float(counts[excess > 0].sum()) / total
    ranges = np.maximum(np.abs(channels[0]), np.abs(channels[1])).astype(np.float64)
    steps = np.minimum(ranges, clip) / grid.high
    rounding = float(np.mean(steps**2)) / 12 if steps.size else 0.0
    noise = float((counts * excess**2).sum()) / total + (1 - outside) * rounding
    signal = float((counts * centres**2).sum()) / total
    return replace(pooled, clipped_share=outside, mean_squared_error=noise, sqnr_db=sqnr_db(signal, noise))
