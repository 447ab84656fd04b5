"""What the session knows, as a report takes it."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from quantstudio import __version__
from quantstudio.core.errors import MeasureError
from quantstudio.core.results import CompareResult, SensitivityResult
from quantstudio.gui.session_base import SessionBase
from quantstudio.report.data import ReportData


def report_data(session: SessionBase) -> ReportData:
    """Everything known now, with the current variant as the headline.

    Raises:
        MeasureError: no model is open.
    """
    model = session.model
    if model is None:
        raise MeasureError("there is nothing to report", hint="Open a model first")
    current = session.current_variant
    project = session.project
    name = Path(model.source_path).stem if project.is_temporary else project.path.stem
    return ReportData(
        title=name,
        created=time.strftime("%Y-%m-%d %H:%M"),
        model=model,
        version=__version__,
        data=session.test_data or session.calibration_data,
        calibration=session.calibration_data,
        recipe=current.recipe if current is not None else session.recipe,
        builds=tuple(v.build for v in session.variants if v.build is not None),
        comparison=_comparison(session),
        sensitivity=_sensitivity(session),
        machine=_machine(session),
        headline=current.path if current is not None and current.result is not None else "",
        notes=model.notes,
    )


def _comparison(session: SessionBase) -> CompareResult | None:
    measured = [v.result for v in session.variants if v.result is not None]
    base = session.base
    if base is None or base.result is None or len(measured) < 2:
        return None
    metrics = base.result.metrics
    return CompareResult(
        variants=tuple(measured),
        samples=base.result.samples,
        seconds=0.0,
        labelled=bool(metrics),
        task="classification" if "top1" in metrics or not metrics else "regression",
    )


def _sensitivity(session: SessionBase) -> SensitivityResult | None:
    run = session.state.sensitivity_run
    rows = session.sensitivity
    if run is None or not rows:
        return None
    in_order = tuple(rows[layer.name] for layer in session.layers if layer.name in rows)
    return SensitivityResult(
        run.method,
        run.samples,
        run.seconds,
        run.reference,
        in_order,
        session.sensitivity_curve,
        run.provenance,
    )


def _machine(session: SessionBase) -> tuple[tuple[str, str], ...]:
    rows = [("System", platform.platform()), ("Processor", platform.processor() or platform.machine())]
    rows.append(("Cores", str(os.cpu_count() or 1)))
    base = session.base
    if base is not None and base.result is not None and base.result.latency_ms is not None:
        latency = base.result.latency_ms
        rows.append(("Measured on", f"{latency.provider}, {latency.threads} threads, batch {latency.batch}"))
    return tuple(rows)
