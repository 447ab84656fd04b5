"""Drawing SVG: shapes, text and axes with nice ticks; colours come from the page's style sheet."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from markupsafe import Markup

from quantstudio.core.figures import number, significant


@dataclass(slots=True)
class Drawing:
    """An SVG image under construction. Text is escaped; classes are ours.

    Attributes:
        width: Width in pixels.
        height: Height in pixels.
        label: What a screen reader says, with the figures the image shows.
    """

    width: float
    height: float
    label: str
    _parts: list[str] = field(default_factory=list)

    def rect(
        self, x: float, y: float, width: float, height: float, kind: str, tip: str = "", radius: float = 2
    ) -> None:
        """A box; `tip` shows while the pointer is over it."""
        corner = f' rx="{_n(radius)}"' if radius else ""
        self._add(
            "rect",
            f'x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, 0))}" height="{_n(max(height, 0))}"{corner}',
            kind,
            tip,
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str, tip: str = "") -> None:
        """A straight line."""
        self._add("line", f'x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"', kind, tip)

    def circle(self, x: float, y: float, radius: float, kind: str, tip: str = "") -> None:
        """A dot."""
        self._add("circle", f'cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"', kind, tip)

    def area(self, points: list[tuple[float, float]], kind: str, tip: str = "") -> None:
        """A filled polygon."""
        text = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._add("polygon", f'points="{text}"', kind, tip)

    def text(self, x: float, y: float, text: str, kind: str = "axis", anchor: str = "start") -> None:
        """A line of text on the baseline y."""
        place = f'x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"'
        self._parts.append(f'<text {place} class="{kind}">{escape(text)}</text>')

    def slanted_text(self, x: float, y: float, text: str, kind: str = "axis") -> None:
        """Text that ends at (x, y), rising towards it: names below narrow bars."""
        place = f'transform="translate({_n(x)} {_n(y)}) rotate(-38)" text-anchor="end"'
        self._parts.append(f'<text {place} class="{kind}">{escape(text)}</text>')

    def render(self) -> Markup:
        """The whole image."""
        body = "".join(self._parts)
        size = f"{_n(self.width)} {_n(self.height)}"
        return Markup(
            f'<svg viewBox="0 0 {size}" role="img" aria-label="{escape(self.label)}" '
            f'style="max-width:{_n(self.width)}px">{body}</svg>'
        )

    def _add(self, name: str, attributes: str, kind: str, tip: str) -> None:
        inside = f"<title>{escape(tip)}</title>" if tip else ""
        self._parts.append(f'<{name} {attributes} class="{kind}">{inside}</{name}>')


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values onto pixels.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Pixel of `low`.
        end: Pixel of `high`.
        is_log: Whether equal ratios take equal room.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a value, never further out than the ends."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values between the ends."""
        return _log_ticks(self.low, self.high) if self.is_log else nice_ticks(self.low, self.high, count)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values from low to high."""
    raw = (high - low) / max(count, 1)
    if not raw > 0 or not math.isfinite(raw):
        return [low]
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next((m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw), 10 * magnitude)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def tick_texts(values: list[float]) -> list[str]:
    """Labels of ticks, all with the decimals their distance needs; powers of ten where that gets long."""
    steps = [abs(b - a) for a, b in pairwise(values)]
    step = min((s for s in steps if s > 0), default=abs(values[0]) if values and values[0] else 1.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(round(step, digits) - step) > 1e-6 * step:
        digits += 1  # a step of 2.5 needs one more
    if digits > 3 or max((abs(v) for v in values), default=0) >= 1e6:
        return [significant(v, 2) if abs(v) > step / 2 else "0" for v in values]
    return [number(v, digits) for v in values]


def horizontal_axis(drawing: Drawing, scale: Scale, top: float, bottom: float, title: str) -> None:
    """Vertical grid lines with their values below, and what they mean."""
    values = scale.ticks()
    texts = [f"{v:g}" for v in values] if scale.is_log else tick_texts(values)
    for value, text in zip(values, texts, strict=True):
        x = scale(value)
        drawing.line(x, top, x, bottom, "grid")
        drawing.text(x, bottom + 15, text, "axis", "middle")
    drawing.text((scale.start + scale.end) / 2, bottom + 33, title, "axis", "middle")


def vertical_axis(drawing: Drawing, scale: Scale, left: float, right: float) -> None:
    """Horizontal grid lines with their values on the left."""
    values = scale.ticks()
    for value, text in zip(values, tick_texts(values), strict=True):
        y = scale(value)
        drawing.line(left, y, right, y, "grid")
        drawing.text(left - 6, y + 4, text, "axis", "end")


def spread_labels(wanted: list[float], gap: float) -> list[float]:
    """Places near the wanted ones, in the same order, at least `gap` apart."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [wanted[i] for i in order]
    for _ in range(50):
        moved = False
        for i in range(len(placed) - 1):
            overlap = gap - (placed[i + 1] - placed[i])
            if overlap > 1e-6:
                placed[i] -= overlap / 2
                placed[i + 1] += overlap / 2
                moved = True
        if not moved:
            break
    found = [0.0] * len(wanted)
    for place, i in zip(placed, order, strict=True):
        found[i] = place
    return found


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters; the middle goes, since names differ at both ends."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[-(limit - 1 - head) :]}"


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    return [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
