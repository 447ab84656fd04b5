"""What was found, under the keys it has now: of a graph behind steps, and of everything that was built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from quantstudio.core.costs import CostTable
from quantstudio.core.findings import COSTS, CURVE, MEASUREMENT, SEARCH, SENSITIVITY, SENSITIVITY_RUN, VARIANT
from quantstudio.core.recipe import Recipe
from quantstudio.core.record import Records
from quantstudio.core.results import AccuracyCurve, LayerSensitivity, SensitivityResult, VariantResult
from quantstudio.core.search_results import SearchResult
from quantstudio.core.sensitivity_rows import EXACT
from quantstudio.core.time_scale import on_scale_of
from quantstudio.core.variants import Variant
from quantstudio.workspace.findings import Findings
from quantstudio.workspace.names import base_name
from quantstudio.workspace.resolved import Ground
from quantstudio.workspace.subject import Subject

_MANY = 512
# Found and given back, kept so that no new one at an old address is taken for it.
_resized: dict[tuple[int, int], tuple[VariantResult, VariantResult]] = {}


@dataclass(frozen=True, slots=True)
class Found:
    """Everything known of one ground, read when it is asked for.

    Attributes:
        findings: Where it is kept.
        subject: The model with its data; None while none is open, and nothing is known.
        ground: The graph precisions are chosen on.
    """

    findings: Findings
    subject: Subject | None
    ground: Ground

    @property
    def rows(self) -> Mapping[str, LayerSensitivity]:
        """Sensitivity by layer; grows and refines while it is computed."""
        if self.subject is None:
            return {}
        return self.findings.rows(SENSITIVITY, self.subject.sensitivity_key(SENSITIVITY, self.ground.graph))

    @property
    def run(self) -> SensitivityResult | None:
        """How it was made, without its layers."""
        if self.subject is None:
            return None
        key = self.subject.sensitivity_key(SENSITIVITY_RUN, self.ground.graph)
        return self.findings.get(SENSITIVITY_RUN, key)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of `LayerSensitivity.by_class`; empty where there are none."""
        return self.run.classes if self.run is not None else ()

    @property
    def analyzed(self) -> frozenset[str]:
        """What an estimate of all layers has finished; a measured layer may know others for itself."""
        run = self.run
        if run is not None and run.precisions and run.method != EXACT:
            return frozenset(run.precisions)
        rows = [frozenset(row.by_precision) for row in self.rows.values()]
        return frozenset.intersection(*rows) if rows else frozenset()

    @property
    def curve(self) -> AccuracyCurve | None:
        """Accuracy expected at a total KL."""
        if self.subject is None:
            return None
        return self.findings.get(CURVE, self.subject.sensitivity_key(CURVE, self.ground.graph))

    @property
    def costs(self) -> CostTable | None:
        """Bytes and times."""
        if self.subject is None:
            return None
        return self.findings.get(COSTS, self.subject.costs_key(self.ground.graph))

    @property
    def search(self) -> SearchResult | None:
        """The last search with these steps, target and ranges, whether test data judged it or not.

        Where nobody noted when they ended, one that test data judged.
        """
        if self.subject is None:
            return None
        steps, kept = (*self.ground.steps, *self.ground.later), self.ground.kept
        found = []
        for judged in (True, False):
            for settings in (kept, None):
                key = self.subject.search_key(steps, settings, judged_on_test=judged)
                one = self.findings.newest(SEARCH, key)
                # Keys of older projects say nothing of target and ranges; the plans do.
                if one is not None and (settings is not None or _has(one.chosen.recipe, kept)):
                    found.append(one)
        return max(found, key=lambda one: one.created, default=None)


def _has(recipe: Recipe, kept: Recipe) -> bool:
    return (recipe.target, recipe.calibration) == (kept.target, kept.calibration)


def read_variants(findings: Findings, subject: Subject, measurement_row: str) -> Records[Variant]:
    """The base and every build, oldest first, with what was measured of it on the data of now.

    Times are on the scale of the base's, which may have been timed again since.

    Args:
        findings: Where they are kept.
        subject: The model with its data.
        measurement_row: Which way to measure is asked for; another one is taken where that was not done.
    """

    def measured(variant: str) -> VariantResult | None:
        key = subject.measurement_key(variant)
        asked = findings.get(MEASUREMENT, key, measurement_row)
        return asked if asked is not None else findings.newest(MEASUREMENT, key)

    model = subject.model
    name, found = base_name(model.layers), measured(model.digest)
    # What runs is the normalised graph, which many files may share; what has a size is the file.
    found = found and _sized(found, model.file_bytes)
    base = Variant(model.digest, name, "", Recipe(), model.graph_path, None, result=found)

    def beside_base(variant: str) -> VariantResult | None:
        found = measured(variant)
        return found and on_scale_of(base.result, found)

    built = sorted(findings.all(VARIANT), key=lambda one: one.created)
    return Records((base, *(replace(one, result=beside_base(one.key)) for one in built)))


def _sized(found: VariantResult, size_bytes: int) -> VariantResult:
    """As `with_size`, the same object each time: predictions are fitted anew for results that are others."""
    key = (id(found), size_bytes)
    if key not in _resized:
        if len(_resized) >= _MANY:
            _resized.clear()
        _resized[key] = (found, found.with_size(size_bytes))
    return _resized[key][1]
