"""Why the work of the page cannot be done now, in the words of a tool tip; empty where it can."""

from __future__ import annotations

from quantstudio.gui.facts.needs import needs_float_weights_and_data
from quantstudio.gui.session import Session
from quantstudio.workspace.runs.improvement import running_steps

UNDER_WAY = "It is under way"


def why_not_recover(session: Session) -> str:
    """Steps are tried: there must be some that are not in the recipe, and data to judge them on."""
    missing = needs_float_weights_and_data(session)
    workspace = session.workspace
    if missing or workspace.improvement.job is not None:
        return missing or UNDER_WAY
    has_some = bool(workspace.improvement.candidates) or not workspace.steps
    return "" if has_some else "The recipe has every step there is"


def why_not_measure(session: Session) -> str:
    """Each step is measured: one at least must be on."""
    missing = needs_float_weights_and_data(session)
    if missing or session.workspace.improvement.job is not None:
        return missing or UNDER_WAY
    return "" if running_steps(session.workspace.recipe) else "No step is switched on"
