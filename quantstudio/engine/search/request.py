"""What is asked of a search, what it may take over, and what it keeps of a plan it has measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from quantstudio.core.costs import CostTable, container_name
from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.precision import LayerScheme
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.results import SensitivityResult
from quantstudio.core.search_results import ActivationFamily, Recover, SearchBudget
from quantstudio.core.statistics import Statistics
from quantstudio.engine.analysis.store import ResultStore
from quantstudio.engine.search.measure import Measurement


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What is asked of a search.

    Attributes:
        budget: Bounds; without any, a drop of half a point.
        family: Activations in the plans.
        pins: Rules that fix the precision of the layers they match.
        samples: Samples for calibration, sensitivity and measuring.
        kept: Recipe of which plans keep steps, seed, range settings and target; its precisions count for
            nothing. None calibrates with `samples` and has no steps.
        recover: What wins back what few bits lose, before a plan is measured.
        time_chosen: Whether the chosen plan is timed where latency is not bounded.
    """

    budget: SearchBudget = field(default_factory=SearchBudget)
    family: ActivationFamily = ActivationFamily.AUTO
    pins: tuple[LayerRule, ...] = ()
    samples: int = 512
    kept: Recipe | None = None
    time_chosen: bool = True
    recover: Recover = Recover.NONE

    @property
    def ships(self) -> bool:
        """Whether the file and its time are made small, and nothing else is bounded than what is lost."""
        costs = (
            self.budget.max_size_bytes,
            self.budget.max_latency_ratio,
            self.budget.average_bits,
        )
        return all(bound is None for bound in costs)


@dataclass(slots=True)
class Tried:
    """A plan that was built and measured.

    Attributes:
        recipe: What builds it.
        plan: What it comes to.
        schemes: Scheme of every layer, as far as it could be met.
        measurement: On the samples of the search.
        size_bytes: File.
        name: For a single-precision plan.
        fits: Whether the predictor learns from it: its activations are those of the chosen family.
        latency_ms: Median, once timed.
        latency_ratio: Time over FP32 time, once timed.
        test: On the test data, once judged there.
        by_class: On as many samples as its classes are judged by, once that was done.
    """

    recipe: Recipe
    plan: EffectivePlan
    schemes: dict[str, LayerScheme]
    measurement: Measurement
    size_bytes: int
    name: str = ""
    fits: bool = True
    latency_ms: float | None = None
    latency_ratio: float | None = None
    test: Measurement | None = None
    by_class: Measurement | None = None

    @property
    def kernels(self) -> tuple[str, ...]:
        """What runs of it, layer by layer: plans that share it take the same time."""
        return (str(self.plan.activation_scope), *map(container_name, self.schemes.values()))


@dataclass(frozen=True, slots=True)
class Known:
    """Tables made before, so that a search need not make them again; `store` holds parts of them.

    Sensitivity and costs are those of the graph after the steps that look at no precision; statistics may be
    those of the graph before.
    """

    statistics: Statistics | None = None
    sensitivity: SensitivityResult | None = None
    costs: CostTable | None = None
    store: ResultStore | None = None
