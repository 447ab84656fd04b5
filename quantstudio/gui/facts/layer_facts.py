"""What a view says about one layer, worked out from plain values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from quantstudio.core import figures
from quantstudio.core.activation_ranges import activation_range
from quantstudio.core.affine import IntegerGrid
from quantstudio.core.layers import LayerInfo
from quantstudio.core.levels import ChannelLevels
from quantstudio.core.precision import Granularity, LayerScheme
from quantstudio.core.recipe import CalibrationSettings, RangeMethod, RangeOverride, Recipe
from quantstudio.core.statistics import Histogram, WeightStatistics
from quantstudio.core.target import DEFAULT_TARGET, Target
from quantstudio.core.weight_error import full_range, known_sqnr_db, weight_bits
from quantstudio.gui.plots.distribution import Distribution

SPARK_BINS = 30
# Of at most 2^4 levels a channel the bars of all channels on one grid would be no picture of them.
FEW_BITS = 4
SPARK_REACH = 5.0  # standard deviations either side; beyond lie a few outliers that would flatten the rest
_METHOD_NAMES = {
    RangeMethod.MINMAX: "min–max",
    RangeMethod.PERCENTILE: "percentile",
    RangeMethod.MSE: "least-error",
    RangeMethod.ENTROPY: "entropy",
}


def override_for(ranges: Iterable[RangeOverride], key: str) -> RangeOverride | None:
    """The range set by hand for a layer or tensor."""
    return next((r for r in ranges if r.tensor == key), None)


def has_few_levels(scheme: LayerScheme) -> bool:
    """Whether weights have so few levels that each can be seen, and every channel has its own."""
    is_shared = scheme.granularity is Granularity.PER_TENSOR
    return scheme.weights.is_integer and scheme.weights.bits <= FEW_BITS and not is_shared


def weight_distribution(
    statistics: WeightStatistics,
    scheme: LayerScheme,
    override: RangeOverride | None,
    target: Target = DEFAULT_TARGET,
) -> Distribution:
    """A layer's weights with the grid of its scheme and the clip range in force."""
    histogram = statistics.histogram
    low, high = (override.low, override.high) if override else full_range(statistics)
    is_per_tensor = scheme.granularity is Granularity.PER_TENSOR or not len(statistics.channel_low)
    is_integer = scheme.weights.is_integer
    # The levels of a codebook are chosen for every channel: until they are known none are drawn.
    has_grid = is_integer and not scheme.weights.has_codebook
    return Distribution(
        key=statistics.layer,
        kind="weights",
        histogram=histogram,
        grid=IntegerGrid(weight_bits(scheme, target), signed=True) if has_grid else None,
        low=low,
        high=high,
        is_edited=override is not None,
        channels=None if is_per_tensor else (statistics.channel_low, statistics.channel_high),
        is_grouped=scheme.granularity is Granularity.PER_GROUP,
        note=f"{scheme.label}, {scheme.granularity.value}" if is_integer else "",
        exact_db=None if override else known_sqnr_db(statistics, scheme, target),
        has_bars=is_per_tensor or not has_few_levels(scheme),
    )


def channel_distribution(
    levels: ChannelLevels, label: str, recipe: Recipe, *, are_written: bool = False
) -> Distribution:
    """One output channel's weights, with the very levels they are rounded to, or that the file has."""
    has_steps = any(step.is_on for step in recipe.steps)
    before = "before the steps" if has_steps else ""
    return Distribution(
        key=f"{levels.layer}#{levels.channel}",
        kind="weights",
        histogram=levels.histogram,
        grid=None,
        low=levels.low,
        high=levels.high,
        note="as written" if are_written else before,
        exact_db=levels.sqnr_db,
        label=f"{label}, output channel {levels.channel}",
        levels=levels.levels,
        codes=levels.codes,
    )


