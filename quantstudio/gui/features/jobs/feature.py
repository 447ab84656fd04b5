"""The jobs and the log, in the dock below."""

from __future__ import annotations

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Feature, Parts, Place, View
from quantstudio.gui.features.jobs.actions import commands
from quantstudio.gui.features.jobs.jobs_panel import JobsPanel
from quantstudio.gui.features.jobs.log_panel import LogPanel


def _build_jobs(context: Context, _parts: Parts) -> JobsPanel:
    return JobsPanel(context)


def _build_log(context: Context, _parts: Parts) -> LogPanel:
    return LogPanel(context.session)


FEATURE = Feature(
    views=(
        View("jobs", "Jobs", Place.BELOW, 20, _build_jobs),
        View("log", "Log", Place.BELOW, 30, _build_log),
    ),
    commands=commands,
)
