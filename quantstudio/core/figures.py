"""Figures as text: units, digits, thin spaces and a true minus sign, the same on screen and in reports."""

from __future__ import annotations

import math
from collections.abc import Sequence

from quantstudio.core.results import Interval

THIN_SPACE = "\u202f"  # narrow and no-break: a figure never parts from its unit
MINUS = "\u2212"
TIMES = "\u00d7"
NOTHING = "\u2014"  # what stands where there is no figure

_SUPERSCRIPT = str.maketrans(
    "-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
)
_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")


def predicted(left_out: Sequence[str] = ()) -> str:
    """The tag of predicted figures in words, with the steps they do not know: "predicted without bias".

    Args:
        left_out: Names or labels of those steps.
    """
    return f"predicted without {', '.join(left_out)}" if left_out else "predicted"


def number(value: float, digits: int = 1, *, signed: bool = False) -> str:
    """A decimal with fixed digits: "1 234.5", "−0.25"; `signed` also writes the plus."""
    if not math.isfinite(value):
        return NOTHING if math.isnan(value) else ("∞" if value > 0 else f"{MINUS}∞")
    rounded = round(value, digits)
    text = f"{abs(rounded):,.{digits}f}".replace(",", THIN_SPACE)
    if rounded < 0:
        return MINUS + text
    return f"+{text}" if signed and rounded > 0 else text


def count(value: int) -> str:
    """A whole number with thin spaces between the thousands."""
    return number(value, 0)


def counted(value: int, noun: str) -> str:
    """A number of things: "1 layer", "23 layers"."""
    return f"{count(value)} {noun}" if value == 1 else f"{count(value)} {noun}s"


def compact_count(value: int) -> str:
    """A count in three figures: "842", "3.6 k", "25.6 M"."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{number(value / limit, 1)}{THIN_SPACE}{unit}"
    return count(value)


def significant(value: float, digits: int = 3) -> str:
    """A figure of any magnitude: "0.0312", "12.5", "1.20×10⁻⁵"."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else number(value)
    exponent = math.floor(math.log10(abs(value)))
    if -4 <= exponent < 6:
        return number(value, max(0, digits - 1 - exponent))
    mantissa = number(value / 10.0**exponent, digits - 1)
    return f"{mantissa}{TIMES}10{str(exponent).translate(_SUPERSCRIPT)}"


def size(size_bytes: float) -> str:
    """Bytes in decimal units, as files are counted: "24.9 MB"."""
    value, unit = float(size_bytes), 0
    while abs(value) >= 999.5 and unit < len(_BYTE_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    digits = 0 if unit == 0 or abs(value) >= 99.95 else 1
    return f"{number(value, digits)}{THIN_SPACE}{_BYTE_UNITS[unit]}"


def milliseconds(value_ms: float) -> str:
    """A time in the unit that suits it: "84.0 µs", "840 µs", "6.90 ms", "1.24 s"."""
    if not math.isfinite(value_ms):
        return NOTHING
    if abs(value_ms) < 0.9995:
        return f"{number(value_ms * 1000, 1 if abs(value_ms) < 0.0995 else 0)}{THIN_SPACE}µs"
    if abs(value_ms) < 999.5:
        return f"{number(value_ms, 2 if abs(value_ms) < 9.995 else 1)}{THIN_SPACE}ms"
    return f"{number(value_ms / 1000, 2)}{THIN_SPACE}s"


def percent(fraction: float, digits: int = 2) -> str:
    """A share from 0 to 1 as "75.88 %"."""
    return f"{number(fraction * 100, digits)}{THIN_SPACE}%" if math.isfinite(fraction) else NOTHING


def points(value: float, digits: int = 2) -> str:
    """A difference of percentages, with its sign: "−0.25 pp"."""
    return f"{number(value, digits, signed=True)}{THIN_SPACE}pp" if math.isfinite(value) else NOTHING


def below(fraction: float, digits: int = 1) -> str:
    """A share that is not reached: "< 71.3 %"."""
    return f"<{THIN_SPACE}{percent(fraction, digits)}" if math.isfinite(fraction) else NOTHING


def more_lost(value: float, digits: int = 1) -> str:
    """A loss of which only the least is known: "> 20.4 pp lost"."""
    if not math.isfinite(value):
        return NOTHING
    return f">{THIN_SPACE}{number(max(value, 0.0), digits)}{THIN_SPACE}pp lost"


def decibels(value_db: float) -> str:
    """A ratio in decibels: "37.6 dB"."""
    if math.isnan(value_db):
        return NOTHING
    return f"{number(value_db, 1)}{THIN_SPACE}dB"


def ratio(value: float) -> str:
    """A factor: "3.9×", and "1.28×" below two."""
    return f"{number(value, 2 if abs(value) < 1.995 else 1)}{TIMES}" if math.isfinite(value) else NOTHING


def interval(value: Interval, digits: int = 2, *, signed: bool = False) -> str:
    """Both ends: "0.10 to 0.42"."""
    low, high = (number(end, digits, signed=signed) for end in (value.low, value.high))
    return f"{low} to {high}"


def provider(name: str) -> str:
    """Short name of an execution provider: "CPU", "CUDA", "OpenVINO"."""
    return name.removesuffix("ExecutionProvider") or name
