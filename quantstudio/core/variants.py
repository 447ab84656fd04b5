"""A model that was built, under the name of what it was made from."""

from __future__ import annotations

from dataclasses import dataclass

from quantstudio.core.recipe import Recipe
from quantstudio.core.record import Record
from quantstudio.core.results import BuildResult, VariantResult


@dataclass(frozen=True, slots=True)
class Variant(Record):
    """A model that was built, with what was measured of it.

    Attributes:
        key: What it was made from (`core.findings.variant_key`); the graph's digest for the base.
        name: Name for the screen.
        plan: Plan it was built from; empty for the base.
        recipe: The recipe it was built with, whatever became of the plan since.
        path: The ONNX file.
        build: What the build found; None for the base.
        statistics: Digest of the activation statistics it was built with; empty without.
        created: Seconds since the epoch of the first build.
        result: What was measured of it on the data of now; None before.
        is_current: Whether it is what the recipe of now would give.
    """

    key: str
    name: str
    plan: str
    recipe: Recipe
    path: str
    build: BuildResult | None
    statistics: str = ""
    created: float = 0.0
    result: VariantResult | None = None
    is_current: bool = False

    @property
    def is_base(self) -> bool:
        """Whether this is the FP32 model everything is compared with."""
        return self.build is None
