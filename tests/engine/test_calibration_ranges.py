from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantstudio.core.affine import IntegerGrid, affine_qparams
from quantstudio.core.errors import CalibrationError
from quantstudio.core.recipe import CalibrationSettings, RangeMethod
from quantstudio.core.statistics import Histogram
from quantstudio.engine.calibration.histogram import TensorObserver
from quantstudio.engine.calibration.ranges import activation_range, all_ranges
from tests.affine_reference import fake_quantize

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(0, 1, 300_000).astype(np.float32)
HEAVY = RNG.standard_t(3, 300_000).astype(np.float32)
SKEWED = (RNG.gamma(2.0, 1.0, 300_000) - 1.0).astype(np.float32)
RELU = np.maximum(HEAVY, 0)


def histogram(x: np.ndarray) -> Histogram:
    observer = TensorObserver("t")
    observer.observe(x.astype(np.float32))
    return observer.histogram()


def noise(x: np.ndarray, low: float, high: float, grid: IntegerGrid) -> float:
    """Mean squared error on the values themselves."""
    scale, zero_point = affine_qparams(low, high, grid)
    return float(np.square(fake_quantize(x, scale, zero_point, grid) - x, dtype=np.float64).mean())


def best_by_brute_force(x: np.ndarray, grid: IntegerGrid) -> float:
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    ratios = np.geomspace(1, 0.03, 40)
    if low == 0 or high == 0 or grid.signed:
        return min(noise(x, low * r, high * r, grid) for r in ratios)
    return min(noise(x, low * a, high * b, grid) for a in ratios for b in ratios[::3])


def by(
    method: RangeMethod, x: np.ndarray, grid: IntegerGrid, percentile: float = 99.999
) -> tuple[float, float]:
    return activation_range(histogram(x), CalibrationSettings(method, percentile), grid)


U8, U4 = IntegerGrid(8, signed=False), IntegerGrid(4, signed=False)


def test_that_minmax_keeps_everything_and_zero() -> None:
    assert by(RangeMethod.MINMAX, NORMAL, U8) == (NORMAL.min(), NORMAL.max())
    assert by(RangeMethod.MINMAX, np.abs(NORMAL) + 1, U8)[0] == 0
    assert by(RangeMethod.MINMAX, -np.abs(NORMAL) - 1, U8)[1] == 0


@pytest.mark.parametrize("percentile", [99.999, 99.9, 99.0, 90.0])
def test_that_percentiles_are_those_of_the_values(percentile: float) -> None:
    tail = (100 - percentile) / 2
    low, high = by(RangeMethod.PERCENTILE, HEAVY, U8, percentile)
    expected = np.percentile(HEAVY, [tail, 100 - tail])
    bin_width = 2 * histogram(HEAVY).high / 4096
    # Within a bin, or within the gap between the two values the percentile falls between.
    gap = np.diff(np.sort(HEAVY)[[0, 1, 2, -3, -2, -1]]).max() if percentile > 99.99 else 0
    assert abs(low - expected[0]) <= bin_width + gap
    assert abs(high - expected[1]) <= bin_width + gap


def test_that_a_percentile_finer_than_the_samples_keeps_everything() -> None:
    x = NORMAL[:100]
    assert by(RangeMethod.PERCENTILE, x, U8) == (x.min(), x.max())
    assert by(RangeMethod.PERCENTILE, x, U8, 100.0) == (x.min(), x.max())


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.1])
def test_that_impossible_percentiles_are_refused(percentile: float) -> None:
    with pytest.raises(CalibrationError, match="not a percentage"):
        by(RangeMethod.PERCENTILE, NORMAL, U8, percentile)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "x",
    [
        pytest.param(NORMAL[:50_000], id="normal"),
        pytest.param(HEAVY[:50_000], id="heavy"),
        pytest.param(SKEWED[:50_000], id="skewed"),
        pytest.param(RELU[:50_000], id="relu"),
    ],
)
def test_that_the_mse_range_is_as_good_as_brute_force(x: np.ndarray, bits: int, signed: bool) -> None:
    grid = IntegerGrid(bits, signed)
    found = noise(x, *by(RangeMethod.MSE, x, grid), grid)
    # 5 %: brute force has a coarse grid of its own, ours a search that may end beside the very best.
    assert found <= best_by_brute_force(x, grid) * 1.05
    assert found <= noise(x, *by(RangeMethod.MINMAX, x, grid), grid) * 1.0001


