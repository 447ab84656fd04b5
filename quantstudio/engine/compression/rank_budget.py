"""Ranks of many layers within one budget: where a weight, or an operation, is missed least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantstudio.engine.compression.factors import Form


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing a layer can become.

    Attributes:
        form: How its factors lie; None for the layer as it is.
        rank: Channels between them; 0 for the layer as it is.
        parameters: Weights it then has.
        macs: Multiply-accumulates it then takes; 0 where nobody knows.
        error: What that costs, on one scale for all layers.
    """

    form: Form | None
    rank: int
    parameters: int
    macs: float
    error: float

    def cost(self, *, by_macs: bool) -> float:
        """What counts against the budget."""
        return self.macs if by_macs else self.parameters


def within_budget(
    choices: Mapping[str, Sequence[Choice]], budget: float, *, by_macs: bool
) -> dict[str, Choice]:
    """The choice of every layer with little error in all at no more than a budget.

    Each layer begins as it is best; whichever gives up most cost for least error goes on along the lower hull
    of its choices, until the budget is kept. What the last move saved beyond it is spent again where that
    helps most. (Everett 1963: such plans are the best ones at the cost they come to.)

    Args:
        choices: What every layer can become, among it the layer as it is.
        budget: Largest cost of all together.
        by_macs: Whether operations count, else weights.

    Raises:
        ValueError: the cheapest choices together cost more.
    """
    hulls = {name: _hull(of, by_macs=by_macs) for name, of in choices.items()}
    places = dict.fromkeys(hulls, 0)
    total = sum(hull[0].cost(by_macs=by_macs) for hull in hulls.values())
    while total > budget:
        moves = [
            (_slope(hulls[name][at], hulls[name][at + 1], by_macs=by_macs), name)
            for name, at in places.items()
            if at + 1 < len(hulls[name])
        ]
        if not moves:
            raise ValueError("the budget cannot be kept")
        _, name = min(moves)
        at = places[name]
        total -= hulls[name][at].cost(by_macs=by_macs) - hulls[name][at + 1].cost(by_macs=by_macs)
        places[name] = at + 1
    found = {name: hulls[name][at] for name, at in places.items()}
    return _spent(found, choices, budget - total, by_macs=by_macs)


def cheapest(choices: Mapping[str, Sequence[Choice]], *, by_macs: bool) -> float:
    """The least that all layers can cost together."""
    return sum(min(one.cost(by_macs=by_macs) for one in of) for of in choices.values())


def _spent(
    found: dict[str, Choice], choices: Mapping[str, Sequence[Choice]], left: float, *, by_macs: bool
) -> dict[str, Choice]:
    """The same with what is left of the budget put where it takes away most error."""
    while True:
        gains = [
            (now.error - one.error, name, one)
            for name, now in found.items()
            for one in choices[name]
            if one.error < now.error and one.cost(by_macs=by_macs) - now.cost(by_macs=by_macs) <= left
        ]
        if not gains:
            return found
        _, name, one = max(gains, key=lambda gain: (gain[0], gain[1]))
        left -= one.cost(by_macs=by_macs) - found[name].cost(by_macs=by_macs)
        found[name] = one


def _hull(choices: Sequence[Choice], *, by_macs: bool) -> list[Choice]:
    """Choices from the one that errs least to the cheapest; what a saving costs rises along them."""
    ordered = sorted(choices, key=lambda one: (one.error, one.cost(by_macs=by_macs)))
    hull: list[Choice] = []
    for one in ordered:
        if hull and one.cost(by_macs=by_macs) >= hull[-1].cost(by_macs=by_macs):
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1], by_macs=by_macs) >= _slope(
            hull[-1], one, by_macs=by_macs
        ):
            hull.pop()
        hull.append(one)
    return hull


def _slope(now: Choice, then: Choice, *, by_macs: bool) -> float:
    return (then.error - now.error) / (now.cost(by_macs=by_macs) - then.cost(by_macs=by_macs))
