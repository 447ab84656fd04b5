"""A value with how sure it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval: 95 % where measured, 90 % where predicted.

    The interval holds its value: the ends of a bootstrap, which may leave it out, are widened to it.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.low > self.value:
            object.__setattr__(self, "low", self.value)
        if self.high < self.value:
            object.__setattr__(self, "high", self.value)
