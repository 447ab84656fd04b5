"""Recovering the plans of a search: which of them, by which step, and whether there is time for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from quantstudio.core import figures
from quantstudio.core.errors import RecipeError
from quantstudio.core.precision import LayerScheme, Precision
from quantstudio.core.search_results import Recover
from quantstudio.core.steps import Step

STEP = "gptq"
# Plans a search recovers: each takes far longer than one that is rounded, so one is proposed at a time.
MAX_RECOVERED = 4
# Passes of the float network over the samples that recovering one plan takes, and how long all may take.
_PASSES, _SECONDS = 150, 900.0


def recovery_steps(
    asked: Recover, known: Collection[str], own: Collection[str], pass_seconds: float
) -> tuple[tuple[Step, ...], str]:
    """The steps that plans of few bits are recovered by, and why there are none where that needs saying.

    Args:
        asked: What was asked for.
        known: Names of the steps there are.
        own: Names of the steps all plans have anyway.
        pass_seconds: What one run of the float network over the samples takes.

    Raises:
        RecipeError: a step was asked for that there is not.
    """
    if asked is Recover.NONE or STEP in own:
        return (), ""
    if STEP not in known:
        if asked is Recover.GPTQ:
            raise RecipeError(f"there is no step {STEP!r}", hint=f"Choose one of {', '.join(known)}")
        return (), ""
    seconds = MAX_RECOVERED * _PASSES * pass_seconds
    if asked is Recover.AUTO and seconds > _SECONDS:
        minutes = figures.number(seconds / 60, 0)
        return (), f"Plans are measured as they are rounded: recovering them would take {minutes} minutes."
    return (Step(STEP),), ""


def needs_recovery(schemes: Mapping[str, LayerScheme]) -> bool:
    """Whether a plan has weights that rounding by themselves harms: integers of fewer than 8 bits."""
    return any(one.weights.is_integer and one.weights.bits < Precision.INT8.bits for one in schemes.values())
