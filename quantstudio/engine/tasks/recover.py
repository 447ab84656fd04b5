"""The steps there are, for whoever offers them without importing the engine."""

from __future__ import annotations

from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.steps import StepList
from quantstudio.engine.pipeline.discovery import step_infos


def steps(*, reporter: Reporter = NULL_REPORTER, cancel: CancelToken | None = None) -> StepList:
    """Every step a recipe may hold, those of installed packages included."""
    del reporter
    (cancel or never_cancelled()).raise_if_set()
    return StepList(step_infos())
