"""Everything a prediction is corrected by, fitted to the plans that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.predict.accuracy_law import AccuracyLaw, Plan, accuracy_law
from quantstudio.core.predict.kl_model import Array, KlModel, fitted_kl
from quantstudio.core.results import AccuracyCurve, ClassAccuracy, VariantResult
from quantstudio.core.search_results import PlanPoint

# Prior deviation of ln (measured / predicted) latency, shared by all plans of a network and of single ones.
LATENCY_LEVEL, LATENCY_SPREAD = 0.1, 0.08
_SPREAD_PLANS = 4.0
# With fewer changed answers, what single classes lost is luck.
_MIN_CHANGES = 20.0


@dataclass(frozen=True, slots=True)
class MeasuredPlan:
    """What was measured of one variant, as far as predictions learn from it; None where it was not.

    Attributes:
        name: For a person.
        plan: What it was built from.
        samples: Samples behind the accuracy.
        kl: Mean KL from FP32, nats.
        changed: Share of answers that are not FP32's.
        accuracy: Top-1 with labels, else agreement with FP32, 0 to 1.
        base: The same of FP32.
        classes: Accuracy of every class, in FP32 and here.
        size_bytes: File.
        latency_ratio: Time over FP32 time.
        memory_bytes: Peak memory of a fresh process.
        provider: Execution provider.
    """

    name: str
    plan: EffectivePlan
    samples: int
    kl: float | None = None
    changed: float | None = None
    accuracy: float | None = None
    base: float | None = None
    classes: tuple[ClassAccuracy, ...] = ()
    size_bytes: int | None = None
    latency_ratio: float | None = None
    memory_bytes: int | None = None
    provider: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """FP32 on the data that plans are judged on.

    Attributes:
        accuracy: Top-1 with labels, else 1.
        samples: Samples.
        labelled: Whether they have labels.
        classes: Accuracy and support by class name.
        memory_bytes: Peak memory of a fresh process; None where not measured.
    """

    accuracy: float
    samples: int
    labelled: bool = True
    classes: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Factor:
    """A factor on a predicted figure: ln of it, its deviation, and the spread of single plans."""

    level: float
    deviation: float
    spread: float

    @property
    def value(self) -> float:
        """The factor."""
        return float(np.exp(self.level))


@dataclass(frozen=True, slots=True, eq=False)
class ClassLosses:
    """What classes lost in measured plans, and which layers did it.

    Attributes:
        profiles: Root of every layer's part of the KL, length 1, [plans, layers].
        losses: Accuracy a class lost for each answer of the network that changed, [plans, classes].
    """

    profiles: Array
    losses: Array


@dataclass(frozen=True, slots=True)
class PredictionModel:
    """The prediction as corrected by measured plans.

    Attributes:
        kl: KL of plans.
        law: Accuracy against KL; None where outputs are not class scores.
        judged: FP32 on the data plans are judged on; None before it was measured.
        latency: Factor on the time of plans over FP32's.
        classes: What classes lost in measured plans; None where none tells.
        plans: Measured plans behind it.
    """

    kl: KlModel = field(default_factory=KlModel)
    law: AccuracyLaw | None = None
    judged: Judged | None = None
    latency: Factor = field(default_factory=lambda: Factor(0.0, LATENCY_LEVEL, LATENCY_SPREAD))
    classes: ClassLosses | None = None
    plans: int = 0


@dataclass(frozen=True, slots=True)
class Raw:
    """A plan before correction.

    Attributes:
        parts: Summed estimates of KL in the order of `kl_model.part_names`; None where a layer has none.
        latency_ratio: Time over FP32 time; None where not priced.
        profile: Root of every layer's part of the KL, length 1, [layers]; None without parts.
        classes: Names of the classes.
    """

    parts: Array | None
    latency_ratio: float | None
    profile: Array | None = None
    classes: tuple[str, ...] = ()


def fitted_model(
    plans: Sequence[tuple[MeasuredPlan, Raw]], curve: AccuracyCurve | None, judged: Judged | None = None
) -> PredictionModel:
    """The model that fits measured plans; without any it is what other networks showed.

    Args:
        plans: Measured plans with what the tables say of them.
        curve: Accuracy against KL from noise on the logits.
        judged: FP32 on the data the plans were judged on.
    """
    points = [(raw.parts, plan.kl) for plan, raw in plans if raw.parts is not None and plan.kl is not None]
    law = None
    if curve is not None:
        evidence = [_evidence(plan) for plan, _ in plans if plan.kl is not None and np.isfinite(plan.kl)]
        law = accuracy_law(
            curve,
            evidence,
            base=judged.accuracy if judged else curve.accuracy[0],
            samples=judged.samples if judged else curve.samples,
            labelled=judged.labelled if judged else curve.labelled,
        )
    times = [
        float(np.log(plan.latency_ratio / raw.latency_ratio))
        for plan, raw in plans
        if plan.latency_ratio and raw.latency_ratio
    ]
    return PredictionModel(
        kl=fitted_kl(points),
        law=law,
        judged=judged,
        latency=_factor(times, LATENCY_LEVEL, LATENCY_SPREAD),
        classes=_class_losses(plans),
        plans=len(plans),
    )


def measured_plan(name: str, plan: EffectivePlan, result: VariantResult, base: VariantResult) -> MeasuredPlan:
    """A measured variant as evidence."""
    agreement, top1 = result.agreement, result.metrics.get("top1")
    labelled = top1 is not None and "top1" in base.metrics
    return MeasuredPlan(
        name=name,
        plan=plan,
        samples=result.samples,
        kl=agreement.kl if agreement is not None else None,
        changed=1 - agreement.top1 if agreement is not None else None,
        accuracy=top1 if labelled else agreement.top1 if agreement is not None else None,
        base=base.metrics["top1"] if labelled else 1.0,
        classes=result.per_class,
        size_bytes=result.size_bytes,
        latency_ratio=1 / result.speedup.value if result.speedup and result.speedup.value > 0 else None,
        memory_bytes=result.peak_memory_bytes or None,
        provider=result.provider,
    )


def searched_plan(point: PlanPoint, plan: EffectivePlan, *, labelled: bool) -> MeasuredPlan | None:
    """A plan that a search measured as evidence; None if it was not built.

    Its time is left out: a search times plans one by one, not interleaved with FP32 alone.

    Args:
        point: What was measured of the plan.
        plan: The plan.
        labelled: Whether its metric is top-1; otherwise agreement with FP32.
    """
    found = point.measured
    if found is None:
        return None
    changed = None if labelled or found.metric is None else 1 - found.metric
    base = None
    if found.metric is not None:
        base = 1.0 if not labelled else None if found.drop is None else found.metric + found.drop / 100
    return MeasuredPlan(
        name=point.name or f"{found.average_bits:.1f} bits",
        plan=plan,
        samples=found.samples,
        kl=found.kl,
        changed=changed,
        accuracy=found.metric,
        base=base,
        size_bytes=found.size_bytes,
    )


def judged_base(base: VariantResult) -> Judged:
    """FP32 as it was measured."""
    return Judged(
        accuracy=base.metrics.get("top1", 1.0),
        samples=base.samples,
        labelled="top1" in base.metrics,
        classes={row.label: (row.base, row.support) for row in base.per_class},
        memory_bytes=base.peak_memory_bytes or None,
    )


def _class_losses(plans: Sequence[tuple[MeasuredPlan, Raw]]) -> ClassLosses | None:
    profiles, losses = [], []
    for plan, raw in plans:
        rows = {row.label: row.base - row.variant for row in plan.classes}
        is_known = raw.classes and all(name in rows for name in raw.classes)
        if raw.profile is None or not is_known or (plan.changed or 0.0) * plan.samples < _MIN_CHANGES:
            continue
        profiles.append(raw.profile)
        losses.append([rows[name] / (plan.changed or 1.0) for name in raw.classes])
    return ClassLosses(np.asarray(profiles), np.asarray(losses)) if profiles else None


def _evidence(plan: MeasuredPlan) -> Plan:
    lost = None if plan.accuracy is None or plan.base is None else plan.base - plan.accuracy
    return Plan(plan.kl or 0.0, plan.changed, lost, plan.samples)


def _factor(found: Sequence[float], prior: float, spread: float) -> Factor:
    """Posterior of a common factor from ln (measured / predicted), by shrinkage."""
    values = np.asarray(found, dtype=np.float64)
    level, deviation = 0.0, prior
    for _ in range(5):
        precision = len(values) / spread**2 + prior**-2
        level, deviation = float(values.sum() / spread**2 / precision), float(precision**-0.5)
        excess = float(np.square(values - level).sum())
        spread = float(np.sqrt((_SPREAD_PLANS * spread**2 + excess) / (_SPREAD_PLANS + len(values))))
    return Factor(level, deviation, spread)
