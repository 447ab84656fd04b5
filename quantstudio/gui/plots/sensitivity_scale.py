"""Which layers are marked: those that take much of what the plan loses, and those that break its budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from quantstudio.core import figures
from quantstudio.core.precision import (
    BLOCK_SIZE,
    Container,
    Precision,
    activation_formats,
    keyed_formats,
    weight_formats,
)
from quantstudio.core.predict.losses import NOTED_SHARE, PlanLosses
from quantstudio.core.results import LayerSensitivity
from quantstudio.core.sensitivity_rows import EXACT, measured_precisions

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
    return (*(f"{row.name}/tensor" for row in usual), *(f"{row.name}/group{BLOCK_SIZE}" for row in grouped))


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
    """How layers are marked: by what they take of what the plan is predicted to lose.

    Attributes:
        losses: Of the plan; None before it can be predicted, and then by shares of the sum.
        shares: Part of the sum of all KLs by layer, for that case.
        largest: KL of the most sensitive layer; a bar of it is full.
    """

    losses: PlanLosses | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    largest: float = 0.0

    def level(self, layer: str) -> int:
        """0 harmless, 1 takes a tenth of the loss or more, 2 breaks the budget of the plan."""
        if self.losses is not None:
            return self.losses.level(layer)
        return 1 if self.shares.get(layer, 0.0) >= NOTED_SHARE else 0

    @property
    def breaking(self) -> int:
        """Layers that break the budget of the plan."""
        return len(self.losses.breaking) if self.losses is not None else 0

    @property
    def entries(self) -> tuple[tuple[str, int], ...]:
        """What the levels stand for, with the level, for a legend."""
        part = f"\u2265{figures.THIN_SPACE}{figures.percent(NOTED_SHARE, 0)}"
        if self.losses is None:
            return ((f"{part} of the sum", 1),)
        noted = (f"{part} of the loss", 1)
        if not self.breaking:
            return (noted,)
        return ((f"breaks {figures.number(self.losses.budget, 1)}{figures.THIN_SPACE}pp", 2), noted)

    def words(self, layer: str) -> str:
        """What a layer takes of the loss of the plan, in a line; empty where nobody knows."""
        if self.losses is None:
            return ""
        points = figures.significant(self.losses.points(layer), 2)
        total = figures.significant(self.losses.total, 2)
        return f"{points} of the {total} pp the plan is predicted to lose"


def scale_for(kls: Mapping[str, float], losses: PlanLosses | None) -> SensitivityScale | None:
    """How these layers are marked; None without any.

    Args:
        kls: KL by layer.
        losses: Of the plan; None before it can be predicted.
    """
    known = {layer: kl for layer, kl in kls.items() if math.isfinite(kl)}
    if not known:
        return None
    whole = sum(known.values())
    shares = {layer: kl / whole for layer, kl in known.items()} if whole > 0 else {}
    return SensitivityScale(losses, shares, max(known.values()))


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
        label: What it is called, where that is not its name.
    """

    layer: str
    kl: float | None
    low: float = 0.0
    high: float = 0.0
    method: str = ""
    note: str = ""
    label: str = ""

    @property
    def title(self) -> str:
        """What people call the layer."""
        return self.label or self.layer


def strip_row(
    layer: str,
    sensitivity: LayerSensitivity | None,
    precision: str,
    kl_all: float | None = None,
    label: str = "",
) -> StripRow:
    """The bar of a layer at a precision.

    Args:
        layer: Name.
        sensitivity: What is known of it.
        precision: At which precision it is drawn.
        kl_all: The KL with every layer quantized, where known.
        label: What the layer is called, where that is not its name.
    """
    row = _bar(layer, sensitivity, precision, kl_all)
    return replace(row, label=label) if label else row


def _bar(layer: str, sensitivity: LayerSensitivity | None, precision: str, kl_all: float | None) -> StripRow:
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
