"""Figures as text for people: units, digits that mean something, a true minus sign."""

from __future__ import annotations

import math

from quantstudio.core.results import Interval

NOTHING = "—"
MINUS = "−"
THIN = "\u202f"  # narrow no-break space: a figure never parts from its unit
_UNITS = ("B", "kB", "MB", "GB", "TB")


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """Fixed decimals: "1 234.50", "−0.25", "+0.10" when signed."""
    if not math.isfinite(value):
        return NOTHING if math.isnan(value) else ("∞" if value > 0 else f"{MINUS}∞")
    rounded = round(value, digits) + 0.0
    text = f"{abs(rounded):,.{digits}f}".replace(",", THIN)
    if rounded < 0:
        return MINUS + text
    return f"+{text}" if signed and rounded > 0 else text


def significant(value: float, digits: int = 3) -> str:
    """A figure of any magnitude: "0.0312", "12.5", "1.2e−5"."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else number(value, 0)
    exponent = math.floor(math.log10(abs(value)))
    if -4 <= exponent < 6:
        return number(value, max(0, digits - 1 - exponent))
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa.replace('-', MINUS)}e{str(int(power)).replace('-', MINUS)}"


def size(value_bytes: float) -> str:
    """Decimal units, as file managers count: "245 kB", "24.9 MB"."""
    value, unit = float(value_bytes), 0
    while abs(value) >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{number(value, 0 if unit == 0 or abs(value) >= 99.95 else 1)}{THIN}{_UNITS[unit]}"


def milliseconds(value_ms: float) -> str:
    """A time in the unit that suits it: "84 µs", "6.9 ms", "1.24 s"."""
    if not math.isfinite(value_ms):
        return NOTHING
    if abs(value_ms) < 0.9995:
        return f"{number(value_ms * 1000, 1 if abs(value_ms) < 0.0995 else 0)}{THIN}µs"
    if abs(value_ms) < 999.5:
        return f"{number(value_ms, 2 if abs(value_ms) < 9.995 else 1)}{THIN}ms"
    return f"{number(value_ms / 1000, 2)}{THIN}s"


def percent(share: float, digits: int = 2) -> str:
    """A share from 0 to 1: "75.88 %"."""
    return f"{number(100 * share, digits)}{THIN}%" if math.isfinite(share) else NOTHING


def factor(value: float) -> str:
    """A ratio: "3.9×"."""
    return f"{number(value, 2 if abs(value) < 1.995 else 1)}×" if math.isfinite(value) else NOTHING


def interval(value: Interval, digits: int = 2, *, signed: bool = False) -> str:
    """Both ends: "0.10 to 0.42"."""
    low, high = (number(end, digits, signed=signed) for end in (value.low, value.high))
    return f"{low} to {high}"


def provider(name: str) -> str:
    """Short name of an execution provider: "CPU", "CUDA", "OpenVINO"."""
    return name.removesuffix("ExecutionProvider") or name
