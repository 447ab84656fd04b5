"""Where names beside dots can stand without running into each other."""

from __future__ import annotations

from collections.abc import Iterable

import pyqtgraph as pg


def pixel_size(view: pg.ViewBox) -> tuple[float, float]:
    """Width and height of a pixel in plot coordinates.

    While a new range is told, `view.viewPixelSize()` still holds that of the range before.
    """
    (left, right), (bottom, top) = view.viewRange()
    return (right - left) / max(view.width(), 1.0), (top - bottom) / max(view.height(), 1.0)


class NamePlaces:
    """Lines of text that stand already, in plot coordinates; `line` is the height of one."""

    def __init__(self, line: float) -> None:
        self._line = line
        self._taken: list[tuple[float, float, float]] = []

    def take(self, start: float, end: float, heights: Iterable[float]) -> float | None:
        """The first of these heights (of the middle of the text) where it is free from `start` to `end`.

        Returns:
            The height, taken from now on; None where none is free.
        """
        for height in heights:
            if not any(
                own < end and start < other and abs(at - height) < self._line
                for own, other, at in self._taken
            ):
                self._taken.append((start, end, height))
                return height
        return None
