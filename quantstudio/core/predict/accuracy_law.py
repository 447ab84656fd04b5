"""What a KL means in points of accuracy, and how sure that is.

Two steps, each with its own spread. First the share of answers that change: noise on the logits of the
network itself says how it grows with the KL (quantization moves a few more). Then the points lost for each
changed answer: where few change, they are ones the network was unsure about, old and new being wrong nearly
alike, and a fifth of them is lost; where many change, most were right before. Seven networks agree on the
shape,

    loss(c) = l0 + (accuracy - l0) (1 - exp(-c / c0)),      c0 = 0.02 + 2.2 (1 - accuracy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import exp

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.results import AccuracyCurve, Interval

Array = NDArray[np.float64]

RATE = 0.9
Z_OF_RATE = 1.6449
# Prior mean and deviation: ln (changed share / that under noise), its spread over plans, and l0.
CHANGE, CHANGE_SPREAD, FIRST_LOSS = (0.15, 0.3), 0.2, (0.2, 0.08)
# Deviation of the loss of single plans, where few answers change and where many do.
_LOSS_SPREADS = (0.13, 0.03)
_SPREAD_PLANS = 6.0
_ROUNDS = 12
# Of the changed answers so many change whether they are right; the rest go from wrong to wrong.
_TURNED = 0.8
# Share of answers changed at 1 nat by a square root law: for curves made before shares were kept.
_USUAL_CHANGES = 0.22
# Ruined networks collapse onto few classes, which noise does not: shares grow by 1 + (KL / this)^2.
_COLLAPSE_KL = 1.6
# A share resting on fewer changed answers than this is luck: below, it falls with the root of the KL.
_MIN_CHANGES = 3.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What was measured of one plan: KL, share of answers changed, share of accuracy lost, samples."""

    kl: float
    changed: float | None
    lost: float | None
    samples: int


