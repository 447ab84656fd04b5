"""Everything a report tells, as plain values; whoever writes a report fills this in."""

from __future__ import annotations

from dataclasses import dataclass, field

from quantstudio.core.data_spec import DataSpec, is_same_source
from quantstudio.core.layers import ModelSummary
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import BuildResult, CompareResult, SensitivityResult, VariantResult


@dataclass(frozen=True, slots=True)
class ReportData:
    """Content of a report; every part but the model may be missing, and is then left out.

    Attributes:
        title: Heading.
        created: When, as text; passed in, so that the same data give the same bytes.
        model: The network.
        version: Version of QuantStudio that measured.
        data: Data the figures were measured on.
        calibration: Data activation ranges were taken from.
        recipe: Recipe of the headline variant.
        builds: Variants that were built; matched to the comparison by the path of their file.
        comparison: Measurements, base first.
        sensitivity: Sensitivity of every layer.
        machine: Pairs of a name and a text: processor, threads, versions.
        headline: Path of the variant the key figures are about; by default the last one built that was
            measured, else the first measured.
        notes: One sentence each.
        weight_sqnr_db: SQNR of the weights of each layer in the precision it has in `recipe`, by layer.
        contents: What each variant contains, by the path of its file: "INT8 · 3 W4A8".
    """

    title: str
    created: str
    model: ModelSummary
    version: str = ""
    data: DataSpec | None = None
    calibration: DataSpec | None = None
    recipe: Recipe | None = None
    builds: tuple[BuildResult, ...] = ()
    comparison: CompareResult | None = None
    sensitivity: SensitivityResult | None = None
    machine: tuple[tuple[str, str], ...] = ()
    headline: str = ""
    notes: tuple[str, ...] = ()
    weight_sqnr_db: dict[str, float] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)

    @property
    def is_measured_on_calibration(self) -> bool:
        """Whether accuracy comes from the samples that set the ranges: that biases it upwards."""
        return is_same_source(self.data, self.calibration)

    @property
    def base(self) -> VariantResult | None:
        """What everything is compared against."""
        return self.comparison.variants[0] if self.comparison and self.comparison.variants else None

    @property
    def headline_variant(self) -> VariantResult | None:
        """The measured variant the key figures are about; None when nothing but the base was measured."""
        variants = self.comparison.variants[1:] if self.comparison else ()
        by_path = {variant.path: variant for variant in variants}
        for path in (self.headline, *(build.output for build in reversed(self.builds))):
            if path in by_path:
                return by_path[path]
        return variants[0] if variants else None

    @property
    def headline_build(self) -> BuildResult | None:
        """How that variant was built; the last build when none was measured."""
        variant = self.headline_variant
        for build in self.builds:
            if variant is not None and build.output == variant.path:
                return build
        return self.builds[-1] if self.builds and variant is None else None
