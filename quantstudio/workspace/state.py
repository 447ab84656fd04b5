"""Everything the session knows of the opened model; changed only by the session."""

from __future__ import annotations

from dataclasses import dataclass, field

from quantstudio.core.costs import CostTable
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.layers import ModelSummary
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import (
    AccuracyCurve,
    BuildResult,
    LayerSensitivity,
    SensitivityResult,
    VariantResult,
)
from quantstudio.core.search_results import SearchResult
from quantstudio.core.statistics import Statistics, WeightStatistics
from quantstudio.workspace.values import Variant


@dataclass(frozen=True, slots=True)
class BuiltVariant:
    """A build as it is kept: which recipe and statistics it was made of, and what was measured."""

    name: str
    plan: str
    recipe: Recipe
    statistics_digest: str
    build: BuildResult
    result: VariantResult | None = None


@dataclass
class SessionState:
    """What is known of one model.

    Attributes:
        model: The opened model.
        trusted: Whether the user agreed to run the source file.
        factory: What makes the network of a state_dict; empty otherwise.
        state_path: The state_dict that was put onto it.
        calibration_data: Where activation statistics come from.
        test_data: What accuracy is measured on.
        weights: Weight statistics by layer.
        weights_path: Their file.
        activations: Activation statistics, once loaded.
        statistics_path: Their file; what the engine reads.
        statistics_digest: Their digest.
        statistics_asked: Samples that were asked for when they were made.
        sensitivity: By layer.
        sensitivity_run: The last finished run over all layers: method, samples, reference.
        curve: Accuracy against KL.
        costs: Bytes and times for predictions.
        built: Every build, oldest first.
        base_result: What was measured of the FP32 model, last.
        search: The last search that ended.
        selection: Selected layers.
        current_layer: The layer the inspector shows.
    """

    model: ModelSummary | None = None
    trusted: bool = False
    factory: str = ""
    state_path: str = ""
    calibration_data: DataSpec | None = None
    test_data: DataSpec | None = None
    weights: dict[str, WeightStatistics] = field(default_factory=dict)
    weights_path: str = ""
    activations: Statistics | None = None
    statistics_path: str = ""
    statistics_digest: str = ""
    statistics_asked: int = 0
    sensitivity: dict[str, LayerSensitivity] = field(default_factory=dict)
    sensitivity_run: SensitivityResult | None = None
    curve: AccuracyCurve | None = None
    costs: CostTable | None = None
    built: list[BuiltVariant] = field(default_factory=list)
    base_result: VariantResult | None = None
    search: SearchResult | None = None
    selection: tuple[str, ...] = ()
    current_layer: str | None = None

    def variants(self, recipe: Recipe) -> tuple[Variant, ...]:
        """Base first, then every build, oldest first, as the views see them."""
        if self.model is None:
            return ()
        rows = [self._base(self.model)]
        digest = recipe.digest
        rows += [
            Variant(
                name=one.name,
                plan=one.plan,
                variant_hash=one.build.variant,
                recipe_digest=one.build.recipe_digest,
                recipe=one.recipe,
                build=one.build,
                result=one.result,
                is_base=False,
                is_current=self.is_current(one, digest),
                path=one.build.output,
            )
            for one in self.built
        ]
        return tuple(rows)

    def is_current(self, built: BuiltVariant, recipe_digest: str) -> bool:
        """Whether a build is what the recipe of that digest would give now."""
        if built.build.recipe_digest != recipe_digest:
            return False
        return not self.statistics_digest or built.statistics_digest in ("", self.statistics_digest)

    def keep(self, built: BuiltVariant) -> None:
        """Add a build, or replace the same one."""
        self.built = [one for one in self.built if one.build.variant != built.build.variant]
        self.built.append(built)

    def _base(self, model: ModelSummary) -> Variant:
        return Variant(
            name="FP32",
            plan="",
            variant_hash=model.digest,
            recipe_digest=Recipe().digest,
            recipe=Recipe(),
            build=None,
            result=self.base_result,
            is_base=True,
            is_current=False,
            path=model.graph_path,
        )