@dataclass(frozen=True, slots=True)
class AccuracyLaw:
    """Accuracy against KL for one network and the data it is judged on.

    Attributes:
        kl: KLs of the curve, ascending, above 0.
        changed: Share of answers changed there.
        base: FP32 accuracy on the data plans are judged on; 1 for agreement with FP32.
        samples: Samples plans are judged on.
        labelled: Whether answers are judged by labels; otherwise every changed answer is one lost.
        curve_samples: Samples the curve was made from; 0 where nobody counted.
        change: ln (share / that of the curve), with its deviation.
        change_spread: Deviation of single plans about it.
        first_loss: l0, with its deviation.
        chance: Accuracy of an answer drawn by lot: nothing is lost beyond it.
    """

    kl: tuple[float, ...]
    changed: tuple[float, ...]
    base: float
    samples: int
    labelled: bool
    curve_samples: int = 0
    change: tuple[float, float] = CHANGE
    change_spread: float = CHANGE_SPREAD
    first_loss: tuple[float, float] = FIRST_LOSS
    chance: float = 0.0

    @property
    def worst(self) -> float:
        """The least accuracy there is: chance, or what FP32 has where that is less."""
        return min(self.chance, self.base)

    def share_changed(self, kl: Array) -> Array:
        """Expected share of answers changed."""
        return np.asarray(-np.expm1(-self._moved(kl)))

    def _moved(self, kl: Array) -> Array:
        """Changed share before it bends on its way to the whole; this is what factors multiply."""
        return np.asarray(_share(self.kl, self.changed, kl) * np.exp(self.change[0]))

    def drop(self, kl: float, z: float = 0.0) -> float:
        """Share of accuracy lost; `z` deviations above what is expected, of plans alone."""
        share = self.share_changed(np.asarray(kl))
        lost = float(share * np.clip(self._loss(share) + z * self._loss_deviation(share), 0.02, 1.0))
        return min(lost, self.base - self.worst)

    def largest_kl(self, drop: float, z: float = 0.0) -> float:
        """The largest KL that loses no more than this share."""
        low, high = 0.0, 10.0
        if self.drop(high, z) <= drop:
            return high
        for _ in range(60):  # bisection to the last bit: the drop rises with the KL
            middle = (low + high) / 2
            low, high = (middle, high) if self.drop(middle, z) <= drop else (low, middle)
        return low

    def interval(self, kl: float, deviation: float) -> Interval:
        """Accuracy with the interval that holds `RATE` of plans, 0 to 1.

        Args:
            kl: Expected KL.
            deviation: Of its logarithm.
        """
        return self.interval_for_each(kl, (deviation,))[0]

    def interval_for_each(self, kl: float, deviations: Sequence[float]) -> list[Interval]:
        """`interval` for some deviations at once."""
        columns = np.asarray([[kl, one, self.base, self.samples] for one in deviations], dtype=np.float64)
        values, lows, highs = self.intervals(*columns.T)
        worst, ends = self.worst, zip(values.tolist(), lows.tolist(), highs.tolist(), strict=True)
        return [Interval(*(max(end, worst) for end in one)) for one in ends]

    def intervals(
        self, kl: Array, deviation: Array | float, base: Array, samples: Array, scatter: float = 0.0
    ) -> tuple[Array, Array, Array]:
        """Accuracies with their ends for many groups of samples at once.

        Args:
            kl: Expected KL of each.
            deviation: Of their logarithm.
            base: FP32 accuracy of each.
            samples: Samples of each; 0 where nobody counted.
            scatter: Further deviation of the loss for a changed answer: a class gains what another loses.
        """
        # The curve is read once, at the KLs and a step behind them.
        under_noise, behind = _share(self.kl, self.changed, np.asarray([kl, kl * np.e]))
        factor = exp(self.change[0])
        moved = under_noise * factor
        centre = np.asarray(-np.expm1(-moved))
        rise = np.log(np.maximum(behind * factor, 1e-12) / np.maximum(moved, 1e-12))
        width = np.hypot(np.hypot(rise * deviation, self.change_spread), self._change_deviation(under_noise))
        reach = np.exp(Z_OF_RATE * width)
        low, high = -np.expm1(-moved / reach), -np.expm1(-moved * reach)
        expected, least, most = self._lost(np.asarray([centre, low, high]), base)
        better, worse = expected - least, most - expected
        counted = np.maximum(samples, 1.0)
        chance = np.hypot(self._loss_deviation(centre), scatter if self.labelled else 0.0) * centre
        chance = Z_OF_RATE * np.sqrt(chance**2 + np.where(samples > 0, _TURNED * centre / counted, 0.0))
        # Accuracy moves in steps of one sample.
        step = np.where(samples > 0, 0.5 / counted, 0.0) * (centre > 0)
        left = base - expected
        value = _between(left, 0.0, 1.0)
        return (
            value,
            _between(left - np.hypot(worse, chance) - step, 0.0, value),
            _between(left + np.hypot(better, chance) + step, value, 1.0),
        )

    def _change_deviation(self, under_noise: Array) -> Array:
        """Of the factor on the curve's share: what is left of the prior, and of the luck of the curve."""
        if not self.curve_samples:
            return np.full_like(under_noise, self.change[1])
        counted = np.maximum(self.curve_samples * under_noise, _MIN_CHANGES)
        return np.asarray(self.change[1] * np.sqrt(1 + 1 / (CHANGE[1] ** 2 * counted)))

    def _lost(self, share: Array, base: Array) -> Array:
        return share * self._loss(share, base)

    def _loss(self, share: Array, base: Array | None = None) -> Array:
        if not self.labelled:
            return np.ones_like(share)
        accuracy = np.asarray(self.base) if base is None else base
        first = np.minimum(self.first_loss[0], accuracy)
        return np.asarray(first + (accuracy - first) * (1 - self._first_part(share, accuracy)))

    def _first_part(self, share: Array, accuracy: Array) -> Array:
        return np.asarray(np.exp(-share / (0.02 + 2.2 * (1 - accuracy))))

    def _loss_deviation(self, share: Array) -> Array:
        if not self.labelled:
            return np.zeros_like(share)
        part = self._first_part(share, np.asarray(self.base))
        few, many = np.hypot(_LOSS_SPREADS[0], self.first_loss[1]), _LOSS_SPREADS[1]
        return np.asarray(many + (few - many) * part)


def accuracy_law(
    curve: AccuracyCurve | None,
    plans: Sequence[Plan] = (),
    *,
    base: float,
    samples: int,
    labelled: bool,
    chance: float = 0.0,
) -> AccuracyLaw:
    """The law of a network, corrected by measured plans.

    Args:
        curve: From noise on the logits; None where outputs are not one class score per sample.
        plans: Measured plans.
        base: FP32 accuracy on the data they were judged on; 1 for agreement with FP32.
        samples: Samples of that data.
        labelled: Whether plans are judged by labels.
        chance: Accuracy of an answer drawn by lot.
    """
    curve_samples = curve.samples if curve is not None else 0
    law = AccuracyLaw(*_shares(curve), base, samples, labelled, curve_samples, chance=chance)
    change, spread = _fitted_change(law, plans)
    loss = _fitted_loss(law, plans) if labelled else FIRST_LOSS
    return replace(law, change=change, change_spread=spread, first_loss=loss)


