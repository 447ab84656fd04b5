"""What a run of the sensitivity analysis adds to what is known of every layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from quantstudio.core.findings import CURVE, SENSITIVITY, SENSITIVITY_RUN
from quantstudio.core.results import AccuracyCurve, LayerSensitivity, SensitivityResult
from quantstudio.core.sensitivity_rows import EXACT, joined
from quantstudio.workspace.findings import Findings
from quantstudio.workspace.subject import Subject


@dataclass(frozen=True)
class SensitivityKeys:
    """Under which keys a run puts what it finds: those of when it was sent off."""

    rows: str
    run: str
    curve: str


def sensitivity_keys(subject: Subject, graph: str) -> SensitivityKeys:
    """Keys for what is open now.

    Args:
        subject: The model with its data.
        graph: Stands for the graph behind the steps of the plan (`Ground.graph`).
    """
    kinds = (SENSITIVITY, SENSITIVITY_RUN, CURVE)
    return SensitivityKeys(*(subject.sensitivity_key(kind, graph) for kind in kinds))


def put_rows(findings: Findings, keys: SensitivityKeys, rows: Iterable[LayerSensitivity]) -> None:
    """Keep some or all layers, first or refined."""
    known = findings.rows(SENSITIVITY, keys.rows)
    findings.put_rows(SENSITIVITY, keys.rows, {row.name: joined(known.get(row.name), row) for row in rows})


def put_run(findings: Findings, keys: SensitivityKeys, found: SensitivityResult) -> None:
    """Keep a finished run: all its layers, its curve, and how it was made."""
    put_rows(findings, keys, found.layers)
    if found.curve is not None:
        put_curve(findings, keys, found.curve)
    run = _joined_run(findings.get(SENSITIVITY_RUN, keys.run), found)
    findings.put(SENSITIVITY_RUN, keys.run, replace(run, layers=(), curve=None))


def put_curve(findings: Findings, keys: SensitivityKeys, curve: AccuracyCurve) -> None:
    """Keep the accuracy expected at a total KL."""
    findings.put(CURVE, keys.curve, curve)


def _joined_run(known: SensitivityResult | None, found: SensitivityResult) -> SensitivityResult:
    if known is None:
        return found
    if found.method == EXACT:
        kl_all = known.kl_all if found.kl_all is None else found.kl_all
        return replace(known, classes=known.classes or found.classes, kl_all=kl_all)
    estimated = known.precisions if known.method != EXACT else ()
    precisions = tuple(dict.fromkeys((*estimated, *found.precisions)))
    classes = found.classes or known.classes
    return replace(found, classes=classes, kl_all=known.kl_all, precisions=precisions)
