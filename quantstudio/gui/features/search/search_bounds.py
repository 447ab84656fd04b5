"""The bounds a budget may have, with ends and marks from the figures of the model."""

from __future__ import annotations

from collections.abc import Sequence

from quantstudio.core import figures
from quantstudio.core.precision import Precision, WeightFormat
from quantstudio.core.search_results import CLASS_DROP_FACTOR, BudgetObstacle
from quantstudio.gui.widgets.bound_row import Bound
from quantstudio.workspace.search_references import Reference
from quantstudio.workspace.search_terms import DEFAULT_DROP_POINTS

CLASS_DROP = "max_class_drop"
_KILO, _MEGA = 1e3, 1e6
_LARGE_BYTES = 2_000_000
_WIDEST_DROP = 5.0
_MAX_BITS = 8.0
# Marks nearer than this stand on each other.
SAME_SIZE = 0.01


def bounds_for(references: Sequence[Reference]) -> tuple[Bound, ...]:
    """One a field of `SearchBudget`, the most asked for first; without a model the ends are round figures."""
    known = {one.precision: one for one in references}
    return (
        _drop(known),
        Bound(
            CLASS_DROP,
            "Worst class",
            "Points that any one class may lose, beyond what its samples lose by chance; off, classes may be "
            "traded away",
            "pp",
            low=0.0,
            high=4 * _WIDEST_DROP,
            usual=CLASS_DROP_FACTOR * DEFAULT_DROP_POINTS,
            digits=2,
        ),
        _bytes("max_size_bytes", "File size", "The ONNX file as it is written", _sizes(known)),
        _latency(known),
        Bound(
            "average_bits",
            "Average bits",
            "Mean bits per weight, over all weights that can be quantized",
            "bits",
            low=1.0,
            high=_MAX_BITS,
            usual=5.0,
            marks=_bit_marks(known),
        ),
        Bound(
            "max_share_above_8",
            "Layers above 8 bits",
            "Share of the layers that may stay float. Without this bound they may only where nothing else "
            "keeps the others",
            "%",
            low=0.0,
            high=100.0,
            usual=10.0,
            digits=0,
            scale=0.01,
        ),
    )


def obstacle_text(obstacle: BudgetObstacle, bounds: Sequence[Bound]) -> str:
    """Which bound cannot be kept, and what is nearest to it."""
    bound = next(b for b in bounds if b.key == obstacle.bound)
    asked = figure_text(bound, obstacle.value)
    if obstacle.nearest != obstacle.nearest:  # NaN: the other bounds alone rule everything out
        return f"No plan keeps {bound.title.lower()} at most {asked} together with the other bounds."
    nearest = reachable_text(bound, obstacle.nearest)
    return f"No plan keeps {bound.title.lower()} at most {asked}. The closest possible: {nearest}."


def figure_text(bound: Bound, value: float) -> str:
    """A value in the budget's unit as the row shows it."""
    return f"{figures.number(value / bound.scale, bound.digits)}{figures.THIN_SPACE}{bound.unit}".rstrip()


def reachable_text(bound: Bound, value: float) -> str:
    """A value that can just be had, rounded up to what the row can be set to."""
    return figure_text(bound, bound.rounded_up(value) * bound.scale)


def _bit_marks(known: dict[WeightFormat, Reference]) -> tuple[tuple[float, str], ...]:
    """One mark a width; of formats equally wide the first is named."""
    found: dict[int, str] = {}
    for precision in known:
        if precision.bits <= _MAX_BITS:
            found.setdefault(precision.bits, precision.label)
    return tuple((float(bits), label) for bits, label in found.items())


def _drop(known: dict[WeightFormat, Reference]) -> Bound:
    marks = tuple(
        (one.drop, p.label)
        for p, one in known.items()
        if p != Precision.FP32 and one.drop is not None and one.drop <= _WIDEST_DROP
    )
    return Bound(
        "max_drop",
        "Accuracy drop",
        "Points of top-1 that may be lost against FP32; without labels, of predictions that may change",
        "pp",
        low=0.0,
        high=_WIDEST_DROP,
        usual=DEFAULT_DROP_POINTS,
        digits=2,
        marks=marks,
    )


def _sizes(known: dict[WeightFormat, Reference]) -> dict[WeightFormat, int]:
    """Files of different size; of those that are equally large the first is named."""
    found: dict[WeightFormat, int] = {}
    for precision, one in known.items():
        size = one.size_bytes
        if size is not None and all(abs(size - other) > SAME_SIZE * other for other in found.values()):
            found[precision] = size
    return found


def _bytes(key: str, title: str, tip: str, sizes: dict[WeightFormat, int]) -> Bound:
    largest = max(sizes.values(), default=10 * _LARGE_BYTES)
    smallest = min(sizes.values(), default=0)
    unit, scale = ("MB", _MEGA) if largest >= _LARGE_BYTES else ("kB", _KILO)
    eight = sizes.get(Precision.INT8, round((largest + smallest) / 2))
    return Bound(
        key,
        title,
        tip,
        unit,
        low=0.9 * smallest / scale,
        high=largest / scale,
        usual=eight / scale,
        digits=2 if unit == "MB" else 0,
        scale=scale,
        marks=tuple((size / scale, p.label) for p, size in sizes.items()),
    )


def _latency(known: dict[WeightFormat, Reference]) -> Bound:
    eight = known.get(Precision.INT8)
    ratio = eight.latency_ratio if eight is not None else None
    marks = ((1.0, "FP32"),) + (((ratio, "INT8"),) if ratio is not None else ())
    return Bound(
        "max_latency_ratio",
        "Time",
        "Time relative to FP32, measured on this machine; nothing slower than FP32 is ever chosen",
        figures.TIMES,
        low=0.1,
        high=1.0,
        usual=1.0 if ratio is None else min(1.0, max(0.1, 1.1 * ratio)),
        digits=2,
        marks=marks,
    )
