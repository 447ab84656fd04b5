"""What a step won back, layer by layer: told while it runs, and kept with what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantstudio.core.codec import CodecError, from_json

# Where the details of a step hold its layers, see `recovered_layers`.
RECOVERED = "recovered"


@dataclass(frozen=True, slots=True)
class LayerRecovered:
    """Error of one layer before and behind a step: a share, 0.1 for 10 %, on the same samples; less is best.

    Attributes:
        layer: Layer.
        before: Without the step.
        after: With it; None where that was not measured.
        measure: What it is a share of, for a person: "error of the output, of its spread".
        step: Which of the steps that are run, from 0; whoever runs them fills it in.
    """

    layer: str
    before: float
    after: float | None
    measure: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class StepBegun:
    """A step is about to be run, or to be taken from what was run before; or all are done.

    Attributes:
        step: Which of the steps that are run, from 0; their number when all are done.
        name: Its name; empty when all are done.
    """

    step: int
    name: str


@dataclass(frozen=True, slots=True)
class StepTried:
    """A further step was tried behind those that were kept.

    Attributes:
        name: Its name; empty for the recipe as it was.
        before: What is lost without it, a share; of the recipe as it was the same as `after`.
        after: What is lost with it; None where the step does not fit this network.
        measure: What they are a share of, for a person: "answers unlike FP32's, 512 calibration samples".
        is_kept: Whether it stays in the recipe.
    """

    name: str
    before: float
    after: float | None
    measure: str
    is_kept: bool


def recovered_layers(details: Mapping[str, Any]) -> tuple[LayerRecovered, ...]:
    """What a step that is done won back, from its details; empty where it does not say."""
    try:
        return tuple(from_json(LayerRecovered, row) for row in details.get(RECOVERED, ()))
    except (CodecError, TypeError):  # details are free: a plug-in may mean something else by the word
        return ()
