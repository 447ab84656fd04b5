"""Which layers are sensitive enough to colour: thresholds from the accuracy curve, or from the layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from quantstudio.core import figures
from quantstudio.core.results import AccuracyCurve, LayerSensitivity

BUDGET_POINTS = 0.1  # points of accuracy one layer may cost before it counts as sensitive
SHARE_BAD = 0.10  # of the sum over all layers, where no accuracy curve is known
WARN_PART = 0.4  # of the threshold

REFERENCE = "reference"
PRECISION_NAMES = {
    "int8": "INT8 weights",
    "int6": "INT6 weights",
    "int4": "INT4 weights",
    "int3": "INT3 weights",
    "int2": "INT2 weights",
    "binary": "binary weights",
    "int8-activations": "INT8 activations",
    "int4-activations": "INT4 activations",
}


@dataclass(frozen=True, slots=True)
class SensitivityScale:
    """From which KL on a layer is marked.

    Attributes:
        warn: Worth a look.
        bad: Sensitive.
        label: What `bad` stands for, for a person.
        largest: The most sensitive layer; a bar of it is full.
    """

    warn: float
    bad: float
    label: str
    largest: float = 0.0

    def level(self, kl: float) -> int:
        """0 harmless, 1 worth a look, 2 sensitive."""
        return 2 if kl > self.bad else 1 if kl > self.warn else 0


def scale_for(values: Iterable[float], curve: AccuracyCurve | None) -> SensitivityScale | None:
    """Thresholds for these KLs; None without any.

    With an accuracy curve, a layer is sensitive when quantizing it alone costs more than 0.1 points; without
    one, when it holds more than a tenth of the divergence of all layers together.
    """
    kls = np.asarray(list(values), dtype=np.float64)
    kls = kls[np.isfinite(kls)]
    if not len(kls):
        return None
    largest = float(kls.max())
    budget = None if curve is None else kl_of_drop(curve, BUDGET_POINTS)
    if budget is not None:
        label = f"{figures.number(BUDGET_POINTS, 1)}{figures.THIN_SPACE}pp"
        return SensitivityScale(budget * WARN_PART, budget, label, largest)
    bad = float(kls.sum()) * SHARE_BAD
    return SensitivityScale(bad * WARN_PART, bad, "10 % of the sum", largest)


def kl_of_drop(curve: AccuracyCurve, points: float) -> float | None:
    """The KL at which the curve has lost that many points; None where it never does."""
    accuracy = np.asarray(curve.accuracy)
    if len(accuracy) < 2:
        return None
    lost = (accuracy[0] - np.minimum.accumulate(accuracy)) * 100
    if lost[-1] < points:
        return None
    kl = float(np.interp(points, lost, np.asarray(curve.kl)))
    return kl if kl > 0 else None


@dataclass(frozen=True, slots=True)
class StripRow:
    """One bar of the strip: a layer's KL with its interval; None before it is known."""

    layer: str
    kl: float | None
    low: float = 0.0
    high: float = 0.0
    method: str = ""


def strip_row(layer: str, sensitivity: LayerSensitivity | None, precision: str) -> StripRow:
    """The bar of a layer at a precision; the interval scales with the value."""
    if sensitivity is None:
        return StripRow(layer, None)
    if precision == REFERENCE:
        return StripRow(layer, sensitivity.kl, sensitivity.kl_low, sensitivity.kl_high, sensitivity.method)
    kl = sensitivity.by_precision.get(precision)
    if kl is None:
        return StripRow(layer, None)
    ratio = kl / sensitivity.kl if sensitivity.kl > 0 else 0.0
    return StripRow(layer, kl, sensitivity.kl_low * ratio, sensitivity.kl_high * ratio, sensitivity.method)
