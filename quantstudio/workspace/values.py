"""Plain values the session hands to the views."""

from __future__ import annotations

from dataclasses import dataclass

from quantstudio.core.recipe import Recipe
from quantstudio.core.results import BuildResult, VariantResult
from quantstudio.jobs.rows import NoticeLevel
from quantstudio.project.state import Plan

__all__ = [
    "NOT_TESTED",
    "Notification",
    "Plan",
    "TrustRequest",
    "Variant",
]

NOT_TESTED = (
    "measured on the samples that also set the ranges, which flatters it; choose test data with Model, Data"
)


@dataclass(frozen=True, slots=True)
class Notification:
    """Something to tell the user without stopping them.

    Attributes:
        severity: How much it matters.
        text: What happened, one sentence.
        hint: What to do about it; may be empty.
        where: File, layer or tensor concerned; may be empty.
    """

    severity: NoticeLevel
    text: str
    hint: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """A model that was built, with what was measured of it.

    Attributes:
        name: Name for the screen.
        plan: Plan it was built from; empty for the base.
        variant_hash: Hash of (graph, statistics, recipe).
        recipe_digest: Digest of the recipe.
        recipe: The recipe itself; loading it brings the variant's choices back.
        build: What the build found; None for the base.
        result: What was measured; None before.
        is_base: Whether this is the FP32 model everything is compared with.
        is_current: Whether it was built from the recipe as it is now.
        path: The ONNX file.
    """

    name: str
    plan: str
    variant_hash: str
    recipe_digest: str
    recipe: Recipe
    build: BuildResult | None
    result: VariantResult | None
    is_base: bool
    is_current: bool
    path: str = ""


@dataclass(frozen=True, slots=True)
class TrustRequest:
    """A file that is a program: it may be opened only after the user agreed.

    Attributes:
        path: The file or `module:callable`.
        purpose: "model" or "data".
        reason: Why opening it runs code.
        factory: `module:callable` that makes the network a state_dict belongs to; asked for when the file
            is a state_dict.
    """

    path: str
    purpose: str
    reason: str
    factory: str = ""
