"""Long layer names in a narrow column: what all of them share says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

LONG = 32  # characters; shorter names fit as they are
SEPARATOR = "/"


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without the path parts that all of them begin or end with.

    Args:
        names: Layer names, parts between slashes.

    Returns:
        Short name by name, "…" standing for what was left out; empty where names are short or share nothing.
    """
    if len(names) < 2 or max(map(len, names)) <= LONG:
        return {}
    parts = [name.split(SEPARATOR) for name in names]
    room = min(map(len, parts)) - 1  # something of every name stays
    first = _shared(parts, room)
    last = _shared([part[::-1] for part in parts], room - first)
    if not first and not last:
        return {}
    return {
        name: SEPARATOR.join([*["…"][: bool(first)], *part[first : len(part) - last], *["…"][: bool(last)]])
        for name, part in zip(names, parts, strict=True)
    }


def _shared(parts: Sequence[Sequence[str]], room: int) -> int:
    """How many parts all begin with, `room` at most."""
    columns = list(zip(*parts, strict=False))[:room]
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
