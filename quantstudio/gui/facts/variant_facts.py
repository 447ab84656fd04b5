"""What a view says about one variant: quality and cost with their intervals, as figures and as text."""

from __future__ import annotations

from collections.abc import Sequence

from quantstudio.core import figures, quality
from quantstudio.core.layers import LayerInfo
from quantstudio.core.quality import Quality
from quantstudio.core.results import Interval
from quantstudio.core.time_scale import scale_text
from quantstudio.core.variants import Variant
from quantstudio.workspace.names import base_name, contents_text

# Of the processors; what other programs take below it hardly shows in a median.
BUSY_SHARE = 0.2


def contents_of(variant: Variant, layers: Sequence[LayerInfo]) -> str:
    """What a variant contains: "INT8 · 3 W4A8"; of the base what its file holds."""
    return base_name(layers) if variant.is_base else contents_text(variant.recipe, layers)


def quality_of(variant: Variant) -> Quality | None:
    """The one figure of the task; None before measuring, and where nothing could be judged."""
    return quality.quality_of(variant.result, is_base=variant.is_base)


def latency_of(variant: Variant) -> Interval | None:
    """Median latency in milliseconds; its ends come from the paired speed-up."""
    result = variant.result
    if result is None or result.latency_ms is None:
        return None
    p50, speedup = result.latency_ms.p50, result.speedup
    if speedup is None or speedup.low <= 0:
        return quality.exact(p50)
    return Interval(p50, p50 * speedup.value / speedup.high, p50 * speedup.value / speedup.low)


def size_of(variant: Variant, base_bytes: int) -> int:
    """File size in bytes."""
    if variant.result is not None:
        return variant.result.size_bytes
    return variant.build.size_bytes if variant.build is not None else base_bytes


def interval_text(low: str, high: str) -> str:
    """An interval in brackets."""
    return f"[{low}, {high}]"


def change_text(variant: Variant) -> str:
    """Change of the main metric against FP32 with its interval: "−0.25 pp  [−0.41, −0.09]"."""
    found = quality_of(variant)
    if found is None or found.loss is None or found.change is None:
        return figures.NOTHING
    if found.loss.low == found.loss.high:
        return found.change_text
    low, high = (figures.number(end, 2, signed=True) for end in (found.change.low, found.change.high))
    return f"{found.change_text}  {interval_text(low, high)}"


def speedup_text(speedup: Interval | None) -> str:
    """Base time over variant time with its interval: "2.7× [2.6, 2.8]"."""
    if speedup is None:
        return figures.NOTHING
    digits = 2
    low, high = figures.number(speedup.low, digits), figures.number(speedup.high, digits)
    return f"{figures.number(speedup.value, digits)}{figures.TIMES}  {interval_text(low, high)}"


def timing_text(variant: Variant) -> str:
    """How its latency was taken: runs, batch, threads, what else the machine did; empty where it was not."""
    latency = variant.result.latency_ms if variant.result is not None else None
    if latency is None:
        return ""
    found = (
        f"{latency.runs} runs, batch {latency.batch}, {latency.threads} threads, {latency.provider}",
        latency.load_text,
        scale_text(latency),
    )
    return "; ".join(part for part in found if part)


def busy_text(variant: Variant) -> str:
    """That other programs took part of the machine while it was timed, in few words; empty where none did."""
    latency = variant.result.latency_ms if variant.result is not None else None
    share = latency.other_load if latency is not None else None
    if share is None or share < BUSY_SHARE:
        return ""
    return f"{figures.percent(share, 0)} other load"


def state_text(variant: Variant) -> str:
    """How far a variant is."""
    return "measured" if variant.result is not None else "not measured"
