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
        inverse: Of the matrix of their likeness, [plans, plans].
        solved: That matrix times how many deviations each prediction was off, [plans].
    """

    marks: Marks
    roots: Array
    own: float
    inverse: Array
    solved: Array

    def at(self, one: Trace) -> tuple[float, float]:
        """Deviations by which the prediction of a plan is to be moved, and the part left of its deviation."""
        alike = _covariance(self.marks, self.roots, one, self.own)
        left = 1.0 - float(alike @ self.inverse @ alike)
        return float(alike @ self.solved), float(np.sqrt(np.clip(left, 0.0, 1.0)))


def anchors(
    plans: Sequence[tuple[Trace, float]], *, own: float = OWN_PART, furthest: float = FURTHEST
) -> Anchors | None:
    """Measured plans with how many deviations each prediction was off; None without any.

    Plans that are the same but for what the traces do not tell count once, by their mean.
    """
    grouped: dict[bytes, tuple[Trace, list[float]]] = {}
    for one, off in plans:
        key = one.marks.tobytes() + np.round(one.roots, 6).tobytes()
        grouped.setdefault(key, (one, []))[1].append(off)
    if not grouped:
        return None
    traces = [one for one, _ in grouped.values()]
    means = np.asarray([np.mean(found) for _, found in grouped.values()], dtype=np.float64)
    means = np.clip(means, -furthest, furthest)
    marks, roots = np.stack([one.marks for one in traces]), np.stack([one.roots for one in traces])
    alike = np.stack([_covariance(marks, roots, one, own) for one in traces])
    # A little more on the diagonal: plans may be equal but for rounding.
    inverse = np.asarray(np.linalg.inv(alike + 1e-10 * np.eye(len(traces))), dtype=np.float64)
    return Anchors(marks, roots, own, inverse, inverse @ means)


def _covariance(marks: Marks, roots: Array, one: Trace, own: float) -> Array:
    """1 where all is the same, [plans]."""
    is_same = marks == one.marks
    shared = np.where(is_same, roots, 0.0) @ one.roots
    return np.asarray((1 - own) * np.clip(shared, 0.0, 1.0) + own * is_same.all(axis=1))
