"""What a KL means in points of accuracy, learned from the plans that were measured.

A few hundred samples count an accuracy drop in steps of a fifth of a point and by luck of the draw; the share
of changed predictions and the KL are known far better. Over mixed-precision plans of three small networks
(KL 1e-4 to 0.1 nats, 10,000 images) the changed share is close to a constant times the square root of the KL,
and the drop 0.2 of the changed share (0.02 to 0.33): most flips are between classes the network was unsure
about, where the old answer was wrong nearly as often as the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantstudio.core.prediction import accuracy_at
from quantstudio.core.results import AccuracyCurve, Interval
from quantstudio.engine.search.measure import Measurement

# Points lost for a point of changed predictions: expected, what a search keeps clear of without test data,
# and where it starts looking when test data has the last word.
EXPECTED_LOSS, SAFE_LOSS, BOLD_LOSS = 0.2, 0.3, 0.15
# Changed share at 1 nat by the square root law, and how much it weighs, in roots of nats.
_USUAL_CHANGES, _WEIGHT = 0.22, 0.1
# Beyond this divergence (nats) a network is ruined and the law ends.
_LARGEST_KL = 0.3


@dataclass(frozen=True, slots=True)
class DropModel:
    """Accuracy against KL for one network.

    Attributes:
        curve: From noise on the logits; None where outputs are no classes of one sample.
        changes: Share of predictions changed at 1 nat, by the square root law.
        labelled: Whether drops are of top-1; otherwise every changed prediction is a point lost.
    """

    curve: AccuracyCurve | None
    changes: float = _USUAL_CHANGES
    labelled: bool = True

    def drop(self, kl: float, loss: float = EXPECTED_LOSS) -> float:
        """Points lost at a KL, for a loss per changed prediction."""
        share = self.changes * float(np.sqrt(max(kl, 0.0)))
        points = 100 * share * (loss if self.labelled else 1.0)
        return max(points, self._curve_drop(kl))

    def cap(self, drop: float, loss: float) -> float:
        """The largest KL at which no more points than these are lost."""
        low, high = 0.0, 10.0
        if self.drop(high, loss) <= drop:
            return high
        for _ in range(60):  # bisection to the last bit: the drop rises with KL
            middle = (low + high) / 2
            low, high = (middle, high) if self.drop(middle, loss) <= drop else (low, middle)
        return low

    def metric(self, kl: float) -> Interval | None:
        """Expected accuracy with its interval, 0 to 1; None without a curve."""
        if self.curve is None:
            return None
        read = accuracy_at(self.curve, kl)
        value = max(self.curve.accuracy[0] - self.drop(kl) / 100, 0.0)
        return Interval(value, min(read.low, value), max(read.high, value))

    def _curve_drop(self, kl: float) -> float:
        if self.curve is None:
            return 0.0
        return 100 * (self.curve.accuracy[0] - accuracy_at(self.curve, kl).value)


def fitted_drops(curve: AccuracyCurve | None, plans: Sequence[Measurement], *, labelled: bool) -> DropModel:
    """The model that fits the changed predictions of measured plans."""
    used = [(one.changed, one.kl) for one in plans if one.changed is not None and 0 < one.kl <= _LARGEST_KL]
    changed = sum(share for share, _ in used)
    roots = float(sum(np.sqrt(kl) for _, kl in used))
    return DropModel(curve, (changed + _USUAL_CHANGES * _WEIGHT) / (roots + _WEIGHT), labelled)
