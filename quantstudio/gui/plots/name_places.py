"""Where names beside dots can stand without covering dots, lines or each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pyqtgraph as pg

GAP_PX = 3
STEP_PX = 6
LINES_AWAY = 2  # a name further off is nobody's: the tip of the dot has it


def pixel_size(view: pg.ViewBox) -> tuple[float, float]:
    """Width and height of a pixel in plot coordinates.

    While a new range is told, `view.viewPixelSize()` still holds that of the range before.
    """
    (left, right), (bottom, top) = view.viewRange()
    return (right - left) / max(view.width(), 1.0), (top - bottom) / max(view.height(), 1.0)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether the two have room in common."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def holds(self, other: Box) -> bool:
        """Whether the other lies inside."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.bottom <= other.bottom
            and other.top <= self.top
        )


class NamePlaces:
    """Room of a plot in pixels: what is taken, and where a name still fits.

    Args:
        view: The plot's view; places are worked out from its range as it is now.
    """

    def __init__(self, view: pg.ViewBox) -> None:
        (self._left, right), (self._bottom, top) = view.viewRange()
        self._px, self._py = pixel_size(view)
        self._whole = Box(0, 0, (right - self._left) / self._px, (top - self._bottom) / self._py)
        self._taken: list[Box] = []
        self._thin: list[Box] = []

    def _pixels(self, x: float, y: float) -> tuple[float, float]:
        return (x - self._left) / self._px, (y - self._bottom) / self._py

    def block(self, x: float, y: float, radius: float) -> None:
        """Keep names off a dot; `x` and `y` in plot coordinates, its radius in pixels."""
        across, up = self._pixels(x, y)
        self._taken.append(Box(across - radius, up - radius, across + radius, up + radius))

    def block_line(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Keep names off an upright or level line, such as an error bar, unless there is no other place."""
        (left, bottom), (right, top) = self._pixels(*start), self._pixels(*end)
        self._thin.append(Box(left - 1, bottom - 1, right + 1, top + 1))

    def block_curve(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        """Keep names off a line through these points, as off an error bar."""
        points = [self._pixels(x, y) for x, y in zip(xs, ys, strict=True)]
        for (x, y), (next_x, next_y) in pairwise(points):
            steps = max(1, min(200, round(max(abs(next_x - x), abs(next_y - y)) / STEP_PX)))
            for i in range(steps + 1):
                across, up = x + (next_x - x) * i / steps, y + (next_y - y) * i / steps
                self._thin.append(Box(across - 1, up - 1, across + 1, up + 1))

    def take(self, x: float, y: float, width: float, height: float, radius: float) -> Box | None:
        """Where a name of that size in pixels can stand beside a dot of that radius.

        Returns:
            The place in pixels, taken from now on; None where everything near is covered.
        """
        across, up = self._pixels(x, y)
        places = list(self._around(across, up, width, height, radius))
        for obstacles in (self._taken + self._thin, self._taken):
            for place in places:
                if self._whole.holds(place) and not any(place.meets(taken) for taken in obstacles):
                    self._taken.append(place)
                    return place
        return None

    def take_below(self, y: float, width: float, height: float) -> tuple[float, float]:
        """Where a text can stand below a level line: at the right, or as near to it as it covers nothing.

        Returns:
            Plot coordinates of its upper left corner; the text's room is taken from now on.
        """
        up = self._pixels(0.0, y)[1] - 2
        last = max(self._whole.right - width, 0.0)
        starts = [last - STEP_PX * i for i in range(int(last / STEP_PX) + 1)]
        boxes = [Box(start, up - height, start + width, up) for start in starts]
        free = (box for box in boxes if not any(box.meets(one) for one in self._taken + self._thin))
        found = next(free, boxes[0])
        self._taken.append(found)
        return self._left + found.left * self._px, y

    def _around(self, across: float, up: float, width: float, height: float, radius: float) -> Iterator[Box]:
        """Beside the dot, then above and below it, then a line further."""
        right, left = across + radius + GAP_PX, across - radius - GAP_PX - width
        is_late = across > self._whole.right / 2
        sides = (left, right) if is_late else (right, left)
        for start in sides:
            yield Box(start, up - height / 2, start + width, up + height / 2)
        for away in range(LINES_AWAY):
            for bottom in (up + radius + away * height, up - radius - (away + 1) * height):
                for start in (across - width / 2, *sides, across - radius, across + radius - width):
                    yield Box(start, bottom, start + width, bottom + height)

    def at(self, place: Box) -> tuple[float, float]:
        """Plot coordinates of the middle of a place's left edge."""
        return (
            self._left + place.left * self._px,
            self._bottom + (place.bottom + place.top) / 2 * self._py,
        )
