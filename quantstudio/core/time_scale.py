"""Times of variants on the scale of the base, so that two times and the ratio beside them agree.

A machine that is busy, or was measured on another day, slows all models alike. The paired ratio of a variant
to its base knows nothing of that, the medians of whole runs do: shown side by side, 0.28 ms and 0.54 ms would
contradict "1.04 times faster". So a variant's times are those it would have taken beside the base that is
shown: what the base took, divided by the paired ratio.
"""

from __future__ import annotations

from dataclasses import replace

from quantstudio.core import figures
from quantstudio.core.results import LatencyResult, VariantResult

# A smaller correction than this is within the spread of any two medians and not worth a word.
_WORTH_SAYING = 0.03
_CLEARLY = 0.05
_ROUNDING = 1e-9
_MANY = 512
# Base and variant, kept so that no new one at an old address is taken for it, with what came of them.
_made: dict[tuple[int, int], tuple[VariantResult | None, VariantResult, VariantResult]] = {}


def on_scale_of(base: VariantResult | None, variant: VariantResult) -> VariantResult:
    """A variant with its times on the scale of the base's.

    Where the two were not timed alike (provider, threads, batch), or one of them not at all, it stays as it
    was measured.

    Args:
        base: What its speed-up is against, perhaps timed again since.
        variant: The variant.
    """
    reference = base.latency_ms if base is not None else None
    own, speedup = variant.latency_ms, variant.speedup
    if reference is None or own is None or speedup is None or not (speedup.value > 0 and own.p50 > 0):
        return variant
    if _circumstances(reference) != _circumstances(own):
        return variant
    factor = reference.p50 / speedup.value / own.p50
    if abs(factor - 1) < _ROUNDING:
        return variant
    # Predictions are fitted anew for results that are other objects: the same two give the same one.
    key = (id(base), id(variant))
    if key not in _made:
        if len(_made) >= _MANY:
            _made.clear()
        _made[key] = (base, variant, replace(variant, latency_ms=_scaled(own, factor)))
    return _made[key][2]


def least_disturbed(found: VariantResult, before: VariantResult | None) -> VariantResult:
    """What was measured of the base now, with its times of before unless these were disturbed.

    Whatever a machine does besides makes a model slower, never faster. So the scale that variants stand on
    moves only where the base is clearly faster than it was known to be, and an edit that is taken back has
    the figures it had.

    Args:
        found: Measured now.
        before: Measured before, on the same data; None for never.
    """
    new, old = found.latency_ms, before.latency_ms if before is not None else None
    if new is None or old is None or _circumstances(new) != _circumstances(old):
        return found
    return found if new.p50 < (1 - _CLEARLY) * old.p50 else replace(found, latency_ms=old)


def scale_text(latency: LatencyResult) -> str:
    """That times are not as they were taken, in words; empty where nobody could see it."""
    if abs(latency.scale - 1) < _WORTH_SAYING:
        return ""
    return (
        f"taken at {figures.milliseconds(latency.p50 / latency.scale)}, shown on the scale of FP32, "
        "which ran in the same rounds"
    )


def _circumstances(latency: LatencyResult) -> tuple[str, int, int]:
    return latency.provider, latency.threads, latency.batch


def _scaled(latency: LatencyResult, factor: float) -> LatencyResult:
    return replace(
        latency,
        p50=latency.p50 * factor,
        p90=latency.p90 * factor,
        p99=latency.p99 * factor,
        mean=latency.mean * factor,
        throughput=latency.throughput / factor,
        samples_ms=tuple(time * factor for time in latency.samples_ms),
        scale=latency.scale * factor,
    )
