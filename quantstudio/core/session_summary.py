"""What a list of sessions says about one without opening it: its best-known figures and a small picture."""

from __future__ import annotations

from dataclasses import dataclass

from quantstudio.core.record import Record
from quantstudio.core.results import Headline

BARS_KEPT = 48


@dataclass(frozen=True, slots=True)
class MeasuredDot:
    """A measured variant as one point of a small trade-off picture.

    Attributes:
        size_share: Bytes of its file over those of FP32; 1 for FP32.
        value: The metric, on its own scale.
    """

    size_share: float
    value: float


@dataclass(frozen=True, slots=True)
class ShownVariant:
    """The variant a session is known by: what its plan gave, else what was measured last.

    Attributes:
        name: The variant's.
        metric: What `value` is: "top1", "agreement", ...; empty where nothing could be judged.
        value: Of the variant, on the scale of the metric; None where nothing could be judged.
        size_share: Bytes of its file over those of FP32.
        speedup: FP32 time over its time; None where it was not timed.
        headline: The one figure of the task; None in older projects.
    """

    name: str
    metric: str
    value: float | None
    size_share: float
    speedup: float | None = None
    headline: Headline | None = None


@dataclass(frozen=True, slots=True)
class SessionSummary(Record):
    """Everything measured that a card of the start page shows.

    Attributes:
        layers: Number of layers of the model.
        model_bytes: Size of the model's file.
        variants: Variants that were built.
        shown: The variant it is known by; None before anything was measured.
        sensitivity: KL divergence (nats) by layer in their order; where there are more than `BARS_KEPT`
            layers, the largest of each stretch. Empty before the analysis.
        dots: Every measured variant, FP32 first.
    """

    layers: int
    model_bytes: int
    variants: int = 0
    shown: ShownVariant | None = None
    sensitivity: tuple[float, ...] = ()
    dots: tuple[MeasuredDot, ...] = ()
