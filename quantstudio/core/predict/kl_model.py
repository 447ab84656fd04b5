"""The KL of a whole plan from the KLs of its single layers, corrected by plans that were measured.

Layer divergences add up: the sum ranks random mixed plans nearly as their measured KL does (Spearman 0.96
to 0.99 on seven networks). Its level is another matter: estimates of second order come out low where a
network is very sure of its answers and where grids are coarse. So

    S = sum over parts p of exp(d_p) x_p,      ln U = a + ln S + b ln(1 + S / S0),      1/KL = 1/U + 1/K,

x_p being the summed estimates of one weight precision, or of activations on integers, and K what a ruined
network ends at: one whose outputs say nothing is about ln(classes) from FP32, however wrong its layers are.
The coefficients have a normal prior from several networks and move towards what measured plans say; what is
left over is the spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import exp, hypot, log, log1p, sqrt

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import IntegerGrid
from quantstudio.core.precision import (
    ActivationPrecision,
    Grid,
    LayerScheme,
    Precision,
    activation_formats,
    catalogue_version,
    integer_formats,
)
from quantstudio.core.results import LayerSensitivity

Array = NDArray[np.float64]

ACTIVATIONS = ActivationPrecision.INT8.sensitivity_name
# The same of plans whose weights below 8 bits a step chose together: it takes out most of what each part
# loses, more of some networks than of others. Weights of 8 bits and activations keep their prior.
RECOVERED_LEVEL, RECOVERED_PART = (-1.8, 1.0), (0.0, 0.6)
# Divergence (nats) from which sums of second order fall behind.
BEND_KL = 0.003
# Prior mean and deviation of the coefficients, and of what a measured plan differs by (natural logarithms).
LEVEL, PART, BEND, SPREAD = (0.4, 0.5), (0.0, 0.3), (0.25, 0.22), 0.28
# How much farther plans lie apart for each e-fold of their sum beyond the bend: layers no longer add up, in
# every plan otherwise.
_JOINT = 0.43
# Deviation of ln K, and ln K where nobody knows how many classes there are: as if KLs had no end.
CEILING_DEVIATION, _NO_CEILING = 0.35, 20.0
# How many measured plans the prior spread counts for.
_SPREAD_PLANS = 6.0
# Beyond these divergences (nats) a network is untouched, or ruined and its outputs say nothing of its layers.
_SMALLEST_KL, _LARGEST_KL = 1e-7, 3.0
_ROUNDS = 25


def part_names() -> tuple[str, ...]:
    """What the KL of a plan comes from: every integer format of weights, then every one of activations."""
    return _part_names(catalogue_version())


@lru_cache(maxsize=1)  # asked for every prediction
def _part_names(_version: int) -> tuple[str, ...]:
    activations = (row.sensitivity_name for row in activation_formats() if row.is_static)
    return (*(row.name for row in integer_formats()), *activations)


def kl_parts(
    row: LayerSensitivity | None, scheme: LayerScheme, *, reads_floats: bool = True, weight_bits: int = 8
) -> dict[str, float] | None:
    """Estimated KL of one layer in a scheme, by what it comes from; None if a part was never estimated.

    Args:
        row: Estimates of the layer.
        scheme: What it becomes.
        reads_floats: Whether it has activations to quantize; an embedding reads indices.
        weight_bits: Bits an integer kernel of the target may take of a weight: wider grids are narrowed to
            these, and the error grows with the square of the step.
    """
    if scheme.is_float:
        return {}  # FP16 has 11 significant bits: below what KL resolves in float32
    if row is None:
        return None
    known, parts = row.by_precision, {}
    if scheme.weights.is_integer:
        weights = next((known[name] for name in scheme.sensitivity_names if name in known), None)
        if weights is not None:
            parts[scheme.weights.name] = weights * narrowing(scheme, weight_bits)
        elif any(not name.endswith("-activations") for name in known):
            return None
        # Otherwise it is an activation x activation product: it has no weights, only its activations cost.
    if not scheme.is_weight_only and reads_floats:
        activations = scheme.activations.sensitivity_name
        if activations not in known:
            return None
        parts[activations] = known[activations]
    return parts


def narrowing(scheme: LayerScheme, weight_bits: int) -> float:
    """How many times the squared error of weights grows where a kernel takes fewer bits than the format."""
    bits = scheme.weights.bits
    if scheme.is_weight_only or scheme.weights.grid is not Grid.UNIFORM or bits <= weight_bits:
        return 1.0
    wide, narrow = (IntegerGrid(count, signed=True).high for count in (bits, weight_bits))
    return (wide / narrow) ** 2


def plan_parts(
    schemes: Mapping[str, LayerScheme], rows: Mapping[str, LayerSensitivity], weight_bits: int = 8
) -> dict[str, float]:
    """Estimated KL of a plan by what it comes from; layers nobody estimated add nothing."""
    total: dict[str, float] = {}
    for name, scheme in schemes.items():
        row = rows.get(name)
        parts = kl_parts(row, scheme, weight_bits=weight_bits) or kl_parts(
            row, scheme, reads_floats=False, weight_bits=weight_bits
        )
        for part, value in (parts or {}).items():
            total[part] = total.get(part, 0.0) + value
    return total


def layer_kl(scheme: LayerScheme, row: LayerSensitivity | None) -> float | None:
    """Estimated KL of one layer alone in a scheme; None if a part of it was never estimated."""
    parts = kl_parts(row, scheme)
    return None if parts is None else sum(parts.values())


@dataclass(frozen=True)
class KlModel:
    """Coefficients with their covariance.

    Attributes:
        mean: (a, d of every part in the order of `part_names`, b, ln K).
        covariance: Of these, row by row.
        spread: Deviation of ln KL of a plan about the model where little is lost; it grows with what is lost.
    """

    mean: tuple[float, ...] = field(default_factory=lambda: _prior_mean())
    covariance: tuple[tuple[float, ...], ...] = field(default_factory=lambda: _rows(_prior_covariance()))
    spread: float = SPREAD

    @cached_property
    def factors(self) -> Array:
        """exp(d_p) by part."""
        return np.asarray(np.exp(np.asarray(self.mean[1:-2])))

    @cached_property
    def _coefficients(self) -> Array:
        return np.asarray(self.mean)

    @cached_property
    def _matrix(self) -> Array:
        return np.asarray(self.covariance, dtype=np.float64)

    def linear(self, parts: Mapping[str, float]) -> float:
        """S of a plan, or of one layer: what a search adds up."""
        names = part_names()
        return float(sum(self.factors[names.index(name)] * value for name, value in parts.items()))

    def kl_of(self, linear: float) -> float:
        """KL at an S."""
        if linear <= 0:
            return 0.0
        return exp(_log_kl(linear, self._coefficients))

    def linear_of(self, kl: float) -> float:
        """S at a KL: what a bound on the KL means for the sum; a very large one where no plan gets there."""
        low, high = np.log(1e-12), np.log(1e4)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.kl_of(float(np.exp(middle))) <= kl else (low, middle)
        return float(np.exp(low))

    def kl(self, parts: Mapping[str, float]) -> float:
        """Expected KL of a plan with these parts."""
        return self.kl_of(self.linear(parts))

    def deviation(self, parts: Array) -> float:
        """Deviation of ln KL of a plan: of the coefficients and of plans about them.

        Args:
            parts: Summed estimates in the order of `part_names`.
        """
        if not parts.any():
            return 0.0
        slope, apart = _slope(parts, self._coefficients)
        return sqrt(float(slope @ self._matrix @ slope) + (self.spread * apart) ** 2)

    @property
    def scale(self) -> dict[str, float]:
        """Factor on the estimated KL by part, small divergences."""
        level = np.exp(self.mean[0])
        return {name: float(level * factor) for name, factor in zip(part_names(), self.factors, strict=True)}


def prior_of(classes: int) -> KlModel:
    """What other networks showed, for a network that tells so many classes apart; 0 where nobody knows."""
    ceiling = float(np.log(np.log(classes))) if classes > 1 else _NO_CEILING
    return KlModel(mean=(*_prior_mean()[:-1], ceiling))


def recovered_prior() -> KlModel:
    """What is expected of plans that are recovered before they are measured."""
    shift = LEVEL[0] - RECOVERED_LEVEL[0]
    kept = {Precision.INT8.name, *(row.sensitivity_name for row in activation_formats())}
    parts = [(shift, PART[1]) if name in kept else RECOVERED_PART for name in part_names()]
    mean = (RECOVERED_LEVEL[0], *(value for value, _ in parts), BEND[0], _NO_CEILING)
    deviations = [RECOVERED_LEVEL[1], *(spread for _, spread in parts), BEND[1], CEILING_DEVIATION]
    return KlModel(mean, _rows(np.diag(np.square(deviations))))


def fitted_kl(points: Sequence[tuple[Array, float]], prior_model: KlModel | None = None) -> KlModel:
    """The model that fits measured plans, as (parts in the order of `part_names`, measured KL).

    A posterior mode by Gauss-Newton steps; its covariance is the one of the linearised problem. Plans of no
    or of more than 3 nats are left out. Without points it is the prior: what several networks showed, unless
    another is given.
    """
    used = [(x, np.log(kl)) for x, kl in points if _SMALLEST_KL < kl <= _LARGEST_KL and x.any()]
    start = prior_model or KlModel()
    if not used:
        return start
    prior = np.asarray(start.mean)
    precision = np.diag(1 / np.diag(np.asarray(start.covariance)))
    mean, variance = prior.copy(), SPREAD**2
    for _ in range(_ROUNDS):
        found = [_slope(x, mean) for x, _ in used]
        apart = np.asarray([own for _, own in found])
        # In deviations of single plans, which lie the farther apart the more they lose.
        slopes = np.stack([slope for slope, _ in found]) / apart[:, None]
        rest = np.asarray([target - _log_kl(_sum(x, mean), mean) for x, target in used]) / apart
        normal = slopes.T @ slopes / variance + precision
        step = np.linalg.solve(normal, slopes.T @ rest / variance - precision @ (mean - prior))
        mean = mean + np.clip(step, -1.0, 1.0)
        # Coefficients take up part of the residuals: degrees of freedom are what they leave.
        effective = float(np.trace(np.linalg.solve(normal, slopes.T @ slopes / variance)))
        variance = (_SPREAD_PLANS * SPREAD**2 + float(rest @ rest)) / (
            _SPREAD_PLANS + max(len(used) - effective, 0.0)
        )
    return KlModel(tuple(mean.tolist()), _rows(np.linalg.inv(normal)), float(np.sqrt(variance)))


def _sum(parts: Array, mean: Array) -> float:
    return float(np.exp(mean[1:-2]) @ parts)


def _log_kl(linear: float, mean: Array) -> float:
    level, bend, ceiling = float(mean[0]), float(mean[-2]), float(mean[-1])
    free = level + log(linear) + bend * log1p(linear / BEND_KL)
    return free - float(np.logaddexp(0.0, free - ceiling))


def _slope(parts: Array, mean: Array) -> tuple[Array, float]:
    """Derivative of ln KL by the coefficients, and how many times as far apart as others such plans lie."""
    level, bend, ceiling = float(mean[0]), float(mean[-2]), float(mean[-1])
    weighted = np.exp(mean[1:-2]) * parts
    linear = float(weighted.sum())
    bent = log1p(linear / BEND_KL)
    # Near its end a KL hangs on where that is, and no longer on what its layers lose.
    ruined = 1 / (1 + exp(min(ceiling - level - log(linear) - bend * bent, 700.0)))
    slope = np.empty(len(mean))
    slope[0], slope[-2], slope[-1] = 1 - ruined, (1 - ruined) * bent, ruined
    slope[1:-2] = weighted * ((1 - ruined) / linear * (1 + bend * linear / (linear + BEND_KL)))
    return slope, hypot(1.0, _JOINT * (1 - ruined) * bent)


def _prior_mean() -> tuple[float, ...]:
    return (LEVEL[0], *(PART[0] for _ in part_names()), BEND[0], _NO_CEILING)


def _prior_covariance() -> Array:
    return np.diag(np.square([LEVEL[1], *(PART[1] for _ in part_names()), BEND[1], CEILING_DEVIATION]))


def _rows(matrix: Array) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
