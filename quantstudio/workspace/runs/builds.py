"""What becomes of a build: a variant of the project, under the key of all it was made from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from quantstudio.core.findings import MEASUREMENT, VARIANT
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import BuildResult, CompareResult, QuantizeResult
from quantstudio.core.steps import StepInfo, with_outcomes
from quantstudio.core.time_scale import least_disturbed
from quantstudio.core.variants import Variant
from quantstudio.workspace.findings import Findings
from quantstudio.workspace.known import Known
from quantstudio.workspace.names import content_name, following_name, variant_name
from quantstudio.workspace.resolved import ResolvedRecipes
from quantstudio.workspace.subject import Subject


def keep_build(
    known: Known, subject: Subject, build: BuildResult, recipe: Recipe, plan: str, statistics: str
) -> Variant:
    """Keep a variant under its plan's name with a number, or under that of the same build before.

    Args:
        known: Where it is kept.
        subject: The model it was built from.
        build: What was built.
        recipe: What it was built with.
        plan: Name of the plan that had the recipe.
        statistics: Digest of the activation statistics; empty without.
    """
    findings = known.findings
    key = ResolvedRecipes().key(subject, known.steps, recipe, statistics)
    same = findings.get(VARIANT, key)
    if same is not None:
        variant = replace(same, build=build, path=build.output)
    else:
        name = variant_name(plan, {one.name for one in findings.all(VARIANT)})
        variant = Variant(
            key, name, plan, recipe, build.output, build, statistics=statistics, created=time.time()
        )
    findings.put(VARIANT, key, variant)
    return variant


def with_endings(recipe: Recipe, result: QuantizeResult, infos: Sequence[StepInfo]) -> Recipe:
    """The recipe that gives what was built: steps that were ended by hand say where."""
    steps = with_outcomes(recipe.steps, [step.settings for step in result.build.steps], infos)
    return recipe if steps == recipe.steps else replace(recipe, steps=steps)


def keep_measurements(
    findings: Findings, found: CompareResult, keys: Mapping[str, str], row: str, *, are_all: bool
) -> None:
    """Keep what was measured of the base and of variants.

    Args:
        findings: Where.
        found: The base first.
        keys: Of the variants by their path, and of the base by "".
        row: How it was measured.
        are_all: Whether every variant was timed beside the base, so that no other one needs its time.
    """
    base, *variants = found.variants
    if not are_all:
        base = least_disturbed(base, findings.get(MEASUREMENT, keys[""], row))
    findings.put(MEASUREMENT, keys[""], base, row=row)
    for one in variants:
        if one.path in keys:
            findings.put(MEASUREMENT, keys[one.path], one, row=row)


def plan_of_preset(known: Known, subject: Subject, recipe: Recipe, plan: str) -> str:
    """What the plan is going to be called that gets the recipe of a preset.

    Args:
        known: What is open.
        subject: The model it was built from.
        recipe: Of the preset.
        plan: The plan that was asked for; empty where it was edited meanwhile, and keeps its recipe.
    """
    layers = subject.model.layers
    if not plan:
        return content_name(recipe, layers)
    return following_name(plan, recipe, layers, {one.name for one in known.plans} - {plan})


def is_file(path: str) -> bool:
    """Whether a file of the cache is still there; the cache may be emptied at any time."""
    return bool(path) and Path(path).is_file()


def measures_alone(known: Known) -> bool:
    """Whether the model is measured as it is: its file is quantized, and the plan changes nothing of it."""
    model = known.model
    if model is None or not model.can_be_quantized:
        return model is not None
    plan = known.plan_of(known.recipe)
    return plan is not None and plan.is_float and any(layer.stored_as for layer in model.layers)
