"""What a search was asked for and what it found: the front, the plans that were tried, the chosen one."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import ClassVar

from quantstudio.core.errors import RecipeError
from quantstudio.core.precision import ActivationPrecision, searched_formats
from quantstudio.core.recipe import Recipe
from quantstudio.core.record import Record
from quantstudio.core.results import BuildResult


def searched_precisions() -> tuple[str, ...]:
    """What a search wants of a sensitivity run; other precisions do not help it."""
    return (*(row.name for row in searched_formats()), ActivationPrecision.INT8.sensitivity_name)


class ActivationFamily(StrEnum):
    """What all layers of a plan do with their activations; precision of the weights is what is searched.

    STATIC puts every operator with an integer kernel on the calibrated grid, WEIGHTED only the layers that
    own weights, DYNAMIC measures ranges on every run, WEIGHT_ONLY leaves activations float. AUTO measures
    the 8-bit form of each that the model can have and takes the one nearest to FP32.
    """

    AUTO = "auto"
    STATIC = "static"
    WEIGHTED = "weighted"
    DYNAMIC = "dynamic"
    WEIGHT_ONLY = "weight-only"


def family_named(name: str) -> ActivationFamily:
    """The family of a name.

    Raises:
        RecipeError: there is none; the hint lists what there is.
    """
    if name not in list(ActivationFamily):
        raise RecipeError(
            f"unknown activation family {name!r}", hint=f"Choose one of {', '.join(ActivationFamily)}"
        )
    return ActivationFamily(name)


class GroupKind(StrEnum):
    """Why layers move together."""

    ATTENTION = "attention"
    TIED = "tied"
    JOIN = "join"


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Layers that share precision.

    Attributes:
        kind: ATTENTION and TIED layers share the whole scheme. JOIN layers meet in one Add or Concat: they
            share the precision of their activations only, as every input of an integer Add or Concat has its
            own scale and its weights their own bits.
        layers: Names in execution order.
        where: Node or tensor they meet in.
    """

    kind: GroupKind
    layers: tuple[str, ...]
    where: str


class Recover(StrEnum):
    """What wins back what few bits lose, before a plan of a search is measured.

    GPTQ chooses the weights below 8 bits together (the step "gptq"); AUTO does so where a handful of plans
    can be recovered within minutes; NONE measures plans as they are rounded.
    """

    AUTO = "auto"
    GPTQ = "gptq"
    NONE = "none"


def recover_named(name: str) -> Recover:
    """The way to recover of a name.

    Raises:
        RecipeError: there is none; the hint lists what there is.
    """
    if name not in list(Recover):
        raise RecipeError(f"unknown way to recover {name!r}", hint=f"Choose one of {', '.join(Recover)}")
    return Recover(name)


# A bound on the worst class without one: this many times what all classes together may lose.
CLASS_DROP_FACTOR = 2.0
# The bound on the worst class that nothing can break.
ANY_CLASS_DROP = 100.0


@dataclass(frozen=True, slots=True)
class SearchBudget:
    """Bounds a plan must keep; None leaves one out.

    Raises:
        RecipeError: a bound is not a finite number, which JSON would turn into no bound.

    Attributes:
        max_drop: Points of top-1 lost against FP32; of predictions changed, where there are no labels.
        max_class_drop: Points that any one class may lose, beyond what its samples lose by chance. None is
            twice `max_drop`; `ANY_CLASS_DROP` leaves the classes unbounded.
        max_size_bytes: Bytes of the ONNX file that is written.
        max_latency_ratio: Time over FP32 time, at most 1: nothing slower than FP32 is ever chosen.
        average_bits: Mean bits per weight, over all weights that can be quantized.
        max_share_above_8: Part of the layers, 0 to 1, that may have more than 8 bits. None allows such
            layers only where no plan without them keeps the other bounds.
    """

    RETIRED: ClassVar[frozenset[str]] = frozenset({"max_weight_bytes"})

    max_drop: float | None = None
    max_size_bytes: int | None = None
    max_latency_ratio: float | None = None
    average_bits: float | None = None
    max_share_above_8: float | None = None
    max_class_drop: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not is_number(value):
                raise RecipeError(
                    f"the bound {name} is not a finite number: {value!r}", hint="Leave it out for no bound"
                )

    @property
    def class_drop(self) -> float | None:
        """Points that any one class may lose; None without a bound."""
        if self.max_class_drop is None:
            return None if self.max_drop is None else CLASS_DROP_FACTOR * self.max_drop
        return self.max_class_drop if self.max_class_drop < ANY_CLASS_DROP else None


