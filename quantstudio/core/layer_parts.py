"""Names of layers that a step has made of another: a rule that names the whole speaks about its parts."""

from __future__ import annotations

from collections.abc import Iterable

_MARK = "::factor"


def part_name(whole: str) -> str:
    """Name of the part that comes in front of the one which keeps the name of the whole."""
    return f"{whole}{_MARK}"


def whole_name(name: str) -> str:
    """The layer a part was made of: "conv1" for "conv1::factor"; the name itself for any other layer."""
    at = name.find(_MARK)
    return name[:at] if at > 0 else name


def parts_by_whole(names: Iterable[str]) -> dict[str, list[str]]:
    """Parts of every layer that has any, in order."""
    found: dict[str, list[str]] = {}
    for name in names:
        if _MARK in name and whole_name(name) != name:
            found.setdefault(whole_name(name), []).append(name)
    return found
