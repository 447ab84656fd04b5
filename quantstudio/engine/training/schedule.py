"""How a training goes along: steps, learning rate, looks at the samples that judge."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Part of the steps over which the rate grows, and the most of them.
_WARM_UP, _LONGEST_WARM_UP = 0.05, 200
_FEWEST_LOOKS, _LOOKS_AN_EPOCH = 6, 2


@dataclass(frozen=True, slots=True)
class Schedule:
    """The plan of a training.

    Attributes:
        steps: Steps in all.
        epochs: Epochs these are.
        stop: Steps behind which it ends all the same; 0 for none.
        patience: Epochs without a better state behind which it ends; 0 for none.
    """

    steps: int
    epochs: float
    stop: int = 0
    patience: float = 0.0

    @property
    def last(self) -> int:
        """The last step that may be done."""
        return min(self.steps, self.stop) if self.stop else self.steps

    @property
    def between_looks(self) -> int:
        """Steps from one look to the next."""
        looks = max(_FEWEST_LOOKS, round(_LOOKS_AN_EPOCH * self.epochs))
        return max(1, math.ceil(self.steps / looks))

    def epochs_of(self, step: int) -> float:
        """Epochs so many steps are."""
        return self.epochs * step / self.steps

    def share_of_rate(self, step: int) -> float:
        """Part of the learning rate for a step, counted from 1: it grows in a line, then falls to zero.

        Loshchilov & Hutter 2017, SGDR, arXiv:1608.03983, eq. 5, with a linear start.
        """
        start = min(_WARM_UP * self.steps, _LONGEST_WARM_UP)
        left = min(1.0, (self.steps - step + 1) / max(self.steps - start, 1.0))
        return min(1.0, step / max(start, 1.0)) * 0.5 * (1 - math.cos(math.pi * left))

    def is_stuck(self, step: int, best_step: int) -> bool:
        """Whether patience is at its end."""
        return self.patience > 0 and self.epochs_of(step - best_step) >= self.patience
