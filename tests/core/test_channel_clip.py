"""The per-channel clip estimate against quantizing real arrays."""

from __future__ import annotations

import numpy as np
import pytest

from quantstudio.core.affine import IntegerGrid, clip_effect
from quantstudio.core.channel_clip import channel_clip_effect
from tests.affine_reference import fake_quantize


@pytest.mark.parametrize("clip_share", [1.0, 0.6, 0.35], ids=["full", "moderate", "hard"])
@pytest.mark.parametrize("bits", [8, 4], ids=["int8", "int4"])
def test_that_the_estimate_matches_quantized_weights_within_half_a_decibel(clip_share, bits):
    rng = np.random.default_rng(3)
    weights = (rng.standard_normal((64, 512)) * rng.uniform(0.01, 0.2, (64, 1))).astype(np.float32)
    counts, edges = np.histogram(weights, 2048)
    grid = IntegerGrid(bits, signed=True)
    clip = float(np.abs(weights).max()) * clip_share
    low, high = weights.min(axis=1), weights.max(axis=1)
    kept = np.minimum(np.maximum(-low, high), clip)
    scale = (kept / grid.high).astype(np.float32)[:, None]
    error = weights - fake_quantize(weights, scale, 0, grid)
    measured = 10 * np.log10(float((weights**2).mean()) / float((error**2).mean()))

    effect = channel_clip_effect(counts, edges, (low, high), clip, grid)

    assert effect.sqnr_db == pytest.approx(measured, abs=0.5)
    assert effect.clipped_share == pytest.approx(float((np.abs(weights) > clip).mean()), abs=2e-3)


def test_that_channels_of_one_range_give_what_one_scale_gives():
    weights = np.random.default_rng(5).uniform(-1, 1, (8, 4096)).astype(np.float32)
    counts, edges = np.histogram(weights, 2048, (-1, 1))
    grid = IntegerGrid(4, signed=True)

    ones = np.ones(8, dtype=np.float32)
    per_channel = channel_clip_effect(counts, edges, (-ones, ones), 1.0, grid)
    pooled = clip_effect(counts, edges, -1.0, 1.0, grid)

    assert per_channel.sqnr_db == pytest.approx(pooled.sqnr_db, abs=0.1)
    assert per_channel.scale == pooled.scale
