"""Figures that were read, and what two of them may not say of the same thing.

A reading says of what a figure is (a variant, a plan, a layer), which one, what it says and how finely, and
where it stands. Two readings of one figure agree where they could be the same number, rounded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

_UNITS = {"B": 1.0, "kB": 1e3, "MB": 1e6, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_FIGURE = re.compile(r"([+−-]?)(\d[\d\u202f ]*)(?:\.(\d+))?\s*(kB|MB|B|µs|ms|s\b)?")
_EPS = 1e-9


@dataclass(frozen=True)
class Reading:
    """One figure in one place; `half` is half of its last digit."""

    of: str
    figure: str
    value: float
    half: float
    where: str

    def agrees(self, other: Reading) -> bool:
        near = self.half + other.half + _EPS * max(abs(self.value), abs(other.value), 1.0)
        return abs(self.value - other.value) <= near


def numbers(text: str) -> list[tuple[float, float]]:
    """The figures of a text in bytes, milliseconds or as they are, each with half of its last digit."""
    found = []
    for sign, whole, decimals, unit in _FIGURE.findall(text):
        factor = _UNITS.get(unit, 1.0)
        value = float(re.sub(r"\D", "", whole) + "." + (decimals or "0"))
        half = 0.5 * 10.0 ** -len(decimals)
        found.append(((-value if sign in ("−", "-") else value) * factor, half * factor))
    return found


class Readings:
    """What one look at a session found.

    Attributes:
        figures: Everything read.
        words: Names that must be one, by what they name: the metric, the precision of a layer.
    """

    def __init__(self) -> None:
        self.figures: list[Reading] = []
        self.words: dict[str, dict[str, str]] = defaultdict(dict)

    def text(self, of: str, figure: str, text: str, where: str, *, at: int = 0, sign: float = 1.0) -> None:
        found = numbers(text)
        if len(found) > at:
            value, half = found[at]
            self.figures.append(Reading(of, figure, sign * value, half, where))

    def exact(self, of: str, figure: str, value: float | None, where: str) -> None:
        if value is not None:
            self.figures.append(Reading(of, figure, float(value), 0.0, where))

    def word(self, of: str, text: str, where: str) -> None:
        self.words[of][where] = text

    def by_figure(self) -> dict[tuple[str, str], list[Reading]]:
        found: dict[tuple[str, str], list[Reading]] = defaultdict(list)
        for one in self.figures:
            found[one.of, one.figure].append(one)
        return found

    def disagreements(self) -> Iterator[str]:
        """Two places that say another thing of the same."""
        for (of, figure), readings in self.by_figure().items():
            for index, one in enumerate(readings):
                for other in readings[:index]:
                    if not one.agrees(other):
                        places = f"{other.value:g} in {other.where}, {one.value:g} in {one.where}"
                        yield f"{figure} of {of}: {places}"
        for of, said in self.words.items():
            if len(set(said.values())) > 1:
                yield f"{of}: {said}"

    def outside(self) -> Iterator[str]:
        """Values that their own interval does not hold."""
        known = self.by_figure()
        for (of, figure), readings in known.items():
            for end, sign in (("low", 1), ("high", -1)):
                for bound in known.get((of, f"{figure} {end}"), ()):
                    for one in readings:
                        if sign * (bound.value - one.value) > bound.half + one.half + _EPS:
                            yield f"{figure} of {of}: {one.value:g} ({one.where}), {end} end {bound.value:g}"

    def wrong_ratios(self, base: str) -> Iterator[str]:
        """Times that the ratio beside them contradicts."""
        known = self.by_figure()
        for (of, figure), ratios in known.items():
            if figure != "speed-up":
                continue
            for ratio in ratios:
                for mine in known.get((of, "latency"), ()):
                    for theirs in known.get((base, "latency"), ()):
                        low = (theirs.value - theirs.half) / (mine.value + mine.half)
                        high = (theirs.value + theirs.half) / (mine.value - mine.half)
                        if not low - ratio.half - _EPS <= ratio.value <= high + ratio.half + _EPS:
                            yield (
                                f"{of}: {theirs.value:g} ms ({theirs.where}) against {mine.value:g} ms "
                                f"({mine.where}) is not {ratio.value:g} times ({ratio.where})"
                            )