def activation_distribution(
    tensor: str,
    histogram: Histogram,
    scheme: LayerScheme,
    override: RangeOverride | None,
    settings: CalibrationSettings,
    target: Target = DEFAULT_TARGET,
) -> Distribution:
    """A tensor's values with the grid of static quantization.

    Without a range set by hand the lines stand where calibration puts them.
    """
    grid = target.activation_grid(scheme.activations.bits if scheme.is_static else 8)
    low, high, note = _calibrated_range(histogram, settings, grid)
    if override is not None:
        low, high, note = override.low, override.high, ""
    return Distribution(
        key=tensor,
        kind="activations",
        histogram=histogram,
        grid=grid if scheme.is_static else None,
        low=low,
        high=high,
        is_edited=override is not None,
        note=note if scheme.is_static else "",
    )


def _calibrated_range(
    histogram: Histogram, settings: CalibrationSettings, grid: IntegerGrid
) -> tuple[float, float, str]:
    """The range the build will use, and the name of the method that gave it."""
    low, high = activation_range(histogram, settings, grid)
    return float(low), float(high), f"{_METHOD_NAMES[settings.method]} range"


def sparkline(histogram: Histogram, mean: float, std: float) -> NDArray[np.float64]:
    """The bulk of a histogram as `SPARK_BINS` heights from 0 to 1, on a square-root scale."""
    low = max(histogram.low, mean - SPARK_REACH * std)
    high = min(histogram.high, mean + SPARK_REACH * std)
    if not high > low:
        low, high = histogram.low, histogram.high
    cumulative = np.concatenate(([0.0], np.cumsum(histogram.counts, dtype=np.float64)))
    borders = np.linspace(low, high, SPARK_BINS + 1)
    counts = np.diff(np.interp(borders, histogram.edges, cumulative))
    top = float(counts.max(initial=0.0))
    return np.asarray(np.sqrt(counts / top)) if top > 0 else np.zeros(SPARK_BINS)


def has_choice(layer: LayerInfo) -> bool:
    """Whether a layer can have any precision but the one it has."""
    return not layer.stored_as and any(name != "fp32" for name in layer.schemes)


def precision_label(layer: LayerInfo, scheme: LayerScheme) -> str:
    """What a layer's chip says: its scheme, or what the file itself holds: "INT8 stored"."""
    return layer.stored_label or scheme.short_label


def stored_bits(layer: LayerInfo) -> int:
    """Bits of weights the file holds quantized, read off their name: 4 of "INT4"; 8 where it tells none."""
    found = re.search(r"\d+", layer.stored_as)
    return int(found[0]) if found else 8


def type_text(op_type: str) -> str:
    """An operator's name short enough for a column: "LayerNorm"."""
    return op_type.replace("Normalization", "Norm")


def shape_text(shape: tuple[int, ...]) -> str:
    """A weight shape: "64×3×7×7"."""
    return figures.TIMES.join(str(size) for size in shape)


def layer_tip(layer: LayerInfo, statistics: WeightStatistics | None) -> str:
    """Tool tip of a layer: what it is, how large, and why it cannot be quantized if so."""
    lines = [layer.full_title, f"{layer.op_type}  {shape_text(layer.weight_shape)}".rstrip()]
    if layer.parameters:
        share = figures.percent(layer.share, 1)
        lines.append(f"{figures.count(layer.parameters)} parameters, {share} of the model")
    if layer.macs is not None:
        lines.append(f"{figures.compact_count(layer.macs)} multiply-accumulates per sample")
    if statistics is not None and math.isfinite(statistics.kurtosis):
        outliers = figures.percent(statistics.outlier_share)
        lines.append(f"kurtosis {figures.number(statistics.kurtosis, 1)}, {outliers} beyond 4 σ")
    if layer.stored_as:
        lines.append(layer.reason or f"already quantized ({layer.stored_as})")
    elif layer.reason:
        lines.append(f"not quantizable: {layer.reason}")
    return "\n".join(lines)
