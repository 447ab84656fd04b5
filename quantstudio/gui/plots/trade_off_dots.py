"""Dots of the trade-off: what each stands for, and how that looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from quantstudio.core.results import Interval
from quantstudio.gui.theme import Theme

DOT_PX = 11
FRONT_PX = 8
CHOSEN_PX = 17
TRIED_PX = 10
STACK_PX = 8  # by which a dot is larger than the one that covers it
SAME_PLACE = 0.012  # of the range shown
# Points lost up to which dots are in the first view, whatever the variants lose.
MIN_SPAN = 1.5
# FP32 that costs this many times what the rest does is left to the line at its level.
FAR_BASE = 3.0
FRONT_SERIES = 2  # of the theme's series
CHOSEN_SERIES = 3


class DotRole(StrEnum):
    """What a dot stands for.

    VARIANT was built in this project. FRONT is a plan of a search that no other beats, CHOSEN the one it
    built, TRIED one it measured besides.
    """

    VARIANT = "variant"
    FRONT = "front"
    TRIED = "tried"
    CHOSEN = "chosen"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a budget allows: the largest cost and the least quality, None where there is no bound.

    Attributes:
        cost: In the unit of the horizontal axis.
        quality: In percent.
        cost_text: What stands at that line.
        quality_text: What stands at that line.
    """

    cost: float | None = None
    quality: float | None = None
    cost_text: str = ""
    quality_text: str = ""


@dataclass(frozen=True, slots=True)
class TradeOffPoint:
    """One dot.

    Attributes:
        key: Identity of the variant.
        name: Name for the screen.
        cost: Megabytes or milliseconds, with its interval.
        quality: Percent, with its interval.
        is_base: The FP32 model.
        is_current: Built from the recipe as it is now.
        is_predicted: Not measured; drawn hollow.
        detail: More lines for the tip.
        role: What it stands for.
        is_named: Whether its name stands beside it.
    """

    key: str
    name: str
    cost: Interval
    quality: Interval
    is_base: bool = False
    is_current: bool = False
    is_predicted: bool = False
    detail: str = ""
    role: DotRole = DotRole.VARIANT
    is_named: bool = True

    @property
    def can_load(self) -> bool:
        """Whether a click means something: plans of a search have recipes before they are measured."""
        return self.role is not DotRole.VARIANT or not self.is_predicted


def pareto_front(points: Sequence[TradeOffPoint]) -> tuple[TradeOffPoint, ...]:
    """The measured points no other beats in both cost and quality, by cost."""
    front: list[TradeOffPoint] = []
    best = -math.inf
    measured = (p for p in points if not p.is_predicted and p.role is DotRole.VARIANT)
    for point in sorted(measured, key=lambda p: (p.cost.value, -p.quality.value)):
        if point.quality.value > best:
            best = point.quality.value
            front.append(point)
    return tuple(front)


def stack_levels(points: Sequence[TradeOffPoint]) -> list[int]:
    """How many points listed before lie in the same place: a point under others is drawn as a ring."""
    if not points:
        return []
    width = (max(p.cost.value for p in points) - min(p.cost.value for p in points)) * SAME_PLACE
    height = (max(p.quality.high for p in points) - min(p.quality.low for p in points)) * SAME_PLACE
    levels: list[int] = []
    for i, point in enumerate(points):
        below = [
            levels[j]
            for j in range(i)
            if abs(points[j].cost.value - point.cost.value) <= width
            and abs(points[j].quality.value - point.quality.value) <= height
        ]
        levels.append(max(below) + 1 if below else 0)
    return levels


def worth_showing(points: Sequence[TradeOffPoint]) -> list[TradeOffPoint]:
    """Dots the first view shows: the far ends, a ruined network and FP32, would flatten a front."""
    if not any(p.role is DotRole.FRONT for p in points) or not any(p.is_base for p in points):
        return list(points)
    best = max(p.quality.value for p in points)
    losses = [best - p.quality.value for p in points if p.role in (DotRole.VARIANT, DotRole.CHOSEN)]
    span = max(MIN_SPAN, *losses) if losses else MIN_SPAN
    near = [p for p in points if best - p.quality.value <= span]
    costs = [p.cost.value for p in near if not p.is_base]
    return [p for p in near if not p.is_base or p.cost.value <= FAR_BASE * max(costs, default=p.cost.value)]


def dot_size(point: TradeOffPoint, level: int) -> int:
    """Edge of the dot in pixels; `level` says how many dots it lies under."""
    match point.role:
        case DotRole.FRONT:
            return FRONT_PX
        case DotRole.TRIED:
            return TRIED_PX
        case DotRole.CHOSEN:
            return CHOSEN_PX
        case _:
            return DOT_PX + STACK_PX * level


def dot_symbol(point: TradeOffPoint) -> str:
    """Shape of the dot."""
    match point.role:
        case DotRole.CHOSEN:
            return "star"
        case DotRole.TRIED:
            return "t1"
        case DotRole.FRONT:
            return "o"
        case _:
            return "d" if point.is_predicted else "s" if point.is_base else "o"


def _colour(point: TradeOffPoint, theme: Theme) -> str:
    match point.role:
        case DotRole.FRONT:
            return theme.series[FRONT_SERIES]
        case DotRole.CHOSEN:
            return theme.series[CHOSEN_SERIES]
        case DotRole.TRIED:
            return theme.faint
        case _:
            return theme.text if point.is_predicted else theme.fp if point.is_base else theme.q


def dot_fill(point: TradeOffPoint, theme: Theme) -> str:
    """Inside of the dot: nothing where the figure is not measured."""
    return theme.surface if point.is_predicted else _colour(point, theme)


def dot_edge(point: TradeOffPoint, theme: Theme) -> str:
    """Outline of the dot."""
    return _colour(point, theme) if point.is_predicted else theme.surface