def _shares(curve: AccuracyCurve | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if curve is not None and curve.changed:
        kl = np.asarray(curve.kl)
        share = np.asarray(curve.changed)
        known = (kl > 0) & (share * max(curve.samples, 1) >= _MIN_CHANGES)
        if known.any():
            return tuple(kl[known].tolist()), tuple(_unbent(share[known]).tolist())
    return (1.0,), (_USUAL_CHANGES,)


def _between(values: Array, low: float | Array, high: float | Array) -> Array:
    """`np.clip`, which takes longer than all that a prediction does with these few numbers."""
    return np.asarray(np.minimum(np.maximum(values, low), high))


def _unbent(share: Array) -> Array:
    """Shares on the scale on which they multiply; see `AccuracyLaw.share_changed`."""
    return np.asarray(-np.log1p(-np.minimum(share, 0.99)))


@lru_cache(maxsize=64)  # read several times for every prediction
def _logarithms(values: tuple[float, ...]) -> Array:
    found: Array = np.log(np.asarray(values))
    found.setflags(write=False)
    return found


def _share(kl: tuple[float, ...], changed: tuple[float, ...], at: Array) -> Array:
    """Straight lines between the points on logarithmic axes, a square root law below and above."""
    x, y = _logarithms(kl), _logarithms(changed)
    wanted = np.log(np.maximum(at, 1e-30))
    inside = np.interp(wanted, x, y)
    beyond = np.minimum(wanted - x[0], 0.0) + np.maximum(wanted - x[-1], 0.0)
    collapse = 1 + np.square(np.minimum(at, 10.0) / _COLLAPSE_KL)
    return np.asarray(np.where(at > 0, np.exp(inside + beyond / 2) * collapse, 0.0))


def _fitted_change(law: AccuracyLaw, plans: Sequence[Plan]) -> tuple[tuple[float, float], float]:
    """Posterior of the factor on the changed share, and the spread of plans about it."""
    rows = [(p.kl, p.changed, p.samples) for p in plans if p.changed is not None and p.kl > 0 and p.samples]
    mean, deviation = CHANGE
    if not rows:
        return CHANGE, CHANGE_SPREAD
    kl, share, samples = (np.asarray(column, dtype=np.float64) for column in zip(*rows, strict=True))
    expected = _share(law.kl, law.changed, kl)
    # Half an answer more keeps logarithms of no changes finite; where few change, it tells next to nothing:
    # a logarithm of counts is as unsure as the smaller of them, and the larger, each by half.
    found = np.log((_unbent(share) + 0.5 / samples) / (expected + 0.5 / samples))
    counting = (1 / (samples * share + 0.5) + 1 / (samples * expected + 0.5)) / 2
    if law.curve_samples:
        luck = 1 / max(law.curve_samples * float(np.median(expected)), _MIN_CHANGES)
        deviation = float(np.hypot(deviation, np.sqrt(luck)))
    variance = CHANGE_SPREAD**2
    for _ in range(_ROUNDS):
        weight = 1 / (variance + counting)
        total = weight.sum() + deviation**-2
        level = float((weight @ found + mean / deviation**2) / total)
        # What each plan differs by as far as counting tells, and what counting leaves open.
        own = np.square(variance * weight * (found - level)) + variance * weight * counting
        variance = (_SPREAD_PLANS * CHANGE_SPREAD**2 + float(own.sum())) / (_SPREAD_PLANS + len(found))
    # Luck of the curve is added again where the law is read.
    return (level, float(total**-0.5) * CHANGE[1] / deviation), float(np.sqrt(variance))


def _fitted_loss(law: AccuracyLaw, plans: Sequence[Plan]) -> tuple[float, float]:
    """Posterior of l0."""
    mean, deviation = FIRST_LOSS
    weights, moments = deviation**-2, mean / deviation**2
    for plan in plans:
        if plan.lost is None or plan.changed is None or plan.changed <= 0 or not plan.samples:
            continue
        share = np.asarray(plan.changed)
        part = float(law._first_part(share, np.asarray(law.base)))
        own = plan.lost / plan.changed - law.base * (1 - part)
        variance = _TURNED / (plan.samples * plan.changed) + _LOSS_SPREADS[0] ** 2
        if part > 0.2:  # where many change, l0 hardly matters
            weights += part**2 / variance
            moments += part * own / variance
    return float(np.clip(moments / weights, 0.0, 0.9)), float(weights**-0.5)
