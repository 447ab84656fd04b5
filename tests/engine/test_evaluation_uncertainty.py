import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from quantstudio.engine.evaluation.uncertainty import (
    bootstrap_interval,
    mcnemar_mid_p,
    paired_accuracy,
    wilson_interval,
)


def _rights(both: int, lost: int, gained: int, neither: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    base = np.repeat([True, True, False, False], [both, lost, gained, neither])
    variant = np.repeat([True, False, True, False], [both, lost, gained, neither])
    return base, variant


def test_that_wilson_is_what_scipy_computes() -> None:
    for successes, total in ((0, 10), (7, 10), (95, 100), (10, 10)):
        expected = binomtest(successes, total).proportion_ci(method="wilson")
        assert wilson_interval(successes, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_that_wilson_without_samples_says_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_that_the_paired_interval_is_newcombes() -> None:
    # The airway example of Newcombe 1998: 36, 12, 2, 0 gives 0.2000, 0.0569 to 0.3404 by method 10.
    drop = paired_accuracy(*_rights(36, 12, 2, 0)).drop
    assert (drop.value, drop.low, drop.high) == pytest.approx((20.0, 5.69, 34.04), abs=0.01)


@pytest.mark.parametrize("cells", [(0, 97, 3, 0), (5, 0, 0, 0), (0, 0, 0, 0), (0, 0, 4, 0), (1, 0, 0, 99)])
def test_that_extreme_tables_give_an_interval_around_the_value(cells: tuple[int, int, int, int]) -> None:
    drop = paired_accuracy(*_rights(*cells)).drop
    assert -100 <= drop.low <= drop.value <= drop.high <= 100


def test_that_the_drop_counts_losses_less_gains() -> None:
    measured = paired_accuracy(*_rights(900, 30, 10, 60))
    assert (measured.lost, measured.gained) == (30, 10)
    assert measured.drop.value == pytest.approx(2.0)
    assert measured.drop.low > 0
    assert measured.p_value is not None
    assert measured.p_value < 0.01


def test_that_equal_models_differ_by_nothing() -> None:
    measured = paired_accuracy(*_rights(90, 0, 0, 10))
    assert measured.drop.value == 0.0
    assert measured.drop.low < 0 < measured.drop.high
    assert measured.p_value == 1.0


def test_that_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        cell = rng.choice(4, size=300, p=[0.88, 0.05, 0.02, 0.05])
        drop = paired_accuracy(cell <= 1, (cell == 0) | (cell == 2)).drop
        covered += drop.low <= 3.0 <= drop.high
    assert 0.92 <= covered / 400 <= 0.99


def test_that_mid_p_is_the_exact_test_less_half_the_point() -> None:
    # lost 6, gained 1: exact two-sided 2 * (1 + 7) / 128 = 0.125; mid-p takes off P(1) = 7 / 128.
    assert mcnemar_mid_p(6, 1) == pytest.approx(0.125 - 7 / 128)
    assert mcnemar_mid_p(1, 6) == mcnemar_mid_p(6, 1)
    assert mcnemar_mid_p(0, 0) == 1.0
    assert mcnemar_mid_p(5, 5) <= 1.0


def test_that_the_bootstrap_of_a_mean_has_the_width_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(5, 2, size=(2000, 1))
    interval = bootstrap_interval(values, lambda means: means[:, 0])
    error = values.std() / np.sqrt(2000)
    assert interval.value == pytest.approx(values.mean())
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_that_a_large_set_gives_the_same_width() -> None:
    values = np.random.default_rng(0).normal(5, 2, size=(200_003, 1))
    interval = bootstrap_interval(values, lambda means: means[:, 0], resamples=400)
    assert interval.value == pytest.approx(values.mean())
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * 2 / np.sqrt(200_003), rel=0.15)


def test_that_a_paired_ratio_ignores_what_both_share() -> None:
    shared = np.random.default_rng(1).lognormal(0, 2, size=500)
    values = np.stack([shared, 1.1 * shared], axis=1)
    interval = bootstrap_interval(values, lambda m: np.sqrt(m[:, 1] / m[:, 0]))
    assert interval.value == pytest.approx(np.sqrt(1.1))
    assert interval.high - interval.low < 1e-9
