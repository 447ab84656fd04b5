"""The interval of a mean covers what it promises, for samples as skewed as divergences are."""

from __future__ import annotations

import numpy as np
import pytest

from quantstudio.engine.analysis.mean_interval import mean_interval, standard_error


@pytest.mark.parametrize(("count", "least"), [(32, 0.83), (128, 0.88), (512, 0.91)])
def test_that_a_skewed_mean_is_covered_far_more_often_than_by_its_standard_error(
    count: int, least: float
) -> None:
    rng = np.random.default_rng(3)
    draws = rng.lognormal(0.0, 1.5, size=(2000, count))
    truth = np.exp(1.5**2 / 2)
    ends = np.array([mean_interval(row) for row in draws])
    covered = np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
    plain = np.mean(abs(draws.mean(1) - truth) <= 1.96 * draws.std(1, ddof=1) / count**0.5)
    assert covered > least
    assert covered > plain + 0.02


def test_that_a_normal_sample_has_the_usual_interval() -> None:
    values = np.random.default_rng(0).normal(10, 1, 10_000)
    low, high = mean_interval(values)
    reach = 1.96 * standard_error(values)
    assert (low, high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=1e-3)


def test_that_half_the_samples_cover_the_whole() -> None:
    rng = np.random.default_rng(7)
    draws = rng.lognormal(0.0, 1.5, size=(1000, 512))
    ends = np.array([mean_interval(row[:256]) for row in draws])
    whole = draws.mean(1)
    assert np.mean((ends[:, 0] <= whole) & (whole <= ends[:, 1])) >= 0.95


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.2, 0.4], [0.1, 0.2, 0.3], [0.0, 0.0, 0.0, 9.0]])
def test_that_few_or_equal_values_have_an_interval_around_them(values: list[float]) -> None:
    low, high = mean_interval(np.array(values))
    assert 0 <= low <= np.mean(values) <= high < 1e3
