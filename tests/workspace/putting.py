"""Findings put into a workspace as runs put them, for tests that need no engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from quantstudio.core.costs import CostTable
from quantstudio.core.findings import (
    CALIBRATION,
    COSTS,
    MEASUREMENT,
    SEARCH,
    VARIANT,
    FindingKind,
    StatisticsFile,
)
from quantstudio.core.results import AccuracyCurve, LayerSensitivity, SensitivityResult, VariantResult
from quantstudio.core.search_results import SearchResult
from quantstudio.core.statistics import Statistics, WeightStatistics
from quantstudio.core.variants import Variant
from quantstudio.project.store import Project
from quantstudio.workspace import opening
from quantstudio.workspace.known import Known
from quantstudio.workspace.runs.sensitivity import put_curve, put_rows, put_run, sensitivity_keys
from quantstudio.workspace.subject import Subject


def subject_of(known: Known) -> Subject:
    assert known.subject is not None
    return known.subject


def put_weights(known: Known, rows: Iterable[WeightStatistics]) -> None:
    known.arrays.add_weights(rows)


def put_activations(known: Known, statistics: Statistics, path: str = "activations.npz") -> None:
    known.arrays.add_activations(path, statistics)
    samples = known.recipe.calibration.samples
    file = StatisticsFile(path, "statistics digest", samples)
    known.findings.put(CALIBRATION, subject_of(known).calibration_key, file, row=str(samples))


def put_calibration(known: Known, path: str, digest: str, samples: int) -> None:
    file = StatisticsFile(path, digest, samples)
    known.findings.put(CALIBRATION, subject_of(known).calibration_key, file, row=str(samples))


def put_sensitivity(
    known: Known, rows: Iterable[LayerSensitivity], curve: AccuracyCurve | None = None
) -> None:
    keys = sensitivity_keys(subject_of(known), known.ground.graph)
    put_rows(known.findings, keys, rows)
    if curve is not None:
        put_curve(known.findings, keys, curve)


def put_sensitivity_run(known: Known, found: SensitivityResult) -> None:
    put_run(known.findings, sensitivity_keys(subject_of(known), known.ground.graph), found)


def put_costs(known: Known, costs: CostTable) -> None:
    known.findings.put(COSTS, subject_of(known).costs_key(known.ground.graph), costs)


def put_search(known: Known, found: SearchResult) -> None:
    judged = known.test_data is not None
    steps = (*known.ground.steps, *known.ground.later)
    key = subject_of(known).search_key(steps, known.recipe, judged_on_test=judged)
    known.findings.put(SEARCH, key, found, row="terms")


def put_build(known: Known, built: Variant) -> None:
    key = known.key_of(built.recipe)
    known.findings.put(VARIANT, key, replace(built, key=key))
    if built.result is not None:
        put_measurement(known, key, built.result)


def put_measurement(known: Known, variant: str, result: VariantResult) -> None:
    key = subject_of(known).measurement_key(variant)
    known.findings.put(MEASUREMENT, key, result, row=known.options.measurement_row)


def put_comparison(known: Known, base: VariantResult, results: Mapping[str, VariantResult]) -> None:
    put_measurement(known, subject_of(known).model.digest, base)
    for variant in known.variants:
        if variant.path in results and not variant.is_base:
            put_measurement(known, variant.key, results[variant.path])


def forget(known: Known, kind: FindingKind[Any]) -> None:
    """As if nothing of a kind had ever been found; in memory alone."""
    for name, key in tuple(known.findings._known):
        if name == kind.name:
            known.findings._known[name, key] = {}
    known.findings._whole.pop(kind.name, None)
    known.findings._whole[kind.name] = {}
    known.tell_everything()


def known_of(project: Project) -> Known:
    """What a project file knows, as whoever opens it finds it."""
    known = Known(project, lambda function: function())
    known.subject = opening.subject_of(project)
    return known
