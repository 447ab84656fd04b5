"""What a view says about one variant: quality and cost with their intervals, as figures and as text."""

from __future__ import annotations

import math
from dataclasses import dataclass

from quantstudio.core import figures
from quantstudio.core.results import Interval, VariantResult
from quantstudio.core.variants import Variant

METRIC_NAMES = {
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "rmse": "RMS error",
    "mae": "Mean absolute error",
    "r2": "R²",
}
_SHARES = frozenset({"top1", "top5", "r2"})
AGREEMENT = "agreement"


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a variant is.

    Attributes:
        key: "top1", "r2" or "agreement".
        name: For a person.
        value: 0 to 1, with the paired 95 % interval where there is one.
        has_interval: Whether the ends say anything.
    """

    key: str
    name: str
    value: Interval
    has_interval: bool


def quality_of(variant: Variant) -> Quality | None:
    """Accuracy against labels, R² for regression, else agreement with FP32.

    None before measuring, and for a model that gives numbers on data without labels.
    """
    result = variant.result
    if result is None:
        return None
    for key in ("top1", "r2"):
        if key in result.metrics:
            value = result.metrics[key]
            drop = None if variant.is_base or key != "top1" else result.drop
            ends = (value, value)
            if drop is not None:  # a share cannot leave 0 to 1, whatever the interval of the difference says
                ends = (max(0.0, value - drop.high / 100), min(1.0, value - drop.low / 100))
            elif key == "top1" and result.samples:
                ends = share_interval(value, result.samples)
            return Quality(
                key, METRIC_NAMES[key], Interval(value, *ends), drop is not None or ends != (value, value)
            )
    if result.agreement is not None and math.isnan(result.agreement.top1):
        return None  # numbers, not classes: nothing to agree on
    if variant.is_base:
        value = 1.0
    elif result.agreement is not None:
        value = result.agreement.top1
    else:
        return None
    return Quality(AGREEMENT, "Agreement with FP32", Interval(value, value, value), has_interval=False)


def share_interval(share: float, samples: int) -> tuple[float, float]:
    """The 95 % interval of a share found in so many samples (Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    z, n = 1.959964, float(samples)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def latency_of(variant: Variant, base: Variant | None) -> Interval | None:
    """Median latency in milliseconds; its ends come from the paired speed-up."""
    result = variant.result
    if result is None or result.latency_ms is None:
        return None
    p50 = result.latency_ms.p50
    reference = base.result.latency_ms if base is not None and base.result is not None else None
    if result.speedup is None or reference is None or min(result.speedup.low, result.speedup.high) <= 0:
        return Interval(p50, p50, p50)
    low, high = reference.p50 / result.speedup.high, reference.p50 / result.speedup.low
    return Interval(p50, min(low, p50), max(high, p50))


def size_of(variant: Variant, base_bytes: int) -> int:
    """File size in bytes."""
    if variant.result is not None:
        return variant.result.size_bytes
    return variant.build.size_bytes if variant.build is not None else base_bytes


def metric_text(key: str, value: float) -> str:
    """A metric's value: shares as percent, errors as they are."""
    return figures.percent(value) if key in _SHARES else figures.significant(value, 4)


def interval_text(low: str, high: str) -> str:
    """An interval in brackets."""
    return f"[{low}, {high}]"


def change_text(result: VariantResult) -> str:
    """Change of the main metric against FP32, in points, with its interval: "−0.25 pp [−0.41, −0.09]"."""
    if result.drop is None:
        return figures.NOTHING
    if "top1" not in result.metrics:
        # For regression the drop is a relative error.
        return figures.percent(result.drop.value)
    low, high = (figures.number(-v, 2, signed=True) for v in (result.drop.high, result.drop.low))
    return f"{figures.points(-result.drop.value)}  {interval_text(low, high)}"


def speedup_text(speedup: Interval | None) -> str:
    """Base time over variant time with its interval: "2.7× [2.6, 2.8]"."""
    if speedup is None:
        return figures.NOTHING
    digits = 2
    low, high = figures.number(speedup.low, digits), figures.number(speedup.high, digits)
    return f"{figures.number(speedup.value, digits)}{figures.TIMES}  {interval_text(low, high)}"


def state_text(variant: Variant) -> str:
    """How far a variant is."""
    return "measured" if variant.result is not None else "not measured"
