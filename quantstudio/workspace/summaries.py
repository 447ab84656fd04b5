"""Keeps in every project what lists of sessions show of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from quantstudio.core.findings import SUMMARY
from quantstudio.core.quality import quality_of
from quantstudio.core.results import VariantResult
from quantstudio.core.session_summary import BARS_KEPT, MeasuredDot, SessionSummary, ShownVariant
from quantstudio.core.variants import Variant
from quantstudio.workspace.known import Known


class Summaries:
    """Writes the summary of what is open when work ends, and before it goes.

    Args:
        known: What is open.
    """

    def __init__(self, known: Known) -> None:
        self._known = known

    def keep(self) -> None:
        """Have the project say what it holds now; nothing happens where it says so already."""
        known = self._known
        if known.model is None or known.project.is_read_only:
            return
        found = summary_of(known)
        if known.findings.get(SUMMARY, SUMMARY.key()) != found:
            known.findings.put(SUMMARY, SUMMARY.key(), found)


def summary_of(known: Known) -> SessionSummary:
    """What there is to show of the model that is open; every figure was measured, on the data of now."""
    assert known.model is not None
    variants = known.variants
    base, built = variants[0], variants[1:]
    base_bytes = base.result.size_bytes if base.result is not None else known.model.file_bytes
    measured = [one for one in variants if one.result is not None]
    rows = known.layer_sensitivity
    kl = [rows[layer.name].kl for layer in known.layers if layer.name in rows]
    return SessionSummary(
        layers=len(known.layers),
        model_bytes=base_bytes,
        variants=len(built),
        shown=_shown(built, base_bytes),
        sensitivity=tuple(stretched(kl, BARS_KEPT)),
        dots=tuple(dot for one in measured if (dot := _dot(one, base_bytes)) is not None),
    )


def stretched(values: Sequence[float], most: int) -> list[float]:
    """At most so many values: the largest of each stretch."""
    count = len(values)
    if count <= most:
        return list(values)
    edges = [i * count // most for i in range(most + 1)]
    return [max(values[a:b]) for a, b in pairwise(edges)]


def judged(result: VariantResult, *, is_base: bool) -> tuple[str, float | None]:
    """The metric a result is judged by, and its value; an empty metric where nothing could be judged."""
    found = quality_of(result, is_base=is_base)
    return ("", None) if found is None else (found.key, found.value.value)


def _shown(built: Sequence[Variant], base_bytes: int) -> ShownVariant | None:
    """What the plan of now gave, else what was measured last."""
    measured = [one for one in built if one.result is not None]
    if not measured:
        return None
    one = next((one for one in measured if one.is_current), measured[-1])
    assert one.result is not None
    metric, value = judged(one.result, is_base=False)
    speedup = one.result.speedup
    return ShownVariant(
        one.name,
        metric,
        value,
        one.result.size_bytes / base_bytes if base_bytes else 1.0,
        speedup.value if speedup is not None else None,
        one.result.headline,
    )


def _dot(variant: Variant, base_bytes: int) -> MeasuredDot | None:
    assert variant.result is not None
    _metric, value = judged(variant.result, is_base=variant.is_base)
    if value is None or not base_bytes:
        return None
    return MeasuredDot(variant.result.size_bytes / base_bytes, value)
