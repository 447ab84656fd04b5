"""What a scheme does to the weights of a layer: one SQNR for the table, the inspector, plots and reports."""

from __future__ import annotations

from quantstudio.core.affine import ClipEffect, IntegerGrid, clip_effect
from quantstudio.core.channel_clip import channel_clip_effect
from quantstudio.core.precision import Granularity, LayerScheme
from quantstudio.core.recipe import RangeOverride
from quantstudio.core.schemes import NAMED_SCHEMES, scheme_name
from quantstudio.core.statistics import WeightStatistics
from quantstudio.core.target import Target


def weight_bits(scheme: LayerScheme, target: Target) -> int:
    """Bits of the grid weights are rounded to: kernels of a target may take fewer than the format has."""
    bits = scheme.weights.bits
    if scheme.is_weight_only or not scheme.weights.is_integer:
        return bits
    return min(bits, target.weight_bits)


def rounding_key(scheme: str, bits: int) -> str:
    """What `WeightStatistics.sqnr_db` calls a scheme whose grid is narrowed to so many bits."""
    return scheme if NAMED_SCHEMES[scheme].weights.bits <= bits else f"{scheme}@{bits}"


def weight_sqnr_db(
    statistics: WeightStatistics | None,
    scheme: LayerScheme,
    override: RangeOverride | None,
    target: Target,
) -> float | None:
    """SQNR of a layer's weights in its scheme; None where nothing is known or nothing is lost.

    Exact for schemes that have a name; with a range set by hand, or other scales, from the histogram.

    Args:
        statistics: Of the weights.
        scheme: What the layer has.
        override: Its clip range set by hand.
        target: What it is quantized for.
    """
    if statistics is None:
        return None
    known = known_sqnr_db(statistics, scheme, target)
    if not scheme.weights.is_integer or (override is None and known is not None):
        return known
    low, high = full_range(statistics) if override is None else (override.low, override.high)
    return weight_effect(statistics, scheme, low, high, target).sqnr_db


def known_sqnr_db(statistics: WeightStatistics, scheme: LayerScheme, target: Target) -> float | None:
    """SQNR over the weights themselves, with the scheme's own ranges; None where nobody took it."""
    named = NAMED_SCHEMES.get(scheme_name(scheme))
    if named is None or named.weight_range is not scheme.weight_range:
        return None
    return statistics.sqnr_db.get(rounding_key(scheme_name(scheme), weight_bits(scheme, target)))


def weight_effect(
    statistics: WeightStatistics, scheme: LayerScheme, low: float, high: float, target: Target
) -> ClipEffect:
    """What clipping the weights to [low, high] does, from their histogram."""
    histogram, grid = statistics.histogram, IntegerGrid(weight_bits(scheme, target), signed=True)
    if scheme.granularity is Granularity.PER_TENSOR or not len(statistics.channel_low):
        return clip_effect(histogram.counts, histogram.edges, low, high, grid)
    channels = (statistics.channel_low, statistics.channel_high)
    return channel_clip_effect(histogram.counts, histogram.edges, channels, max(-low, high), grid)


def full_range(statistics: WeightStatistics) -> tuple[float, float]:
    """The symmetric range that holds every weight."""
    reach = max(abs(statistics.histogram.minimum), abs(statistics.histogram.maximum))
    return -reach, reach