def test_that_a_lone_outlier_is_clipped_away_at_low_bits() -> None:
    x = np.concatenate([NORMAL, [300.0]])
    low, high = by(RangeMethod.MSE, x, U4)
    assert -4 < low < -1.5
    assert high < 150
    assert noise(x, low, high, U4) < noise(x, float(x.min()), 300.0, U4) / 2


def test_that_discrete_values_that_fit_the_grid_are_kept_exactly() -> None:
    pixels = (RNG.integers(0, 256, 100_000) / 255 - 0.286) / 0.353
    low, high = by(RangeMethod.MSE, pixels, U8)
    assert noise(pixels.astype(np.float32), low, high, U8) < (1 / 255 / 0.353) ** 2 / 12


def test_that_sixteen_bits_keep_nearly_everything() -> None:
    low, high = by(RangeMethod.MSE, NORMAL, IntegerGrid(16, signed=False))
    assert low == pytest.approx(float(NORMAL.min()), rel=0.05)
    assert high == pytest.approx(float(NORMAL.max()), rel=0.05)


def test_that_entropy_clips_a_heavy_tail_and_ignores_the_spike_at_zero() -> None:
    low, high = by(RangeMethod.ENTROPY, RELU, U8)
    assert low == 0
    assert 0 < high < RELU.max()
    share_clipped = float((high < RELU).mean())
    assert share_clipped < 0.01


def test_that_entropy_keeps_everything_where_the_grid_is_finer_than_the_bins() -> None:
    assert by(RangeMethod.ENTROPY, NORMAL, IntegerGrid(14, signed=False)) == (NORMAL.min(), NORMAL.max())
    alone = np.concatenate([np.zeros(50), np.array([1e-9])])
    assert by(RangeMethod.ENTROPY, alone, U8)[1] <= 1e-9


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8, 10, 12, 16])
@pytest.mark.parametrize("x", [NORMAL, HEAVY, SKEWED, RELU, -RELU, NORMAL + 10, NORMAL[:3]])
def test_that_every_method_gives_a_finite_range_with_zero_within_what_was_seen(x, bits) -> None:
    full = (min(float(x.min()), 0.0), max(float(x.max()), 0.0))
    ranges = all_ranges(histogram(x), bits)
    assert set(ranges) == set(RangeMethod)
    for low, high in ranges.values():
        assert full[0] <= low <= 0 <= high <= full[1]
        assert low < high
        assert isinstance(low, float)


@pytest.mark.parametrize("value", [0.0, 2.5, -1e-12, 1e20])
def test_that_constant_tensors_span_zero_and_their_value(value: float) -> None:
    for low, high in all_ranges(histogram(np.full(10, value)), 8).values():
        assert (low, high) == (min(np.float32(value), 0.0), max(np.float32(value), 0.0))


@settings(max_examples=40)
@given(
    st.lists(st.floats(-(2.0**66), 2.0**66, width=32), min_size=1, max_size=40),
    st.integers(2, 16),
    st.booleans(),
    st.sampled_from(list(RangeMethod)),
)
def test_that_any_values_give_a_usable_range(values, bits, signed, method) -> None:
    x = np.array(values, np.float32)
    grid = IntegerGrid(bits, signed)
    low, high = by(method, x, grid, 95.0)
    assert min(float(x.min()), 0.0) <= low <= 0 <= high <= max(float(x.max()), 0.0)
    affine_qparams(low, high, grid)


def test_that_bits_outside_two_to_sixteen_are_refused() -> None:
    for bits in (1, 17):
        with pytest.raises(CalibrationError, match=f"{bits} bits"):
            by(RangeMethod.MSE, NORMAL, IntegerGrid(bits, signed=False))
