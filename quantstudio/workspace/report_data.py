"""What is known, as a report takes it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from quantstudio.core.errors import MeasureError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import CompareResult, SensitivityResult, VariantResult
from quantstudio.core.variants import Variant
from quantstudio.core.version import VERSION
from quantstudio.core.weight_error import weight_sqnr_db
from quantstudio.project.store import Project
from quantstudio.report.data import ReportData
from quantstudio.workspace.known import Known
from quantstudio.workspace.names import base_name, contents_text
from quantstudio.workspace.opening import subject_of


def project_report(project: Project) -> ReportData:
    """Everything a project file knows, with the active plan's variant as the headline.

    Raises:
        MeasureError: the project has no model.
        ProjectError: a value in the file cannot be read.
    """
    known = Known(project, _at_once)
    known.subject = subject_of(project)
    _ = known.evidence  # what cannot be read is told, whether a report shows it or not
    return report_of(known)


def report_of(known: Known) -> ReportData:
    """Everything known now, with the current variant as the headline.

    Raises:
        MeasureError: no model is open.
    """
    model, base = known.model, known.base
    if model is None or base is None:
        raise MeasureError(
            "there is nothing to report", hint=Hint("Open a model first", HintAction.OPEN_MODEL)
        )
    current = known.current_variant
    compared = comparison(known.variants) if base.result is not None else None
    project = known.project
    return ReportData(
        title=Path(model.source_path).stem if project.is_temporary else project.path.stem,
        created=time.strftime("%Y-%m-%d %H:%M"),
        model=model,
        version=VERSION,
        data=known.measured_on,
        calibration=known.calibration_data,
        recipe=current.recipe if current is not None else known.recipe,
        builds=tuple(v.build for v in known.variants if v.build is not None),
        comparison=compared if compared is not None and len(compared.variants) > 1 else None,
        sensitivity=known_sensitivity(known),
        machine=machine(base.result),
        headline=current.path if current is not None and current.result is not None else "",
        notes=model.notes,
        weight_sqnr_db=_weight_sqnr_db(known, current.recipe if current is not None else known.recipe),
        contents={
            one.path: base_name(model.layers) if one.is_base else contents_text(one.recipe, model.layers)
            for one in known.variants
        },
    )


def machine(base: VariantResult | None) -> tuple[tuple[str, str], ...]:
    """What the figures were measured on, as pairs of a name and a text."""
    rows = [("System", platform.platform()), ("Processor", platform.processor() or platform.machine())]
    rows.append(("Cores", str(os.cpu_count() or 1)))
    if base is not None and base.latency_ms is not None:
        latency = base.latency_ms
        rows.append(("Measured on", f"{latency.provider}, {latency.threads} threads, batch {latency.batch}"))
    return tuple(rows)


def _weight_sqnr_db(known: Known, recipe: Recipe) -> dict[str, float]:
    """As the table of layers shows it."""
    overrides = {one.tensor: one for one in recipe.weight_ranges}
    found = {
        layer.name: weight_sqnr_db(
            known.weights.get(layer.name),
            recipe.scheme_for(layer),
            overrides.get(layer.name),
            recipe.on_target,
        )
        for layer in known.layers
    }
    return {name: value for name, value in found.items() if value is not None}


def _at_once(function: Callable[[], None]) -> None:
    function()


def comparison(variants: Sequence[Variant]) -> CompareResult | None:
    """What was measured of variants, the base first, side by side; None where none of them was measured."""
    results = tuple(replace(one.result, name=one.name) for one in variants if one.result is not None)
    if not results:
        return None
    metrics = results[0].metrics
    return CompareResult(
        variants=results,
        samples=results[0].samples,
        seconds=0.0,
        labelled=bool(metrics),
        task="classification" if "top1" in metrics or not metrics else "regression",
    )


def known_sensitivity(known: Known) -> SensitivityResult | None:
    """The last run with all that is known of every layer; None before the first."""
    run, rows = known.sensitivity_run, known.layer_sensitivity
    if run is None or not rows:
        return None
    in_order = tuple(rows[layer.name] for layer in known.layers if layer.name in rows)
    left_out = tuple(step.name for step in known.ground.later)
    return replace(run, layers=in_order, curve=known.sensitivity_curve, left_out=left_out)
