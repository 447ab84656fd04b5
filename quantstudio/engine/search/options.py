"""Which options and plans a search need not look at: of a dozen formats a layer wants a few."""

from __future__ import annotations

from collections.abc import Sequence

from quantstudio.core.precision import Precision
from quantstudio.engine.search.allocation import Allocation, Option, Quantity

# What a plan is bounded by or made small in, KL apart.
_COSTS = (Quantity.FILE_BYTES, Quantity.AVERAGE_BITS, Quantity.LATENCY_RATIO, Quantity.SHARE_ABOVE_8)
_SIZES = (Quantity.FILE_BYTES, Quantity.AVERAGE_BITS)
# A plan of one format is not worth a run beside one that loses so much less in a file larger by so little.
_FAR_LESS, _HARDLY_LARGER = 0.5, 1.1


def worthwhile(options: Sequence[Option]) -> tuple[Option, ...]:
    """Options that a plan may want, in their order.

    Left out are those another one beats in everything, and of those that run alike (the formats of one
    container) what lies above the line between two others, in bytes and in bits: sums over many layers take
    the two instead. INT8 always stays.
    """
    left = [one for one in options if not any(_beats(other, one) for other in options if other is not one)]
    kept: set[int] = set()
    for key in {_kernel(one) for one in left}:
        alike = [one for one in left if _kernel(one) == key]
        for size in _SIZES:
            kept |= {id(one) for one in _hull(alike, size)}
    return tuple(one for one in options if id(one) in kept or one.scheme.weights == Precision.INT8)


def worth_a_run(plans: Sequence[Allocation]) -> tuple[Allocation, ...]:
    """Plans of single formats that say something another does not say better, in their order."""
    return tuple(
        plan
        for plan in plans
        if not any(_makes_idle(other, plan) for other in plans if other.choice != plan.choice)
    )


def _makes_idle(other: Allocation, plan: Allocation) -> bool:
    ours, theirs = plan.totals, other.totals
    return (
        theirs[Quantity.KL] < _FAR_LESS * ours[Quantity.KL]
        and theirs[Quantity.FILE_BYTES] <= _HARDLY_LARGER * ours[Quantity.FILE_BYTES]
        and theirs[Quantity.AVERAGE_BITS] <= ours[Quantity.AVERAGE_BITS]
    )


def _kernel(option: Option) -> tuple[object, ...]:
    latency = option.costs.get(Quantity.LATENCY_RATIO, 0.0)
    return option.scheme.activations, option.scheme.weights.is_integer, latency


def _beats(one: Option, other: Option) -> bool:
    """Whether an option is nowhere worse and somewhere better."""
    pairs = [(one.costs.get(q, 0.0), other.costs.get(q, 0.0)) for q in (*_COSTS, Quantity.KL)]
    return all(ours <= theirs for ours, theirs in pairs) and any(ours < theirs for ours, theirs in pairs)


def _hull(options: Sequence[Option], size: Quantity) -> list[Option]:
    """The lower convex line of KL over a size."""
    ordered = sorted(options, key=lambda one: (one.costs[size], one.costs[Quantity.KL]))
    line: list[Option] = []
    for one in ordered:
        if line and one.costs[Quantity.KL] >= line[-1].costs[Quantity.KL]:
            continue
        while len(line) > 1 and _is_above(line[-2], line[-1], one, size):
            line.pop()
        line.append(one)
    return line


def _is_above(left: Option, middle: Option, right: Option, size: Quantity) -> bool:
    """Whether the middle one lies on or above the line between the others."""
    width = right.costs[size] - left.costs[size]
    share = (middle.costs[size] - left.costs[size]) / width if width else 0.0
    line = left.costs[Quantity.KL] + share * (right.costs[Quantity.KL] - left.costs[Quantity.KL])
    return middle.costs[Quantity.KL] >= line
