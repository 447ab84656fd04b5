from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantstudio.core.errors import CalibrationError
from quantstudio.core.statistics import ACTIVATION_BINS, Histogram
from quantstudio.engine.calibration.histogram import TensorObserver

RNG = np.random.default_rng(0)


def observed(*batches: np.ndarray, stride: int = 1) -> Histogram:
    observer = TensorObserver("t", stride)
    for batch in batches:
        observer.observe(batch.astype(np.float32))
    return observer.histogram()


def test_that_bins_are_those_of_a_plain_histogram() -> None:
    x = RNG.normal(0, 1, 200_000).astype(np.float32)
    made = observed(x.reshape(10, -1))
    reach = 2.0 ** np.ceil(np.log2(np.abs(x).max()))
    counts, _ = np.histogram(x, bins=ACTIVATION_BINS, range=(-reach, reach))
    assert (made.low, made.high) == (-reach, reach)
    assert (made.minimum, made.maximum) == (x.min(), x.max())
    assert made.total == x.size
    # A value within float32 rounding (2^-12 of a bin) of an edge may fall to either side.
    assert np.abs(made.counts - counts).sum() <= x.size / 1000


@given(st.lists(st.integers(-12, 12), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_that_growing_ends_with_the_histogram_of_one_batch(powers, seed) -> None:
    rng = np.random.default_rng(seed)
    parts = [(rng.normal(0, 1, 50) * 2.0**p).astype(np.float32) for p in powers]
    grown, at_once = observed(*parts), observed(np.concatenate(parts))
    assert (grown.low, grown.high) == (at_once.low, at_once.high)
    assert (grown.minimum, grown.maximum) == (at_once.minimum, at_once.maximum)
    # A value within rounding of an edge may fall to either side of it, but no further.
    mine, other = np.cumsum(grown.counts), np.cumsum(at_once.counts)
    assert (mine[1:] >= other[:-1]).all()
    assert (mine[:-1] <= other[1:]).all()


def test_that_values_at_the_very_end_are_counted() -> None:
    made = observed(np.array([-4.0, 4.0, 0.0]))
    assert (made.low, made.high) == (-4, 4)
    assert made.counts[0] == 1
    assert made.counts[-1] == 1
    assert made.counts[ACTIVATION_BINS // 2] == 1


def test_that_a_stride_keeps_exact_ends_and_does_not_depend_on_batches() -> None:
    x = RNG.normal(0, 1, 10_000)
    one = observed(x, stride=7)
    many = observed(x[:13], x[13:5000], x[5000:5001], x[5001:], stride=7)
    assert (one.minimum, one.maximum) == (float(np.float32(x.min())), float(np.float32(x.max())))
    assert one.total == many.total == len(x[::7])
    counts, _ = np.histogram(x[::7].astype(np.float32), bins=ACTIVATION_BINS, range=(one.low, one.high))
    assert np.abs(one.counts - counts).sum() <= 4
    assert np.array_equal(one.counts, many.counts)


@pytest.mark.parametrize("value", [0.0, 3.0, -2.5, 1e-38, 1e29])
def test_that_constant_tensors_have_one_bin(value: float) -> None:
    made = observed(np.full(100, value), np.full(5, value))
    assert made.is_constant
    assert made.minimum == np.float32(value)
    assert np.flatnonzero(made.counts).size == 1
    assert made.total == 105
    assert made.low <= made.minimum <= made.high
    assert np.isfinite(made.edges).all()


def test_that_zeros_first_and_values_later_are_fine() -> None:
    made = observed(np.zeros(10), np.array([1.0, -1.0]))
    assert (made.low, made.high) == (-1, 1)
    assert made.counts[ACTIVATION_BINS // 2] == 10


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_that_values_that_are_not_finite_are_refused_with_the_name(bad: float) -> None:
    with pytest.raises(CalibrationError, match=r"tensor t: .*NaN or infinity"):
        observed(np.array([1.0, bad, 2.0]))


@pytest.mark.parametrize("mask", [-3.4028234663852886e38, -1e30, 1e31])
def test_that_mask_values_leave_the_range_alone(mask: float) -> None:
    observer = TensorObserver("t")
    observer.observe(np.array([0.5, mask, -2.0], np.float32))
    observer.observe(np.array([mask, mask], np.float32))
    made = observer.histogram()
    assert observer.has_masks
    assert (made.minimum, made.maximum) == (-2.0, 0.5)
    assert made.total == 2


def test_that_a_tensor_of_masks_only_is_empty() -> None:
    observer = TensorObserver("t")
    assert observer.is_empty
    observer.observe(np.full(4, -3e38, np.float32))
    observer.observe(np.zeros(0, np.float32))
    assert observer.is_empty
    with pytest.raises(CalibrationError, match="no values"):
        observer.histogram()


def test_that_ends_alone_are_counted_when_every_chosen_value_is_a_mask() -> None:
    made = observed(np.array([-3e38, 1.0, -3e38, -2.0]), stride=2)
    assert (made.minimum, made.maximum) == (-2.0, 1.0)
    assert made.total == 2
