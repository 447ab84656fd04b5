from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantstudio.core.affine import (
    SMALLEST_SCALE,
    IntegerGrid,
    affine_qparams,
    clip_effect,
    sqnr_db,
)
from tests.affine_reference import fake_quantize

U8 = IntegerGrid(8, signed=False)
S8 = IntegerGrid(8, signed=True)


@pytest.mark.parametrize(
    ("grid", "low", "high", "steps"),
    [
        pytest.param(U8, 0, 255, 255, id="u8"),
        pytest.param(S8, -127, 127, 254, id="s8-narrow"),
        pytest.param(IntegerGrid(4, signed=True), -7, 7, 14, id="s4"),
        pytest.param(IntegerGrid(2, signed=True), -1, 1, 2, id="ternary"),
        pytest.param(IntegerGrid(1, signed=True), -1, 1, 2, id="binary"),
    ],
)
def test_that_grids_have_the_documented_ends(grid: IntegerGrid, low: int, high: int, steps: int) -> None:
    assert (grid.low, grid.high, grid.steps) == (low, high, steps)


def test_that_an_asymmetric_range_uses_every_step() -> None:
    scale, zero_point = affine_qparams(-1.0, 4.1, U8)
    assert float(scale) == pytest.approx(5.1 / 255)
    assert zero_point == 50


def test_that_a_range_is_widened_to_hold_zero() -> None:
    assert affine_qparams(2.0, 5.1, U8) == affine_qparams(0.0, 5.1, U8)
    assert affine_qparams(-5.1, -2.0, U8)[1] == 255


def test_that_a_signed_grid_is_symmetric() -> None:
    scale, zero_point = affine_qparams(-2.54, 1.0, S8)
    assert float(scale) == pytest.approx(0.02)
    assert zero_point == 0


def test_that_an_empty_range_gets_the_smallest_scale() -> None:
    for grid in (U8, S8):
        scale, zero_point = affine_qparams(0.0, 0.0, grid)
        assert scale == SMALLEST_SCALE
        assert zero_point == 0


@pytest.mark.parametrize("bounds", [(math.nan, 1.0), (-1.0, math.inf), (1.0, -1.0)])
def test_that_impossible_ranges_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="range"):
        affine_qparams(*bounds, U8)


@given(
    st.floats(-1e4, 0, width=32),
    st.floats(0, 1e4, width=32),
    st.integers(2, 8),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_that_rounding_errs_by_half_a_step_inside_and_zero_stays_exact(low, high, bits, signed, seed) -> None:
    grid = IntegerGrid(bits, signed)
    scale, zero_point = affine_qparams(low, high, grid)
    x = np.random.default_rng(seed).uniform(low, high, 64).astype(np.float32)
    inside = x[(x >= (grid.low - zero_point) * scale) & (x <= (grid.high - zero_point) * scale)]
    error = np.abs(fake_quantize(inside, scale, zero_point, grid) - inside)
    # Half a step, and a few float32 ulps of the largest value.
    assert (error <= scale / 2 + 4e-7 * max(-low, high)).all()
    assert fake_quantize(np.zeros(1, np.float32), scale, zero_point, grid)[0] == 0


def test_that_values_outside_are_clipped_to_the_ends() -> None:
    out = fake_quantize(np.array([-90.0, 90.0], np.float32), np.float32(0.1), 10, U8)
    assert out == pytest.approx([-1.0, 24.5])


def test_that_halves_round_to_even() -> None:
    out = fake_quantize(np.array([0.5, 1.5, 2.5], np.float32), np.float32(1), 0, U8)
    assert out.tolist() == [0, 2, 2]


def test_that_sqnr_of_known_powers_is_right() -> None:
    assert sqnr_db(100.0, 1.0) == pytest.approx(20.0)
    assert sqnr_db(1.0, 0.0) == math.inf
    assert sqnr_db(0.0, 1.0) == -math.inf


def test_that_the_effect_of_a_clip_range_matches_the_values_themselves() -> None:
    x = np.random.default_rng(0).normal(0, 1, 1 << 18).astype(np.float32)
    counts, edges = np.histogram(x, bins=4096, range=(-8, 8))
    grid = IntegerGrid(4, signed=False)
    effect = clip_effect(counts, edges, -2.0, 2.0, grid)
    rounded = fake_quantize(x, np.float32(effect.scale), effect.zero_point, grid)
    noise = float(np.square(x - rounded, dtype=np.float64).mean())
    assert effect.mean_squared_error == pytest.approx(noise, rel=0.01)
    assert effect.sqnr_db == pytest.approx(
        sqnr_db(float(np.square(x, dtype=np.float64).mean()), noise), abs=0.1
    )
    half = effect.scale / 2
    outside = ((x < effect.grid_low - half) | (x > effect.grid_high + half)).mean()
    assert effect.clipped_share == pytest.approx(float(outside), abs=2e-3)  # one bin of 4096


def test_that_a_range_holding_everything_clips_nothing() -> None:
    counts, edges = np.histogram(np.linspace(-1, 1, 1000), bins=512, range=(-1, 1))
    effect = clip_effect(counts, edges, -1.0, 1.0, U8)
    assert effect.clipped_share == 0
    assert effect.grid_low <= -1 + effect.scale
    assert effect.grid_high >= 1 - effect.scale
