"""What measured plans say of one that is like them: the nearest ones, plus the predicted difference.

The error of a plan is a sum over its layers. Two plans that hold a layer on the same grid make the very same
error there, so their errors are alike by the part of them that comes from such layers; times are alike by the
part of the run that the same kernels take. How far off a prediction was for a measured plan then holds, by
that part, for its neighbour: the mean and the rest of a Gaussian process whose correlation is the likeness. A
plan equal to a measured one is predicted as it was measured; one that is like none, as if none were known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Marks = NDArray[np.int64]

# Part of what a prediction is off by that no other plan shares, however like it is.
OWN_PART = 0.2
# A prediction more deviations off than this says no more than that it was off.
FURTHEST = 6.0
# How many plans the deviations given count for, before the plans themselves say how true these are.
DOUBT_PLANS = 2.0
# Plans may be equal but for rounding.
_LEAST_NOISE, _SAME = 1e-5, 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What a plan consists of, so that it can be held against another.

    Attributes:
        marks: What every part is, as a number that is the same for the same thing, [parts].
        roots: Roots of how much each counts, length 1, [parts].
    """

    marks: Marks
    roots: Array


def trace(marks: Marks, weights: Array) -> Trace:
    """The trace of parts with these weights."""
    roots = np.sqrt(np.maximum(weights, 0.0)).ravel()
    return Trace(marks.ravel(), roots / max(float(np.linalg.norm(roots)), 1e-30))


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """Measured plans by which one figure is corrected.

    Attributes:
        marks: Of their traces, [plans, parts].
        roots: Of their traces, [plans, parts].
        own: Part that plans share only where they are the same.
        means: How many deviations each prediction was off, [plans].
        inverse: Of the matrix of their likeness and noise, [plans, plans].
        solved: That matrix times `means`, [plans].
        doubt: Factor on what is left of a deviation, 1 or more: how much farther than it said each of these
            plans lay from what the others say of it.
    """

    marks: Marks
    roots: Array
    own: float
    means: Array
    inverse: Array
    solved: Array
    doubt: float = 1.0

    def at(self, one: Trace) -> tuple[float, float]:
        """Deviations by which the prediction of a plan is to be moved, and the part left of its deviation."""
        alike = _covariance(self.marks, self.roots, one, self.own)
        left = 1.0 - float(alike @ self.inverse @ alike)
        same = int(np.argmax(alike))
        # What is the very same takes what was measured, noise and all; only neighbours are told less by it.
        move = self.means[same] if alike[same] > 1 - _SAME else alike @ self.solved
        return float(move), self.doubt * float(np.sqrt(np.clip(left, 0.0, 1.0)))


@dataclass(frozen=True, slots=True)
class Anchor:
    """A measured plan.

    Attributes:
        trace: What it consists of.
        off: Deviations by which its prediction was off.
        noise: Deviation of its measurement, in the same unit; 0 where it is taken as it stands.
    """

    trace: Trace
    off: float
    noise: float = 0.0


def anchors(plans: Sequence[Anchor], *, own: float = OWN_PART, furthest: float = FURTHEST) -> Anchors | None:
    """Measured plans by which others are corrected; None without any.

    Plans that are the same but for what the traces do not tell count once, by their mean. What was measured
    with noise moves its neighbours by so much less.
    """
    grouped: dict[bytes, list[Anchor]] = {}
    for one in plans:
        key = one.trace.marks.tobytes() + np.round(one.trace.roots, 6).tobytes()
        grouped.setdefault(key, []).append(one)
    if not grouped:
        return None
    traces = [found[0].trace for found in grouped.values()]
    weights = [
        np.asarray([max(one.noise, _LEAST_NOISE) ** -2 for one in found]) for found in grouped.values()
    ]
    means = np.asarray(
        [
            np.average([one.off for one in found], weights=own_weights)
            for found, own_weights in zip(grouped.values(), weights, strict=True)
        ]
    )
    means = np.clip(means, -furthest, furthest)
    marks, roots = np.stack([one.marks for one in traces]), np.stack([one.roots for one in traces])
    alike = np.stack([_covariance(marks, roots, one, own) for one in traces])
    noise = np.diag([1 / float(found.sum()) for found in weights])
    inverse = np.asarray(np.linalg.inv(alike + noise), dtype=np.float64)
    solved = inverse @ means
    # Each of them predicted from the others, in deviations of that.
    apart = np.square(solved) / np.diag(inverse)
    doubt = np.sqrt((DOUBT_PLANS + float(apart.sum())) / (DOUBT_PLANS + len(traces)))
    return Anchors(marks, roots, own, means, inverse, solved, max(float(doubt), 1.0))


def _covariance(marks: Marks, roots: Array, one: Trace, own: float) -> Array:
    """1 where all is the same, [plans]."""
    is_same = marks == one.marks
    shared = np.multiply(roots, is_same) @ one.roots
    return np.asarray((1 - own) * np.clip(shared, 0.0, 1.0) + own * is_same.all(axis=1))
