"""What came of the steps that were tried of themselves: rows for the plot, and a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from quantstudio.core import figures
from quantstudio.core.recovered import LayerRecovered
from quantstudio.core.steps import StepInfo
from quantstudio.workspace.names import step_labels
from quantstudio.workspace.runs.improvement import Trial

KEPT = "✓"


def trial_rows(trial: Trial) -> tuple[LayerRecovered, ...]:
    """A row for each step that was tried: what was lost without it, and with it."""
    return tuple(LayerRecovered(one.name, one.before, one.after, one.measure) for one in trial.tried[1:])


def trial_labels(trial: Trial) -> list[str]:
    """Names of those rows, as short as a command line has them; what stays in the recipe is marked."""
    return [f"{KEPT} {one.name}" if one.is_kept else one.name for one in trial.tried[1:]]


def trial_sentence(trial: Trial, known: Sequence[StepInfo]) -> tuple[str, ...]:
    """How it ended, then in fewer words; empty before its end."""
    if not trial.is_over:
        return ()
    kept = step_labels([one.name for one in trial.tried[1:] if one.is_kept], known)
    tried = figures.counted(len(trial.tried) - 1, "step")
    given = f"{figures.number(trial.seconds, 0)} s"
    more = f"; {trial.untried} more had no time in {given}" if trial.untried > 0 else ""
    if trial.has_all:
        more = "; every answer is FP32's now"
    if kept:
        short = f"Kept {len(kept)} of {tried} tried"
        return f"Tried {tried} and kept {', '.join(kept)}{more}", f"{short}{more}", short
    if trial.has_all:
        return ("Every answer is FP32's already: nothing is left to win", "Nothing is left to win")
    if len(trial.tried) == 1:
        return (f"No step was through within {given}: give it more time", "Give it more time")
    return f"None of {tried} tried measures better{more}", f"None of {tried} measures better"
