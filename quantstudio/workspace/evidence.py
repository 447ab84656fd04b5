"""What predictions are made from, gathered behind some steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantstudio.core.costs import CostTable
from quantstudio.core.layers import ModelSummary
from quantstudio.core.results import AccuracyCurve, LayerSensitivity, VariantResult
from quantstudio.core.search_results import SearchResult
from quantstudio.core.variants import Variant
from quantstudio.workspace.found import Found
from quantstudio.workspace.resolved import Ground


@dataclass(frozen=True)
class Evidence:
    """What predictions are made from.

    Attributes:
        model: The model.
        ground: The graph that costs, curve and sensitivity are about.
        costs: Bytes and times.
        curve: Accuracy against KL.
        sensitivity: By layer.
        revision: Another number for other contents of `sensitivity`, which grows in place.
        classes: Names of the classes in it.
        base: What was measured of the FP32 model.
        search: The last search with the same steps.
        variants: Everything that was built, without the base.
    """

    model: ModelSummary
    ground: Ground
    costs: CostTable | None
    curve: AccuracyCurve | None
    sensitivity: Mapping[str, LayerSensitivity]
    revision: int
    classes: tuple[str, ...]
    base: VariantResult | None
    search: SearchResult | None
    variants: tuple[Variant, ...]


def evidence_from(found: Found, results: Sequence[Variant], revision: int) -> Evidence | None:
    """What predictions behind some steps are made from; None without a model.

    Args:
        found: What was found there.
        results: The base, then every build.
        revision: See `Evidence`.
    """
    if found.subject is None:
        return None
    base, *variants = results
    return Evidence(
        model=found.subject.model,
        ground=found.ground,
        costs=found.costs,
        curve=found.curve,
        sensitivity=found.rows,
        revision=revision,
        classes=found.classes,
        base=base.result,
        search=found.search,
        variants=tuple(variants),
    )
