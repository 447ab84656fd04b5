"""Which channels stand or fall together: a union-find over numbers, one for every place along an axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
# Labels along one axis of a tensor; None for an axis nothing can be taken from.
Axis = Labels | None
Axes = tuple[Axis, ...]


class LabelSet:
    """Labels that are joined, and those that have to stay with the reason why.

    Attributes:
        count: Labels there are.
    """

    def __init__(self) -> None:
        self._parent = np.zeros(0, dtype=np.int64)
        self._reason = np.zeros(0, dtype=np.int64)
        self._reasons: list[str] = [""]
        self.count = 0

    def fresh(self, count: int) -> Labels:
        """New labels, each by itself."""
        start, end = self.count, self.count + count
        if end > len(self._parent):
            size = max(end, 2 * len(self._parent), 1024)
            self._parent = np.concatenate([self._parent, np.arange(len(self._parent), size)])
            self._reason = np.concatenate([self._reason, np.zeros(size - len(self._reason), np.int64)])
        self.count = end
        return np.arange(start, end, dtype=np.int64)

    def roots(self, labels: Labels) -> Labels:
        """The label each of them is known by: equal for labels that were joined."""
        found = self._parent[labels]
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                self._parent[labels] = found
                return found
            found = above

    def join(self, first: Labels, second: Labels) -> None:
        """Let labels at the same place stand or fall together."""
        if first is second:
            return
        a, b = self.roots(first), self.roots(second)
        for one, other in zip(a[a != b].tolist(), b[a != b].tolist(), strict=True):
            self._join(one, other)

    def join_all(self, rows: Labels) -> None:
        """Let all labels of one row stand or fall together.

        Args:
            rows: Shape [rows, labels].
        """
        for place in range(1, rows.shape[1]):
            self.join(rows[:, 0], rows[:, place])

    def _join(self, one: int, other: int) -> None:
        a, b = self._root(one), self._root(other)
        if a == b:
            return
        low, high = min(a, b), max(a, b)
        self._parent[high] = low
        if not self._reason[low]:
            self._reason[low] = self._reason[high]

    def _root(self, label: int) -> int:
        while self._parent[label] != label:
            label = int(self._parent[label])
        return label

    def keep(self, labels: Axis, reason: str) -> None:
        """Never take these away; the first reason given is the one that is told."""
        if labels is None or not len(labels):
            return
        roots = self.roots(labels)
        if reason not in self._reasons:
            self._reasons.append(reason)
        free = roots[self._reason[roots] == 0]
        self._reason[free] = self._reasons.index(reason)

    def is_kept(self, labels: Labels) -> NDArray[np.bool_]:
        """Which of them have to stay."""
        kept: NDArray[np.bool_] = self._reason[self.roots(labels)] != 0
        return kept

    def reason(self, label: int) -> str:
        """Why it has to stay; empty where it can go."""
        return self._reasons[int(self._reason[self._root(label)])]
