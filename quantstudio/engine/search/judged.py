"""Candidates with what was measured of them: which hold the floor of the task, and which is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quantstudio.core import figures
from quantstudio.core.aim import Aim
from quantstudio.core.results import Headline, Interval, VariantResult
from quantstudio.engine.search.candidates import Candidate

# Times the floor beyond which a loss is no result, however few samples there were to prove it.
FAR_BELOW = 5.0
# A mean KL below this (nats) moves accuracy by less than the reference networks' own uncertainty on 10,000
# images: candidates below it count as equally accurate.
NEGLIGIBLE_KL = 2e-3
# The same for outputs that are not class scores: noise power relative to the signal (35 dB).
NEGLIGIBLE_NOISE = 3e-4
# How much worse than the best a candidate may be and still count as within the noise.
LOSS_RATIO = 1.5
# Speeds this close to the fastest are the same on a machine with other work.
SAME_SPEED = 0.97
# Files this close to the smallest are equally small.
SAME_SIZE = 1.01


@dataclass(frozen=True)
class Judged:
    """A candidate with what was measured of it."""

    candidate: Candidate
    result: VariantResult

    @property
    def headline(self) -> Headline | None:
        """The one figure it is judged by, its floor with it; None where nothing could be judged."""
        return self.result.headline

    @property
    def holds(self) -> bool:
        """Whether it loses no more than the floor, or no more than the samples could do by chance."""
        one = self.headline
        if one is None or not math.isfinite(one.loss.value):
            return False
        return not one.is_below_floor and one.loss.value <= FAR_BELOW * max(one.floor, 0.0)

    @property
    def noise(self) -> float:
        """Mean KL from FP32 where outputs are classes, else noise power relative to the signal."""
        agreement = self.result.agreement
        if agreement is None:
            return self.headline.loss.value if self.headline is not None else math.inf
        return agreement.kl if self.has_kl else 10 ** (-agreement.sqnr_db / 10)

    @property
    def has_kl(self) -> bool:
        """Whether `noise` is a KL divergence."""
        return self.result.agreement is not None and not math.isnan(self.result.agreement.kl)

    @property
    def speedup(self) -> float:
        """Times faster than FP32."""
        return self.result.speedup.value if self.result.speedup is not None else 0.0

    @property
    def is_slower(self) -> bool:
        """Whether it takes longer than FP32, by more than timings differ."""
        return self.result.speedup is None or not is_not_slower(self.result.speedup)

    @property
    def text(self) -> str:
        """Its figures in a few words."""
        parts = [f"{self.speedup:.2f}x FP32", figures.size(self.result.size_bytes)]
        if self.headline is not None:
            parts.append(loss_text(self.headline))
        agreement = self.result.agreement
        if agreement is not None and not math.isnan(agreement.kl):
            parts.append(f"KL {agreement.kl:.1e}")
        elif agreement is not None and not math.isnan(agreement.sqnr_db):
            parts.append(figures.decibels(agreement.sqnr_db))
        return f"{self.candidate.name} ({', '.join(parts)})"


def is_not_slower(speedup: Interval) -> bool:
    """Whether a speed-up is one, or so near to one that a machine with other work cannot tell."""
    return speedup.value >= 1.0 or (speedup.high >= 1.0 and speedup.value >= SAME_SPEED)


def loss_text(headline: Headline) -> str:
    """What is lost, or gained: "Top-1 accuracy: 0.27 points lost"."""
    amount = abs(round(headline.loss.value, 2))
    if not amount:
        return f"{headline.label}: nothing lost"
    word = "lost" if headline.loss.value > 0 else "gained"
    return f"{headline.label}: {amount:.2f} {headline.unit} {word}"


def floor_text(headline: Headline) -> str:
    """The floor: "the floor is 1 point"."""
    unit = "point" if headline.floor == 1 and headline.unit == "points" else headline.unit
    return f"the floor is {headline.floor:g} {unit}"


def choose(judged: Sequence[Judged], aim: Aim) -> Judged | None:
    """What an aim takes of the candidates that hold the floor and are no slower than FP32; None without any.

    Of equals in all that counts the first listed wins.
    """
    able = [one for one in judged if one.holds and not one.is_slower]
    if not able:
        return None
    match aim:
        case Aim.FAST:
            return _most_accurate(_smallest(_fastest(able)))[0]
        case Aim.SMALL:
            return _most_accurate(_fastest(_smallest(able)))[0]
        case Aim.ACCURATE:
            return _fastest(_most_accurate(able))[0]


def _fastest(judged: Sequence[Judged]) -> list[Judged]:
    limit = SAME_SPEED * max(one.speedup for one in judged)
    return [one for one in judged if one.speedup >= limit]


def _smallest(judged: Sequence[Judged]) -> list[Judged]:
    limit = SAME_SIZE * min(one.result.size_bytes for one in judged)
    return [one for one in judged if one.result.size_bytes <= limit]


def _most_accurate(judged: Sequence[Judged]) -> list[Judged]:
    """Those within the noise of the best."""
    best = min(judged, key=lambda one: one.noise)
    limit = max(LOSS_RATIO * best.noise, NEGLIGIBLE_KL if best.has_kl else NEGLIGIBLE_NOISE)
    return [one for one in judged if one.noise <= limit]