def is_number(value: object) -> bool:
    """Whether a value is a finite number, and not a truth value or a text that looks like one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class BudgetObstacle:
    """The bound that no plan keeps.

    Attributes:
        bound: Name of the field of `SearchBudget`.
        value: What was asked.
        nearest: The smallest value a plan can have there with the other bounds kept where they can be; NaN
            where no plan keeps those.
    """

    bound: str
    value: float
    nearest: float


@dataclass(frozen=True, slots=True)
class PlanFigures:
    """Figures of one plan, all predicted or all measured.

    Attributes:
        kl: Mean KL divergence from FP32 (nats); for outputs that are not class scores, noise power over
            signal power.
        metric: Top-1 with labels, else agreement with FP32, 0 to 1; None where there is neither.
        metric_low: Lower end of its interval: 95 % where measured, 90 % where predicted.
        metric_high: Upper end.
        drop: Points lost against FP32 on the same samples; None where not known.
        size_bytes: ONNX file.
        average_bits: Mean bits per weight.
        latency_ms: Median latency of one sample; None where not timed.
        latency_ratio: Time over FP32 time; None where not timed.
        samples: Samples behind metric and drop; 0 for predictions.
        left_out: Steps that a prediction does not know, by name; see `Prediction.left_out`.
        drop_over: Points that are lost at least, where layers no longer add up and `drop` is not known.
        worst_class: The class that loses most, by name or number; empty where classes were not counted.
        worst_class_drop: Points it loses on its samples.
        worst_class_samples: How many those are.
    """

    RETIRED: ClassVar[frozenset[str]] = frozenset({"weight_bytes"})

    kl: float
    metric: float | None
    metric_low: float | None
    metric_high: float | None
    drop: float | None
    size_bytes: int | None
    average_bits: float
    latency_ms: float | None = None
    latency_ratio: float | None = None
    samples: int = 0
    left_out: tuple[str, ...] = ()
    drop_over: float | None = None
    worst_class: str = ""
    worst_class_drop: float | None = None
    worst_class_samples: int = 0


@dataclass(frozen=True, slots=True)
class PlanPoint(Record):
    """One plan.

    Attributes:
        size_bytes: File size: measured if the plan was built, else predicted.
        latency_ms: Latency: measured, else predicted, else None.
        metric: Accuracy or agreement: measured, else predicted, else None.
        predicted: Figures from the tables, after they were corrected by what was measured.
        recipe: What builds it.
        measured: Figures of the built file; None while nobody built it.
        name: "INT4 everywhere" for a single-precision plan; empty for a mixed one.
    """

    size_bytes: int | None
    latency_ms: float | None
    metric: float | None
    predicted: PlanFigures
    recipe: Recipe
    measured: PlanFigures | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class SearchFront:
    """What a search knows while it runs; told again whenever it knows more.

    Attributes:
        front: See `SearchResult`; fewer points than the final one.
        tried: Every plan measured so far.
        metric_name: See `SearchResult`.
        base_metric: The metric of FP32 on the samples of the search.
        samples: Samples the search looks at.
    """

    front: tuple[PlanPoint, ...]
    tried: tuple[PlanPoint, ...]
    metric_name: str
    base_metric: float | None
    samples: int


@dataclass(frozen=True, slots=True)
class SearchResult(Record):
    """What a search found.

    Attributes:
        front: Plans of which none is better in both bytes of the file and predicted KL, smallest first.
        chosen: The plan that was built, with what it measures.
        tried: Every plan that was measured, single-precision ones first.
        budget: What was asked.
        family: What the plans do with activations.
        groups: Layers kept together.
        metric_name: "top1", "agreement", or empty.
        samples: Samples the search looked at.
        base_metric: The metric of FP32 on the samples the plans were measured on.
        scale_by_precision: Factor on the estimated KL by weight precision, fitted to what was measured.
        base_kl: KL that no choice of weights removes: activations on integers.
        builds: Plans built and measured.
        seconds: Time of the search without latency timing.
        timing_seconds: Time spent on latency.
        build: The written file.
        data_digest: Digest of the data the recipe was calibrated with.
        notes: One sentence each.
        created: When it ended, in seconds since 1970; 0 where nobody noted it.
    """

    RETIRED: ClassVar[frozenset[str]] = frozenset({"goal"})

    front: tuple[PlanPoint, ...]
    chosen: PlanPoint
    tried: tuple[PlanPoint, ...]
    budget: SearchBudget
    family: ActivationFamily
    groups: tuple[LayerGroup, ...]
    metric_name: str
    samples: int
    base_metric: float | None
    scale_by_precision: dict[str, float]
    base_kl: float
    builds: int
    seconds: float
    timing_seconds: float
    build: BuildResult
    data_digest: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)
    created: float = 0.0

    def _parts(self) -> tuple[PlanPoint, ...]:
        return self.front
