"""Which units go: those that matter least for what they save, in steps that kernels like."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.channel_groups import ChannelGroup
from quantstudio.engine.compression.costs import Costs
from quantstudio.engine.compression.dependencies import Dependencies

FloatArray = NDArray[np.float64]
# A group of fewer channels than so many steps is rounded half as coarsely.
_SMALL = 3


@dataclass(frozen=True, slots=True)
class Rounding:
    """How many units may be left.

    Attributes:
        multiple: Channels are left in multiples of it, of half of it in small groups.
        least: Part of each group that stays.
        whole: Units each group had at first, where some may be gone already.
    """

    multiple: int = 8
    least: float = 0.125
    whole: Mapping[str, int] = field(default_factory=dict)

    def step(self, group: ChannelGroup) -> int:
        """Units that go together."""
        multiple = self.multiple
        if group.channels < _SMALL * multiple:
            multiple = max(1, multiple // 2)
        return multiple // gcd(multiple, group.width)

    def allowed(self, group: ChannelGroup) -> list[int]:
        """Numbers of units that may be left, all of them first."""
        step = self.step(group)
        lowest = max(1, ceil(self.least * self.whole.get(group.name, group.units)))
        return [group.units, *(n for n in range(group.units - 1, lowest - 1, -1) if n % step == 0)]


@dataclass(frozen=True, slots=True, eq=False)
class Allocation:
    """What is taken away.

    Attributes:
        gone: By group, which of its units go, shape [units].
        cost: What is left of the cost.
        is_reached: Whether that is within the budget.
    """

    gone: Mapping[str, NDArray[np.bool_]]
    cost: float
    is_reached: bool


class Allocator:
    """Allocations of one network.

    Args:
        found: Its groups.
        importance: By group, one a unit.
        costs: What is to be saved.
        rounding: How many units may be left.
        kept: Groups that are left whole.
    """

    def __init__(
        self,
        found: Dependencies,
        importance: Mapping[str, FloatArray],
        costs: Costs,
        rounding: Rounding,
        kept: Sequence[str] = (),
    ) -> None:
        self._groups = found.prunable
        self._costs = costs
        self._order = [np.argsort(importance[group.name], kind="stable") for group in self._groups]
        self._loss = [
            np.concatenate([[0.0], np.cumsum(importance[group.name][order])])
            for group, order in zip(self._groups, self._order, strict=True)
        ]
        self._allowed = [
            [group.units] if group.name in kept else rounding.allowed(group) for group in self._groups
        ]
        self._touched = costs.touched() if len(self._groups) else np.zeros((0, 0), dtype=bool)

    def least(self) -> float:
        """The smallest cost that can be reached."""
        return self._costs.after(
            np.array([g.units - a[-1] for g, a in zip(self._groups, self._allowed, strict=True)], float)
        )

    def within(self, budget: float) -> Allocation:
        """The units to take away so that the cost is within a budget, or as near as it can be.

        The step that loses least for what it saves is taken again and again; what turns out not to have been
        needed is put back.
        """
        places = [0] * len(self._groups)
        gone = np.zeros(len(self._groups))
        cost = self._costs.after(gone)
        current = [0] * len(self._groups)
        queue: list[tuple[float, int, int]] = []
        for number in range(len(self._groups)):
            self._push(queue, number, places, gone, cost, current)
        moves: list[int] = []
        while cost > budget and queue:
            _price, number, version = heapq.heappop(queue)
            if version != current[number]:
                continue
            places[number] += 1
            gone[number] = self._groups[number].units - self._allowed[number][places[number]]
            cost = self._costs.after(gone)
            moves.append(number)
            for other in np.flatnonzero(self._touched[number] | (np.arange(len(gone)) == number)).tolist():
                current[other] += 1
                self._push(queue, other, places, gone, cost, current)
        is_reached = cost <= budget
        if is_reached:
            cost = self._put_back(moves, places, gone, budget)
        return Allocation(self._masks(gone), cost, is_reached)

    def _push(
        self,
        queue: list[tuple[float, int, int]],
        number: int,
        places: list[int],
        gone: FloatArray,
        cost: float,
        current: list[int],
    ) -> None:
        """Put a group's next step into the queue, with what it loses for what it saves."""
        if places[number] + 1 >= len(self._allowed[number]):
            return
        units = self._groups[number].units
        after = gone.copy()
        after[number] = units - self._allowed[number][places[number] + 1]
        saved = cost - self._costs.after(after)
        lost = self._loss[number][int(after[number])] - self._loss[number][int(gone[number])]
        if saved > 0:
            heapq.heappush(queue, (lost / saved, number, current[number]))

    def _put_back(self, moves: Sequence[int], places: list[int], gone: FloatArray, budget: float) -> float:
        """Undo steps that turned out not to be needed, those that lost most first; the cost then."""
        while True:
            best, gain = -1, 0.0
            for number in set(moves):
                if places[number] == 0:
                    continue
                before = gone.copy()
                before[number] = self._groups[number].units - self._allowed[number][places[number] - 1]
                lost = self._loss[number][int(gone[number])] - self._loss[number][int(before[number])]
                if lost > gain and self._costs.after(before) <= budget:
                    best, gain = number, float(lost)
            if best < 0:
                return self._costs.after(gone)
            places[best] -= 1
            gone[best] = self._groups[best].units - self._allowed[best][places[best]]

    def _masks(self, gone: FloatArray) -> dict[str, NDArray[np.bool_]]:
        masks = {}
        for group, order, count in zip(self._groups, self._order, gone.astype(int).tolist(), strict=True):
            mask = np.zeros(group.units, dtype=bool)
            mask[order[:count]] = True
            if count:
                masks[group.name] = mask
        return masks
