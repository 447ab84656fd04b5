"""What a range set by hand costs one layer: its error by the histogram, on the scale of what was analyzed.

Sensitivity knows what rounding to a format costs a layer. A range of another width rounds to other steps,
and that cost goes with the square of the step. What it cuts off goes the same way for all that exceed it: a
little of it hardly turns an answer, and much of it does not average out over the inputs of a unit as rounding
does. So its cost grows faster than its squared error, and with the number of inputs:

    factor = 0.25 (inputs / 9)^0.5 (share of power / 0.05)^0.65

on what rounding with the same squared error costs for weights, and 2.2 for activations. This was fitted to a
hundred clips on three networks, and is known no better than to a factor of exp(`CLIP_SPREAD`) either way:
intervals say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from quantstudio.core.activation_ranges import activation_range, range_noise
from quantstudio.core.affine import IntegerGrid
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import (
    Granularity,
    Grid,
    LayerScheme,
)
from quantstudio.core.recipe import CalibrationSettings
from quantstudio.core.results import LayerSensitivity
from quantstudio.core.statistics import Histogram, WeightStatistics

# Deviation of the logarithm of what a clip costs, about the law.
CLIP_SPREAD = 1.2
# The same of one scale for a tensor that nobody analyzed, over `CLIP_SPREAD`: channels are rounded away as a
# whole, and a depthwise network lost 63 points where the law said one to four.
ONE_SCALE_DOUBT = 2.0
_WEIGHT_FACTOR, _ACTIVATION_FACTOR = 0.25, 2.2
_INPUTS, _SHARE, _SHARE_POWER = 9.0, 0.05, 0.65

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Distributions:
    """What lies in the weights and activations of the graph that was analyzed.

    Attributes:
        weights: By layer.
        activations: By tensor.
    """

    weights: Mapping[str, WeightStatistics] = field(default_factory=dict)
    activations: Mapping[str, Histogram] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RangedKl:
    """KL of one part of a layer on another grid than the one that was analyzed.

    Attributes:
        rounding: What its steps cost, nats.
        by_law: What a law says of the rest, nats, known no better than to a factor of exp(`CLIP_SPREAD`).
    """

    rounding: float
    by_law: float


def clipped_weights_kl(
    layer: LayerInfo, row: LayerSensitivity, found: WeightStatistics, scheme: LayerScheme, clip: Range
) -> RangedKl | None:
    """KL of the weights of one layer with a range set by hand; None where nothing tells.

    Args:
        layer: The layer.
        row: What was analyzed of it.
        found: Its weights.
        scheme: What it becomes.
        clip: The range.
    """
    signal = _power(found.histogram)
    known = _analyzed(row, found, signal)
    if not known or signal <= 0 or scheme.weights.grid is not Grid.UNIFORM:
        return None
    cut, rounding = _clip_noise(found, scheme, clip)
    noise, kl = known.get(scheme.weights.name) or _nearest(known, rounding)
    rounded = rounding / noise * kl
    if not cut:
        return RangedKl(rounded, 0.0)
    noise, kl = _nearest(known, cut)
    inputs = float(np.prod(layer.weight_shape)) / _channels(layer)
    factor = _WEIGHT_FACTOR * (inputs / _INPUTS) ** 0.5 * (cut / signal / _SHARE) ** _SHARE_POWER
    return RangedKl(rounded, factor * cut / noise * kl)


def one_scale_factor(found: WeightStatistics, scheme: LayerScheme) -> float | None:
    """How many times the KL of weights grows with one scale for all channels; None where nothing tells.

    What counts is the step against the range of each channel: a channel of small weights, which the next
    layer may well multiply up again, is rounded away.
    """
    reach = np.maximum(np.abs(found.channel_low), np.abs(found.channel_high)).astype(np.float64)
    if scheme.weights.grid is not Grid.UNIFORM or not reach.size or reach.max() <= 0:
        return None
    coarser = (reach.max() / np.maximum(reach, 1e-30)) ** 2
    # A channel that is all zeros then is lost as a whole, and no more: weights have about a ninth of the
    # power of their largest.
    return float(
        np.mean(np.minimum(coarser, 12 / 9 * IntegerGrid(scheme.weights.bits, signed=True).high ** 2))
    )


def clipped_inputs_kl(
    kl: float, read: Histogram, clipped: Histogram, clip: Range, grid: IntegerGrid
) -> RangedKl | None:
    """KL of the inputs of one layer where the range of one was set by hand; None where nothing tells.

    Args:
        kl: What was analyzed, with the calibrated range.
        read: Distribution of the tensor the layer reads.
        clipped: Distribution of the tensor whose range was set: the same, or one on the way to it.
        clip: The range.
        grid: Of the activations.
    """
    # Sensitivity is analyzed with the ranges of the usual calibration.
    known = sum(range_noise(read, *activation_range(read, CalibrationSettings(), grid), grid))
    if known <= 0:
        return None
    cut, rounding = range_noise(clipped, min(clip[0], 0.0), max(clip[1], 0.0), grid)
    return RangedKl(rounding / known * kl, _ACTIVATION_FACTOR * cut / known * kl)


def _analyzed(
    row: LayerSensitivity, found: WeightStatistics, signal: float
) -> dict[str, tuple[float, float]]:
    """Mean squared error and KL of the formats that were analyzed with a scale a channel."""
    known = {}
    for name, kl in row.by_precision.items():
        schemes = (f"static-{name}", f"dynamic-{name}", f"weight-{name}")
        decibels = next((found.sqnr_db[one] for one in schemes if one in found.sqnr_db), math.inf)
        if math.isfinite(decibels) and kl > 0:
            known[name] = (signal * 10 ** (-decibels / 10), kl)
    return known


def _nearest(known: Mapping[str, tuple[float, float]], noise: float) -> tuple[float, float]:
    """The analyzed format whose error is nearest to one."""
    wanted = max(noise, 1e-30)
    return min(known.values(), key=lambda one: abs(math.log(one[0] / wanted)))


def _clip_noise(found: WeightStatistics, scheme: LayerScheme, clip: Range) -> tuple[float, float]:
    """Mean squared error of clipped weights: of what is cut off, and of rounding the rest."""
    grid = IntegerGrid(scheme.weights.bits, signed=True)
    reach = np.maximum(np.abs(found.channel_low), np.abs(found.channel_high)).astype(np.float64)
    if scheme.granularity is Granularity.PER_TENSOR:
        reach = np.full_like(reach, reach.max(initial=0.0))
    histogram = found.histogram
    excess = np.maximum(histogram.centres - clip[1], 0.0) + np.maximum(clip[0] - histogram.centres, 0.0)
    total = max(histogram.total, 1)
    inside = float(histogram.counts[excess == 0].sum()) / total
    steps = np.minimum(reach, max(abs(clip[0]), abs(clip[1]))) / grid.high
    return float((histogram.counts * excess**2).sum()) / total, inside * float(np.mean(steps**2)) / 12


def _power(histogram: Histogram) -> float:
    return float((histogram.counts * histogram.centres**2).sum()) / max(histogram.total, 1)


def _channels(layer: LayerInfo) -> int:
    axis = layer.channel_axis
    return layer.weight_shape[axis] if axis is not None and len(layer.weight_shape) > 1 else 1
