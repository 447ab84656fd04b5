"""Which layers are sensitive enough to colour: thresholds from the accuracy curve, or from the layers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from quantstudio.core import figures
from quantstudio.core.precision import Container, Precision, activation_formats, keyed_formats, weight_formats
from quantstudio.core.predict.accuracy_law import accuracy_law
from quantstudio.core.results import AccuracyCurve, LayerSensitivity
from quantstudio.core.sensitivity_rows import EXACT, measured_precisions

BUDGET_POINTS = 0.1  # points of accuracy one layer may cost before it counts as sensitive
SHARE_BAD = 0.10  # of the sum over all layers, where no accuracy curve is known
WARN_PART = 0.4  # of the threshold
Z95 = 1.96  # standard errors either side that hold 95 % of a normal distribution
FISHER = "fisher"

REFERENCE = "reference"


def precision_names() -> tuple[str, ...]:
    """What layers can be analyzed at, most bits first, weights before activations."""
    weights = (row.name for row in weight_formats() if row != Precision.FP32)
    return (*weights, *(row.sensitivity_name for row in activation_formats() if row.is_static))


def granularity_names() -> tuple[str, ...]:
    """What else the engine knows, for who wants to compare scales."""
    usual = [row for row in keyed_formats() if row.is_integer]
    grouped = [row for row in usual if row.packed is Container.INT4]
    return (*(f"{row.name}/tensor" for row in usual), *(f"{row.name}/group32" for row in grouped))


def precision_text(name: str) -> str:
    """A precision of the sensitivity table for a person: "INT4 weights, groups of 32"."""
    parts, labels = [], {row.name: f"{row.label} weights" for row in weight_formats()}
    for part in name.split("+"):
        base, _, scale = part.partition("/")
        text = labels.get(base, base.replace("-", " ").replace("int", "INT"))
        if scale.startswith("group"):
            text += f", groups of {scale.removeprefix('group')}"
        elif scale:
            text += f", one scale per {scale}"
        parts.append(text)
    return ", ".join(parts)


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
    if curve is not None:
        law = accuracy_law(curve, base=curve.accuracy[0], samples=curve.samples, labelled=curve.labelled)
        budget = law.largest_kl(BUDGET_POINTS / 100)
        label = f"{figures.number(BUDGET_POINTS, 1)}{figures.THIN_SPACE}pp"
        return SensitivityScale(budget * WARN_PART, budget, label, largest)
    bad = float(kls.sum()) * SHARE_BAD
    return SensitivityScale(bad * WARN_PART, bad, "10 % of the sum", largest)


@dataclass(frozen=True, slots=True)
class StripRow:
    """One bar of the strip: a layer's KL with its 95 % interval; None before it is known.

    Attributes:
        layer: Name.
        kl: Mean KL, nats.
        low: Lower end of the interval.
        high: Upper end.
        method: "exact" (measured) or "fisher" (predicted); empty before it is known.
        note: What else is known of the layer, one line each.
    """

    layer: str
    kl: float | None
    low: float = 0.0
    high: float = 0.0
    method: str = ""
    note: str = ""


def strip_row(
    layer: str, sensitivity: LayerSensitivity | None, precision: str, kl_all: float | None = None
) -> StripRow:
    """The bar of a layer at a precision; `kl_all` is the KL with every layer quantized, where known."""
    if sensitivity is None:
        return StripRow(layer, None)
    note = direction_words(sensitivity, kl_all)
    if precision == REFERENCE:
        row = sensitivity
        return StripRow(layer, row.kl, row.kl_low, row.kl_high, row.method, note)
    kl = sensitivity.by_precision.get(precision)
    if kl is None:
        return StripRow(layer, None)
    low, high = _interval(sensitivity, precision, kl)
    method = EXACT if precision in measured_precisions(sensitivity) else FISHER
    return StripRow(layer, kl, low, high, method, note)


def _interval(sensitivity: LayerSensitivity, precision: str, kl: float) -> tuple[float, float]:
    error = sensitivity.error_by_precision.get(precision)
    if error is not None:
        return max(0.0, kl - Z95 * error), kl + Z95 * error
    # Projects of before errors were kept by precision: the interval of the headline, scaled.
    ratio = kl / sensitivity.kl if sensitivity.kl > 0 else 0.0
    return sensitivity.kl_low * ratio, sensitivity.kl_high * ratio


def direction_words(row: LayerSensitivity, kl_all: float | None) -> str:
    """Both directions and both errors of a layer in one line; empty where only the layer alone is known.

    "alone 0.012 nats · all but this 0.20 nats, 0.04 less than all · local 31 dB, accumulated 22 dB".
    """
    parts = []
    if row.kl_all_but is not None:
        less = ""
        if kl_all is not None:
            gain = kl_all - row.kl_all_but
            less = f", {figures.significant(abs(gain), 2)} {'less' if gain >= 0 else 'more'} than all"
        parts += [
            f"alone {figures.significant(row.kl, 2)} nats",
            f"all but this {figures.significant(row.kl_all_but, 2)} nats{less}",
        ]
    if row.accumulated_sqnr_db is not None:
        local = f"local {figures.decibels(row.sqnr_db)}, " if math.isfinite(row.sqnr_db) else ""
        parts.append(f"{local}accumulated {figures.decibels(row.accumulated_sqnr_db)}")
    return "  ·  ".join(parts)
