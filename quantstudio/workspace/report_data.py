"""What a session or a project file knows, as a report takes it."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from quantstudio import __version__
from quantstudio.core.errors import MeasureError
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import CompareResult, SensitivityResult, VariantResult
from quantstudio.project.store import Project
from quantstudio.report.data import ReportData
from quantstudio.workspace.keeper import Keeper
from quantstudio.workspace.state import SessionState


def project_report(project: Project) -> ReportData:
    """Everything a project file knows, with the active plan's variant as the headline.

    Raises:
        MeasureError: the project has no model.
        ProjectError: a value in the file cannot be read.
    """
    return report_of(Keeper(project).load(), _active_recipe(project), _title(project))


def session_report(state: SessionState, project: Project) -> ReportData:
    """Everything known now, with the current variant as the headline.

    Raises:
        MeasureError: no model is open.
    """
    return report_of(state, _active_recipe(project), _title(project))


def report_of(state: SessionState, recipe: Recipe, title: str) -> ReportData:
    """A report of what is known of one model.

    Args:
        state: What is known.
        recipe: The active recipe.
        title: Heading; empty for the model's name.

    Raises:
        MeasureError: there is no model.
    """
    model = state.model
    if model is None:
        raise MeasureError("there is nothing to report", hint="Open a model first")
    variants = state.variants(recipe)
    current = next((v for v in reversed(variants) if v.is_current), None)
    return ReportData(
        title=title or Path(model.source_path).stem,
        created=time.strftime("%Y-%m-%d %H:%M"),
        model=model,
        version=__version__,
        data=state.test_data or state.calibration_data,
        calibration=state.calibration_data,
        recipe=current.recipe if current is not None else recipe,
        builds=tuple(v.build for v in variants if v.build is not None),
        comparison=_comparison(state.base_result, [v.result for v in variants if v.result is not None]),
        sensitivity=_sensitivity(state),
        machine=machine(state.base_result),
        headline=current.path if current is not None and current.result is not None else "",
        notes=model.notes,
    )


def machine(base: VariantResult | None) -> tuple[tuple[str, str], ...]:
    """What the figures were measured on, as pairs of a name and a text."""
    rows = [("System", platform.platform()), ("Processor", platform.processor() or platform.machine())]
    rows.append(("Cores", str(os.cpu_count() or 1)))
    if base is not None and base.latency_ms is not None:
        latency = base.latency_ms
        rows.append(("Measured on", f"{latency.provider}, {latency.threads} threads, batch {latency.batch}"))
    return tuple(rows)


def _title(project: Project) -> str:
    return "" if project.is_temporary else project.path.stem


def _active_recipe(project: Project) -> Recipe:
    state = project.state
    return state.plan(state.active).recipe


def _comparison(base: VariantResult | None, measured: list[VariantResult]) -> CompareResult | None:
    if base is None or len(measured) < 2:
        return None
    return CompareResult(
        variants=tuple(measured),
        samples=base.samples,
        seconds=0.0,
        labelled=bool(base.metrics),
        task="classification" if "top1" in base.metrics or not base.metrics else "regression",
    )


def _sensitivity(state: SessionState) -> SensitivityResult | None:
    run, rows = state.sensitivity_run, state.sensitivity
    if run is None or not rows or state.model is None:
        return None
    in_order = tuple(rows[layer.name] for layer in state.model.layers if layer.name in rows)
    return SensitivityResult(
        run.method, run.samples, run.seconds, run.reference, in_order, state.curve, run.provenance
    )
