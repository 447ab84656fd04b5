"""How a training goes: told while it runs, and kept with what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantstudio.core.codec import CodecError, from_json

# Where the details of a step hold its curve, see `training_curve`.
CURVE = "curve"


@dataclass(frozen=True, slots=True)
class TrainingPoint:
    """Where a training stands at one of its looks at the samples that are kept out of it.

    Attributes:
        done: Steps that are done.
        steps: Steps in all.
        epochs: Epochs that are done.
        loss: Mean loss of the steps since the last look; None before the first step.
        held_loss: Loss on the samples kept out.
        right: Share of them answered right: as the labels say, or as the original network does without
            labels; None where answers are no classes.
        float_right: The same of the original network; None where there is none to compare, and 1 without
            labels.
        is_best: Whether no state before was better.
        is_labelled: Whether labels say what is right, and not the original network.
        step: Which of the steps of the recipe that are run, from 0; whoever runs them fills it in.
    """

    done: int
    steps: int
    epochs: float
    loss: float | None
    held_loss: float
    right: float | None
    float_right: float | None
    is_best: bool
    is_labelled: bool = True
    step: int = 0


def training_curve(details: Mapping[str, Any]) -> tuple[TrainingPoint, ...]:
    """How the training of a step that is done went, from its details; empty where it does not say."""
    try:
        return tuple(from_json(TrainingPoint, row) for row in details.get(CURVE, ()))
    except (CodecError, TypeError):  # details are free: a plug-in may mean something else by the word
        return ()
