"""How sure a measured difference is: two models judged on the same samples.

Sources: Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based
on paired data", method 10; Fagerland, Lydersen and Laake 2013, "The McNemar test for binary matched-pairs
data: mid-p and asymptotic are better than exact conditional"; Wilson 1927 for one proportion.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from quantstudio.core.quality import share_interval
from quantstudio.core.results import Interval

BOOTSTRAP_RESAMPLES = 2000
# Indices drawn at a time, so that memory stays flat.
BOOTSTRAP_BLOCK = 1 << 20
BOOTSTRAP_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Loss of a variant against the base on the same samples.

    Attributes:
        drop: Loss with its 95 % interval, in points for accuracy; positive is worse.
        p_value: Two-sided, that there is no difference; None without a test.
        lost: Samples the base gets right and the variant wrong.
        gained: The other way round.
    """

    drop: Interval
    p_value: float | None
    lost: int
    gained: int


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """95 % interval of a proportion; (0, 1) without samples."""
    return share_interval(successes / max(total, 1), total)


def paired_accuracy(base_right: NDArray[np.bool_], variant_right: NDArray[np.bool_]) -> PairedDifference:
    """Accuracy lost, in points, with Newcombe's paired interval and McNemar's mid-p test.

    Args:
        base_right: Whether the base is right, shape [N].
        variant_right: Whether the variant is right on the same samples, shape [N].
    """
    both = int(np.count_nonzero(base_right & variant_right))
    lost = int(np.count_nonzero(base_right & ~variant_right))
    gained = int(np.count_nonzero(~base_right & variant_right))
    low, high = _newcombe(both, lost, gained, len(base_right) - both - lost - gained)
    total = max(len(base_right), 1)
    drop = Interval(100 * (lost - gained) / total, 100 * low, 100 * high)
    return PairedDifference(drop, mcnemar_mid_p(lost, gained), lost, gained)


def mcnemar_mid_p(lost: int, gained: int) -> float:
    """Two-sided mid-p value of McNemar's test from the two discordant counts; 1 without any."""
    discordant = lost + gained
    if discordant == 0:
        return 1.0
    fewer = min(lost, gained)
    exact = 2 * float(binom.cdf(fewer, discordant, 0.5))
    return float(min(1.0, exact - float(binom.pmf(fewer, discordant, 0.5))))


def bootstrap_interval(
    values: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    resamples: int = BOOTSTRAP_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A statistic of column means with its percentile bootstrap interval over samples.

    Args:
        values: What each sample contributes, shape [N, K]; rows are resampled whole, so models compared on
            the same samples stay paired.
        statistic: From means, shape [R, K], to one number per row, shape [R].
        resamples: Bootstrap resamples.
        seed: Of the resampling; the same values give the same interval.
    """
    rows = _grouped(values)
    count = len(rows)
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    block = max(1, BOOTSTRAP_BLOCK // count)
    for first in range(0, resamples, block):
        last = min(first + block, resamples)
        picks = rng.integers(0, count, size=(last - first, count))
        for column in range(values.shape[1]):
            means[first:last, column] = rows[:, column][picks].mean(axis=1)
    low, high = np.percentile(statistic(means), (2.5, 97.5))
    value = statistic(values.mean(axis=0, keepdims=True))[0]
    return Interval(float(value), float(low), float(high))


def _grouped(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most `BOOTSTRAP_ROWS` rows: beyond that, means of as many groups of samples.

    Means of independent groups vary as the mean of all does, so the interval keeps its width.
    """
    if len(values) <= BOOTSTRAP_ROWS:
        return values
    edges = np.linspace(0, len(values), BOOTSTRAP_ROWS + 1).astype(np.int64)
    sums = np.add.reduceat(values, edges[:-1], axis=0)
    return np.asarray(sums / np.diff(edges)[:, None])


def _newcombe(both: int, lost: int, gained: int, neither: int) -> tuple[float, float]:
    """Interval of base accuracy - variant accuracy: the score interval of each, joined by correlation."""
    total = both + lost + gained + neither
    if total == 0:
        return -1.0, 1.0
    base, variant = (both + lost) / total, (both + gained) / total
    base_low, base_high = wilson_interval(both + lost, total)
    variant_low, variant_high = wilson_interval(both + gained, total)
    correlation = _correlation(both, lost, gained, neither)
    difference = base - variant

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * correlation * a * b + b * b))

    low = difference - reach(base - base_low, variant_high - variant)
    high = difference + reach(base_high - base, variant - variant_low)
    return max(-1.0, low), min(1.0, high)


def _correlation(both: int, lost: int, gained: int, neither: int) -> float:
    """Phi of the 2x2 table, with Newcombe's continuity correction where it is positive."""
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    if margins == 0:
        return 0.0
    cross = float(both * neither - lost * gained)
    if cross > 0:
        cross = max(cross - (both + lost + gained + neither) / 2, 0.0)
    return cross / math.sqrt(margins)
