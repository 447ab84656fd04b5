"""Everything a prediction is corrected by, fitted to the plans that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.predict.accuracy_law import AccuracyLaw, Plan, accuracy_law
from quantstudio.core.predict.anchors import Anchor, Anchors, Trace, anchors
from quantstudio.core.predict.clip_loss import CLIP_SPREAD
from quantstudio.core.predict.kl_model import Array, KlModel, fitted_kl, prior_of
from quantstudio.core.results import AccuracyCurve, ClassAccuracy, Interval, VariantResult
from quantstudio.core.search_results import PlanPoint

# Prior deviation of ln (measured / predicted) latency, shared by all plans of a network and of single ones.
LATENCY_LEVEL, LATENCY_SPREAD = 0.1, 0.08
_SPREAD_PLANS = 4.0
# With fewer changed answers, what single classes lost is luck.
_MIN_CHANGES = 20.0
# Plans whose KL rests on a law for ranges set by hand tell of that, not of the formats.
_MOSTLY_BY_LAW = 0.3
# Parts of what a KL, and of what a loss at its KL, is off by that no other plan shares.
_OWN_KL, _OWN_LOSS = 0.4, 0.5
# Where next to nothing is lost, one sample is many deviations.
_FURTHEST_LOSS = 4.0
_Z_95 = 1.96
# A loss beyond this share that is known no better than to that width is no figure: such a network may
# collapse, and layers no longer add up. Nor is one by a law alone that is known to no better than the last.
_COLLAPSE_LOSS, _COLLAPSE_WIDTH, _LAW_WIDTH = 0.10, 0.20, 0.30


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
        latency_noise: Deviation of the logarithm of the time, from the interval it was measured with; 0
            where not known.
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
    latency_noise: float = 0.0


@dataclass(frozen=True, slots=True)
class Judged:
    """FP32 on the data that plans are judged on.

    Attributes:
        accuracy: Top-1 with labels, else 1.
        samples: Samples.
        labelled: Whether they have labels.
        classes: Accuracy and support by class name.
        memory_bytes: Peak memory of a fresh process; None where not measured.
        latency_ms: Median latency; None where not measured.
    """

    accuracy: float
    samples: int
    labelled: bool = True
    classes: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    memory_bytes: int | None = None
    latency_ms: float | None = None


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
        near_kl: Plans whose measured KL corrects that of their neighbours; None without any.
        near_loss: The same for what they lost at their KL.
        near_latency: The same for their time.
        files: Bytes of the files of measured plans, by what they hold (`Raw.file`).
    """

    kl: KlModel = field(default_factory=KlModel)
    law: AccuracyLaw | None = None
    judged: Judged | None = None
    latency: Factor = field(default_factory=lambda: Factor(0.0, LATENCY_LEVEL, LATENCY_SPREAD))
    classes: ClassLosses | None = None
    plans: int = 0
    near_kl: Anchors | None = None
    near_loss: Anchors | None = None
    near_latency: Anchors | None = None
    files: Mapping[bytes, int] = field(default_factory=dict)

    def expected_kl(self, raw: Raw) -> tuple[float, float]:
        """KL of a plan whose layers all have an estimate (nats), and the deviation of its logarithm."""
        assert raw.parts is not None
        kl, deviation = _plain_kl(self.kl, raw)
        if self.near_kl is None or raw.errors is None or kl <= 0:
            return kl, deviation
        move, left = self.near_kl.at(raw.errors)
        return kl * float(np.exp(move * deviation)), left * deviation

    def accuracy(self, raw: Raw, kl: float, deviation: float) -> Accuracy | None:
        """Accuracy at a KL; None where outputs are not class scores."""
        law = self.law
        if law is None:
            return None
        found, own = law.interval_for_each(kl, (deviation, 0.0))
        if self.near_loss is not None and raw.errors is not None and kl > 0:
            move, left = self.near_loss.at(raw.errors)
            value = found.value + move * (own.high - own.value if move > 0 else own.value - own.low)
            better = _narrowed(found.high - found.value, own.high - own.value, left)
            worse = _narrowed(found.value - found.low, own.value - own.low, left)
            found = _within(Interval(value, value - worse, value + better), law.worst)
        # A plan that was measured above FP32 had luck; what is foretold of its neighbours is no gain.
        found = Interval(min(found.value, law.base), min(found.low, law.base), found.high)
        width, may_collapse = found.high - found.low, law.base - found.value > _COLLAPSE_LOSS
        is_vague = may_collapse and width > _COLLAPSE_WIDTH
        is_vague = is_vague or (raw.by_law > _MOSTLY_BY_LAW and width > _LAW_WIDTH)
        return Accuracy(None if is_vague else found, min(found.high, law.base))

    def latency_ratio(self, raw: Raw) -> float | None:
        """Time over FP32 time; None where not priced."""
        if raw.latency_ratio is None or raw.is_float:
            return raw.latency_ratio
        ratio = raw.latency_ratio * self.latency.value
        if self.near_latency is None or raw.kernels is None:
            return ratio
        move, _ = self.near_latency.at(raw.kernels)
        return ratio * float(np.exp(move * self.latency.spread))

    def latency_deviation(self, raw: Raw) -> float:
        """Deviation of the logarithm of the time."""
        left = 1.0
        if self.near_latency is not None and raw.kernels is not None:
            left = self.near_latency.at(raw.kernels)[1]
        return left * float(np.hypot(self.latency.deviation, self.latency.spread))


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy of a plan.

    Attributes:
        value: With its interval; None where layers no longer add up and nothing but a bound is known.
        at_most: What it has at most.
    """

    value: Interval | None
    at_most: float


@dataclass(frozen=True, slots=True)
class Raw:
    """A plan before correction.

    Attributes:
        parts: Summed estimates of KL in the order of `kl_model.part_names`; None where a layer has none.
        latency_ratio: Time over FP32 time; None where not priced.
        profile: Root of every layer's part of the KL, length 1, [layers]; None without parts.
        classes: Names of the classes.
        by_law: Part of the KL of which a law tells and no analysis; more than 1 where the law is a poor one.
        errors: What its error consists of; None without parts.
        kernels: What its time consists of; None where not priced.
        is_float: Whether every layer stays FP32.
        file: Stands for what its file holds; None where not priced.
    """

    parts: Array | None
    latency_ratio: float | None
    profile: Array | None = None
    classes: tuple[str, ...] = ()
    by_law: float = 0.0
    errors: Trace | None = None
    kernels: Trace | None = None
    is_float: bool = False
    file: bytes | None = None


def fitted_model(
    plans: Sequence[tuple[MeasuredPlan, Raw]],
    curve: AccuracyCurve | None,
    judged: Judged | None = None,
    chance: float = 0.0,
) -> PredictionModel:
    """The model that fits measured plans; without any it is what other networks showed.

    Args:
        plans: Measured plans with what the tables say of them.
        curve: Accuracy against KL from noise on the logits.
        judged: FP32 on the data the plans were judged on.
        chance: Accuracy of an answer drawn by lot.
    """
    points = [
        (raw.parts, plan.kl)
        for plan, raw in plans
        if raw.parts is not None and plan.kl is not None and raw.by_law < _MOSTLY_BY_LAW
    ]
    law = None
    if curve is not None:
        evidence = [_evidence(plan) for plan, _ in plans if plan.kl is not None and np.isfinite(plan.kl)]
        law = accuracy_law(
            curve,
            evidence,
            base=judged.accuracy if judged else curve.accuracy[0],
            samples=judged.samples if judged else curve.samples,
            labelled=judged.labelled if judged else curve.labelled,
            chance=chance,
        )
    times = [
        (float(np.log(plan.latency_ratio / raw.latency_ratio)), plan.latency_noise)
        for plan, raw in plans
        if plan.latency_ratio and raw.latency_ratio
    ]
    latency = _factor([off for off, _ in times], [noise for _, noise in times], LATENCY_LEVEL, LATENCY_SPREAD)
    kl = fitted_kl(points, prior_of(round(1 / chance) if chance > 0 else 0))
    return PredictionModel(
        kl=kl,
        law=law,
        judged=judged,
        latency=latency,
        classes=_class_losses(plans),
        plans=len(plans),
        near_kl=_near_kl(plans, kl),
        near_loss=_near_loss(plans, law) if law is not None else None,
        near_latency=_near_latency(plans, latency),
        files={raw.file: plan.size_bytes for plan, raw in plans if raw.file and plan.size_bytes},
    )


def _plain_kl(model: KlModel, raw: Raw) -> tuple[float, float]:
    """KL of a plan as estimates and their common corrections say, and the deviation of its logarithm."""
    assert raw.parts is not None
    doubt = float(np.hypot(model.deviation(raw.parts), raw.by_law * CLIP_SPREAD))
    return model.kl_of(float(model.factors @ raw.parts)), doubt


def _near_kl(plans: Sequence[tuple[MeasuredPlan, Raw]], model: KlModel) -> Anchors | None:
    found = []
    for plan, raw in plans:
        if raw.errors is None or not plan.kl or not np.isfinite(plan.kl) or plan.kl < 0:
            continue
        kl, deviation = _plain_kl(model, raw)
        if kl > 0:
            found.append(Anchor(raw.errors, float(np.log(plan.kl / kl)) / deviation))
    return anchors(found, own=_OWN_KL)


def _near_loss(plans: Sequence[tuple[MeasuredPlan, Raw]], law: AccuracyLaw) -> Anchors | None:
    found = []
    for plan, raw in plans:
        if raw.errors is None or not plan.kl or plan.accuracy is None or plan.base is None:
            continue
        own, measured = law.interval(plan.kl, 0.0), law.base - (plan.base - plan.accuracy)
        reach = own.high - own.value if measured > own.value else own.value - own.low
        found.append(Anchor(raw.errors, (measured - own.value) / max(reach, 1e-9)))
    return anchors(found, own=_OWN_LOSS, furthest=_FURTHEST_LOSS)


def _near_latency(plans: Sequence[tuple[MeasuredPlan, Raw]], latency: Factor) -> Anchors | None:
    return anchors(
        [
            Anchor(
                raw.kernels,
                (float(np.log(plan.latency_ratio / raw.latency_ratio)) - latency.level) / latency.spread,
                plan.latency_noise / latency.spread,
            )
            for plan, raw in plans
            if raw.kernels is not None and plan.latency_ratio and raw.latency_ratio
        ]
    )


def _narrowed(reach: float, own: float, left: float) -> float:
    """One side of an interval of which the law's own part is known to `left`."""
    return float(np.sqrt(max(reach**2 - own**2, 0.0) + (left * own) ** 2))


