"""Recovering the plans of a search: which of them, by which step, and whether there is time for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from quantstudio.core import figures
from quantstudio.core.errors import RecipeError
from quantstudio.core.events import NULL_REPORTER, Reporter
from quantstudio.core.precision import LayerScheme, Precision
from quantstudio.core.search_results import Recover
from quantstudio.core.steps import Step

STEP = "gptq"
# Plans a search recovers: each takes far longer than one that is rounded, so one is proposed at a time.
MAX_RECOVERED = 4
# What recovering one plan takes: passes of the float network over the samples, and seconds that any network
# takes; how long all plans may take, and from when on that is said first.
_PASSES, _OVERHEAD, _SECONDS, _WORTH_SAYING = 60, 3.0, 900.0, 60.0


def recovery_steps(
    asked: Recover,
    known: Collection[str],
    own: Collection[str],
    pass_seconds: float,
    reporter: Reporter = NULL_REPORTER,
) -> tuple[tuple[Step, ...], str]:
    """The steps that plans of few bits are recovered by, and why there are none where that needs saying.

    Args:
        asked: What was asked for.
        known: Names of the steps there are.
        own: Names of the steps all plans have anyway.
        pass_seconds: What one run of the float network over the samples takes.
        reporter: Told how long plans will take, where that is long.

    Raises:
        RecipeError: a step was asked for that there is not.
    """
    if asked is Recover.NONE or STEP in own:
        return (), ""
    if STEP not in known:
        if asked is Recover.GPTQ:
            raise RecipeError(f"there is no step {STEP!r}", hint=f"Choose one of {', '.join(known)}")
        return (), ""
    each = _OVERHEAD + _PASSES * pass_seconds
    seconds = MAX_RECOVERED * each
    minutes = figures.counted(max(1, round(seconds / 60)), "minute")
    if asked is Recover.AUTO and seconds > _SECONDS:
        return (), f"Plans are measured as they are rounded: recovering them would take {minutes}."
    if seconds > _WORTH_SAYING:
        one = figures.number(each, 0)
        reporter.message(f"Recovering a plan takes some {one} s: {minutes} for {MAX_RECOVERED}, the most.")
    return (Step(STEP),), ""


def needs_recovery(schemes: Mapping[str, LayerScheme]) -> bool:
    """Whether a plan has weights that rounding by themselves harms: integers of fewer than 8 bits."""
    return any(one.weights.is_integer and one.weights.bits < Precision.INT8.bits for one in schemes.values())
