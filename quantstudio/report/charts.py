"""The charts of a report. Meaning is never in colour alone: every mark has a name or a figure beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from quantstudio.core.figures import interval, milliseconds, number, percent, significant, size
from quantstudio.core.quality import Loss, loss_of, quality_of
from quantstudio.core.results import (
    ClassAccuracy,
    CompareResult,
    LatencyResult,
    SensitivityResult,
    VariantResult,
)
from quantstudio.report.svg import (
    Drawing,
    Scale,
    horizontal_axis,
    shortened,
    spread_labels,
    vertical_axis,
)

HALF_WIDTH = 520.0
FULL_WIDTH = 1080.0
NAME_WIDTH = 128.0
NAME_CHARACTERS = 20
MAX_CLASSES = 30
# Names of single layers still fit below the bars up to here.
MAX_NAMED_BARS = 24
LETTER_WIDTH = 6.4


def loss_chart(comparison: CompareResult) -> Markup | None:
    """What every variant loses with its 95 % interval; None where nobody measured a difference."""
    losses = _losses(comparison)
    if not losses:
        return None
    unit = losses[0][1].unit
    title = f"{losses[0][1].of}, {unit}"
    low = min(0.0, *(d.value.low for _, d in losses))
    high = max(0.0, *(d.value.high for _, d in losses))
    margin = max((high - low) * 0.08, 0.05)
    drawing = _rows(len(losses), f"Loss against FP32, {title}: ", losses_text(comparison))
    scale = Scale(low - margin, high + margin, NAME_WIDTH + 12, HALF_WIDTH - 90)
    bottom = drawing.height - 40
    horizontal_axis(drawing, scale, 6, bottom, f"loss, {title}")
    drawing.line(scale(0), 6, scale(0), bottom, "zero")
    for row, (variant, lost) in enumerate(losses):
        y, loss = _row_y(row), lost.value
        tip = f"{variant.name}: {number(loss.value, 2, signed=True)} ({interval(loss, signed=True)})"
        drawing.text(NAME_WIDTH, y + 4, shortened(variant.name, NAME_CHARACTERS), "name", "end")
        _whisker(drawing, scale(loss.low), scale(loss.high), y, "q-line", tip)
        drawing.circle(scale(loss.value), y, 5, "q", tip)
        drawing.text(HALF_WIDTH - 2, y + 4, f"{number(loss.value, 2, signed=True)} {unit}", "value", "end")
    return drawing.render()


def losses_text(comparison: CompareResult) -> str:
    """The losses as one sentence."""
    return "; ".join(
        f"{v.name} {number(loss.value.value, 2, signed=True)}, "
        f"95 % interval {interval(loss.value, signed=True)}"
        for v, loss in _losses(comparison)
    )


def _losses(comparison: CompareResult) -> list[tuple[VariantResult, Loss]]:
    """Variants with what they lose, where an interval says how sure that is."""
    return [(v, loss) for v in comparison.variants[1:] if (loss := loss_of(v)) is not None]


def size_chart(comparison: CompareResult) -> Markup:
    """File size of every model."""
    variants = comparison.variants
    spoken = "; ".join(f"{v.name} {size(v.size_bytes)}" for v in variants)
    drawing = _rows(len(variants), "File size: ", spoken, axis=False)
    largest = max(v.size_bytes for v in variants)
    room = HALF_WIDTH - NAME_WIDTH - 92
    for row, variant in enumerate(variants):
        y = _row_y(row)
        length = room * variant.size_bytes / max(largest, 1)
        drawing.text(NAME_WIDTH, y + 4, shortened(variant.name, NAME_CHARACTERS), "name", "end")
        drawing.rect(NAME_WIDTH + 12, y - 8, room, 16, "track")
        drawing.rect(NAME_WIDTH + 12, y - 8, length, 16, "fp" if row == 0 else "q", variant.name)
        drawing.text(HALF_WIDTH - 2, y + 4, size(variant.size_bytes), "value", "end")
    return drawing.render()


def latency_chart(comparison: CompareResult) -> Markup | None:
    """Distribution of the timed rounds of every model; None where nothing was timed."""
    timed = [(i, v, v.latency_ms) for i, v in enumerate(comparison.variants) if v.latency_ms is not None]
    timed = [(i, v, t) for i, v, t in timed if t.samples_ms]
    if not timed:
        return None
    spoken = "; ".join(
        f"{v.name} median {milliseconds(t.p50)}, 99th percentile {milliseconds(t.p99)}" for _, v, t in timed
    )
    drawing = _rows(len(timed), "Latency: ", spoken, row_height=44)
    # The slowest hundredth is the machine's, not the model's: it would squeeze the rest.
    low = min(min(t.samples_ms) for _, _, t in timed)
    high = max(t.p99 for _, _, t in timed) * 1.02
    is_log = high / low > 12
    start = low * 0.9 if is_log else 0.0
    scale = Scale(start, max(high, start * 1.1 + 1e-9), NAME_WIDTH + 12, HALF_WIDTH - 74, is_log)
    bottom = drawing.height - 40
    axis = "milliseconds per run" + (", logarithmic" if is_log else "")
    horizontal_axis(drawing, scale, 6, bottom, axis)
    for row, (index, variant, times) in enumerate(timed):
        y = _row_y(row, 44) + 8
        kind = "fp" if index == 0 else "q"
        tip = (
            f"{variant.name}: p50 {milliseconds(times.p50)}, p90 {milliseconds(times.p90)}, "
            f"p99 {milliseconds(times.p99)}"
        )
        drawing.text(NAME_WIDTH, y + 2, shortened(variant.name, NAME_CHARACTERS), "name", "end")
        _density(drawing, scale, times, y + 6, kind, tip)
        _whisker(drawing, scale(times.p50), scale(times.p99), y + 10, f"{kind}-line", tip)
        drawing.line(scale(times.p50), y - 22, scale(times.p50), y + 14, "median", tip)
        drawing.text(HALF_WIDTH - 2, y + 2, milliseconds(times.p50), "value", "end")
    return drawing.render()


def tradeoff_chart(comparison: CompareResult) -> Markup | None:
    """Quality against latency (size where nothing was timed); None where no interval says how sure it is."""
    judged = [(v, quality_of(v, is_base=i == 0)) for i, v in enumerate(comparison.variants)]
    rated = [(v, q) for i, (v, q) in enumerate(judged) if q is not None and (i == 0 or q.has_interval)]
    if len(rated) < 2 or rated[0][0] is not comparison.variants[0]:
        return None
    has_times = all(v.latency_ms is not None for v, _ in rated)
    across = [v.latency_ms.p50 if v.latency_ms else v.size_bytes / 1e6 for v, _ in rated]
    bounds = [(100 * q.value.low, 100 * q.value.high) for _, q in rated]
    bounds[0] = (100 * rated[0][1].value.value,) * 2  # what is paired with it has its uncertainty
    low, high = min(b[0] for b in bounds), max(b[1] for b in bounds)
    margin = max((high - low) * 0.12, 0.1)
    title = "p50 latency, ms" if has_times else "size, MB"
    spoken = "; ".join(
        f"{v.name} {q.text} at {significant(a)}" for (v, q), a in zip(rated, across, strict=True)
    )
    drawing = Drawing(HALF_WIDTH, 252, f"{rated[0][1].name} against {title}: {spoken}")
    x = Scale(0.0, max(across) * 1.18, 56, HALF_WIDTH - 14)
    y = Scale(low - margin, min(high + margin, 100 + margin), 208, 12)
    vertical_axis(drawing, y, 56, HALF_WIDTH - 14)
    horizontal_axis(drawing, x, 208, 208, title)
    names = [shortened(v.name, 26) for v, _ in rated]
    dots = [(x(a), y(100 * q.value.value)) for (_, q), a in zip(rated, across, strict=True)]
    is_left = [_goes_left(i, dots, names[i]) for i in range(len(dots))]
    heights = _label_heights(dots, names, is_left)
    for index, ((variant, quality), value) in enumerate(zip(rated, across, strict=True)):
        kind = "fp" if index == 0 else "q"
        px, py = dots[index]
        tip = f"{variant.name}: {quality.text}, {significant(value)} ({title})"
        if index:
            drawing.line(px, y(bounds[index][0]), px, y(bounds[index][1]), f"{kind}-line", tip)
        drawing.circle(px, py, 6, kind, tip)
        side, anchor = (-11, "end") if is_left[index] else (11, "start")
        drawing.text(px + side, heights[index] + 4, names[index], "name", anchor)
    return drawing.render()


def _goes_left(index: int, dots: Sequence[tuple[float, float]], name: str) -> bool:
    """Whether a name stands left of its dot: no room on the right, or another dot there."""
    x, y = dots[index]
    length = 14 + LETTER_WIDTH * len(name)
    if x + length > HALF_WIDTH - 8:
        return True
    others = [dot for i, dot in enumerate(dots) if i != index and abs(dot[1] - y) < 14]
    is_taken = any(x < other[0] < x + length for other in others)
    is_free = x - length > 60 and not any(x - length < other[0] < x for other in others)
    return is_taken and is_free


def _label_heights(
    dots: Sequence[tuple[float, float]], names: Sequence[str], is_left: Sequence[bool]
) -> list[float]:
    """Heights of the names beside the dots: names that would lie on each other move apart."""
    spans = [
        (x - 11 - LETTER_WIDTH * len(n), x - 4) if left else (x + 4, x + 11 + LETTER_WIDTH * len(n))
        for (x, _), n, left in zip(dots, names, is_left, strict=True)
    ]
    ys = [y for _, y in dots]
    heights = list(ys)
    grouped: set[int] = set()
    for first in range(len(dots)):
        if first in grouped:
            continue
        group = [
            i
            for i in range(len(dots))
            if i not in grouped and spans[i][0] < spans[first][1] and spans[first][0] < spans[i][1]
        ]
        grouped.update(group)
        for i, place in zip(group, spread_labels([ys[i] for i in group], 15.0), strict=True):
            heights[i] = place
    return heights


def class_chart(variant: VariantResult, width: float = HALF_WIDTH) -> Markup | None:
    """Base and variant accuracy of the classes that lost most; None without classes."""
    rows = worst_classes(variant.per_class)
    if not rows:
        return None
    spoken = "; ".join(f"{r.label} {percent(r.base, 1)} to {percent(r.variant, 1)}" for r in rows)
    drawing = _rows(
        len(rows), f"Accuracy by class, FP32 and {variant.name}: ", spoken, row_height=22, width=width
    )
    low = min(min(r.low, r.base) for r in rows)
    scale = Scale(max(0.0, 100 * low - 2), 100.0 + 1e-9, NAME_WIDTH + 12, width - 74)
    horizontal_axis(drawing, scale, 4, drawing.height - 40, "accuracy of the class, %")
    for row, entry in enumerate(rows):
        y = _row_y(row, 22)
        tip = (
            f"{entry.label}: {percent(entry.base, 1)} → {percent(entry.variant, 1)} "
            f"(95 % interval {percent(entry.low, 1)} to {percent(entry.high, 1)}, {entry.support} samples)"
        )
        change = 100 * (entry.variant - entry.base)
        drawing.text(NAME_WIDTH, y + 4, shortened(entry.label, NAME_CHARACTERS), "name", "end")
        _whisker(drawing, scale(100 * entry.low), scale(100 * entry.high), y, "q-line", tip)
        drawing.circle(scale(100 * entry.variant), y, 4.5, "q", tip)
        drawing.circle(scale(100 * entry.base), y, 4, "fp-ring", tip)
        drawing.text(width - 2, y + 4, f"{number(change, 1, signed=True)} pp", "value", "end")
    return drawing.render()


def worst_classes(rows: Sequence[ClassAccuracy]) -> list[ClassAccuracy]:
    """The classes that lost most first, as many as a chart holds."""
    return sorted(rows, key=lambda r: (r.variant - r.base, r.label))[:MAX_CLASSES]


def sensitivity_chart(sensitivity: SensitivityResult, titles: Mapping[str, str]) -> Markup | None:
    """KL divergence each layer causes alone, with 95 % intervals; None without layers.

    Args:
        sensitivity: What was analyzed.
        titles: What layers are called, by name.
    """
    layers = [replace(layer, name=titles.get(layer.name, layer.name)) for layer in sensitivity.layers]
    if not layers:
        return None
    order = sorted(layers, key=lambda layer: -layer.kl)
    spoken = "; ".join(f"{layer.name} {significant(layer.kl, 2)}" for layer in order[:5])
    has_names = len(layers) <= MAX_NAMED_BARS
    height = 276.0 if has_names else 230.0
    drawing = Drawing(FULL_WIDTH, height, f"Sensitivity by layer, largest first: {spoken}")
    floor = 190.0
    ends = [layer.kl_high if math.isfinite(layer.kl_high) else layer.kl for layer in layers]
    y = Scale(0.0, max(*ends, 1e-12) * 1.05, floor, 10)
    vertical_axis(drawing, y, 70, FULL_WIDTH - 6)
    slot = (FULL_WIDTH - 76) / len(layers)
    width = min(max(slot * 0.7, 1), 26)
    loud = order[max(len(order) // 5, 1) - 1].kl
    for index, layer in enumerate(layers):
        centre = 70 + slot * (index + 0.5)
        top = y(layer.kl)
        reach = f"{significant(layer.kl_low)} to {significant(layer.kl_high)}"
        tip = f"{layer.name}: KL {significant(layer.kl)} ({reach})"
        drawing.rect(
            centre - width / 2, top, width, floor - top, "loud" if layer.kl >= loud else "fp", tip, 1
        )
        if math.isfinite(layer.kl_low) and math.isfinite(layer.kl_high):
            drawing.line(centre, y(layer.kl_low), centre, y(layer.kl_high), "whisker", tip)
        if has_names:
            drawing.slanted_text(centre + 4, floor + 12, shortened(layer.name, 18))
    if not has_names:
        drawing.text(FULL_WIDTH / 2, floor + 28, "layer, in execution order", "axis", "middle")
    return drawing.render()


def _density(drawing: Drawing, scale: Scale, times: LatencyResult, floor: float, kind: str, tip: str) -> None:
    """The shape of the distribution, 24 pixels high, on the pixels of the axis."""
    pixels = np.array([scale(t) for t in times.samples_ms if t <= scale.high])
    grid, height = _smoothed(pixels, scale.start, scale.end)
    points = [(float(x), floor - 24 * float(h)) for x, h in zip(grid, height, strict=True) if h > 0.01]
    if len(points) > 1:
        drawing.area([(points[0][0], floor), *points, (points[-1][0], floor)], f"{kind}-soft", tip)


def _smoothed(
    pixels: NDArray[np.float64], start: float, end: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gaussian kernel density on every second pixel, its peak at 1 (bandwidth: Silverman's rule)."""
    grid = np.arange(start, end + 1, 2.0)
    spread = min(float(pixels.std()), float(np.subtract(*np.percentile(pixels, (75, 25)))) / 1.34)
    bandwidth = max(0.9 * spread * len(pixels) ** -0.2, 1.5)
    density = np.exp(-0.5 * ((grid[:, None] - pixels[None, :]) / bandwidth) ** 2).sum(axis=1)
    return grid, density / max(float(density.max()), 1e-12)


def _rows(
    count: int,
    heading: str,
    spoken: str,
    *,
    axis: bool = True,
    row_height: float = 30,
    width: float = HALF_WIDTH,
) -> Drawing:
    height = 12 + count * row_height + (44 if axis else 0)
    return Drawing(width, height, heading + spoken)


def _row_y(row: int, row_height: float = 30) -> float:
    return 8 + row_height * (row + 0.5)


def _whisker(drawing: Drawing, x1: float, x2: float, y: float, kind: str, tip: str) -> None:
    drawing.line(x1, y, x2, y, kind, tip)
    for x in (x1, x2):
        drawing.line(x, y - 4, x, y + 4, kind)
