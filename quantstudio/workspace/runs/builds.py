"""What becomes of a build: a variant of the project, under the key of all it was made from."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from quantstudio.core.findings import VARIANT
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import BuildResult
from quantstudio.core.variants import Variant
from quantstudio.workspace.known import Known
from quantstudio.workspace.names import variant_name
from quantstudio.workspace.resolved import ResolvedRecipes
from quantstudio.workspace.subject import Subject


def keep_build(
    known: Known, subject: Subject, build: BuildResult, recipe: Recipe, plan: str, statistics: str
) -> Variant:
    """Keep a variant under a name of its own, or under that of the same build before.

    Args:
        known: Where it is kept.
        subject: The model it was built from.
        build: What was built.
        recipe: What it was built with.
        plan: Name of the plan that had the recipe.
        statistics: Digest of the activation statistics; empty without.
    """
    findings, layers = known.findings, subject.model.layers
    key = ResolvedRecipes().key(subject, known.steps, recipe, statistics)
    same = findings.get(VARIANT, key)
    if same is not None:
        variant = replace(same, build=build, path=build.output)
    else:
        name = variant_name(recipe, layers, {one.name for one in findings.all(VARIANT)})
        variant = Variant(
            key, name, plan, recipe, build.output, build, statistics=statistics, created=time.time()
        )
    findings.put(VARIANT, key, variant)
    return variant


def is_file(path: str) -> bool:
    """Whether a file of the cache is still there; the cache may be emptied at any time."""
    return bool(path) and Path(path).is_file()