def _within(found: Interval, worst: float) -> Interval:
    """An interval between what an answer by lot and what a perfect one gets."""
    return Interval(*(min(max(end, worst), 1.0) for end in (found.value, found.low, found.high)))


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
        latency_noise=_noise(result.speedup) if result.speedup else 0.0,
        memory_bytes=result.peak_memory_bytes or None,
        provider=result.provider,
    )


def _noise(speedup: Interval) -> float:
    """Deviation of the logarithm of a speed-up by its interval of 95 %."""
    if not 0 < speedup.low <= speedup.high:
        return 0.0
    return float(np.log(speedup.high / speedup.low)) / (2 * _Z_95)


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
        latency_ms=base.latency_ms.p50 if base.latency_ms is not None else None,
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


def _factor(found: Sequence[float], noise: Sequence[float], prior: float, spread: float) -> Factor:
    """Posterior of a common factor from ln (measured / predicted), each with its noise, by shrinkage."""
    values, own = np.asarray(found, dtype=np.float64), np.asarray(noise, dtype=np.float64)
    level, deviation = 0.0, prior
    for _ in range(5):
        weights = 1 / (spread**2 + own**2)
        precision = float(weights.sum()) + prior**-2
        level, deviation = float(weights @ values) / precision, float(precision**-0.5)
        excess = float(weights @ np.square(values - level))
        spread *= float(np.sqrt((_SPREAD_PLANS + excess) / (_SPREAD_PLANS + len(values))))
    return Factor(level, deviation, spread)
