"""What a plan will cost, predicted from tables measured once: within a screen frame, without a runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.costs import CostTable
from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import FP32, LayerScheme
from quantstudio.core.predict.accuracy_law import RATE
from quantstudio.core.predict.cost_columns import CostColumns
from quantstudio.core.predict.kl_model import Array, kl_parts, part_names
from quantstudio.core.predict.model import Judged, MeasuredPlan, PredictionModel, Raw, fitted_model
from quantstudio.core.record import Record
from quantstudio.core.results import AccuracyCurve, Interval, LayerSensitivity
from quantstudio.core.steps import Step

# Classes hang on the direction of errors, which a mean over samples does not know: deviation of
# ln KL of one, and of the loss for each of its answers that changes, as one class gains what another loses.
_CLASS_KL, _CLASS_SCATTER = 0.8, 0.8
# How fast what another plan showed loses weight as its layers differ: power of the cosine.
_ALIKE = 8


@dataclass(frozen=True, slots=True)
class ClassPrediction:
    """The class that may well lose most.

    Attributes:
        name: Class.
        base: Its accuracy in FP32.
        accuracy: Predicted, with its interval.
    """

    name: str
    base: float
    accuracy: Interval


@dataclass(frozen=True, slots=True)
class Prediction(Record):
    """Predicted cost of a plan; None where the needed table is not there yet.

    Attributes:
        size_bytes: File size.
        weight_bytes: Bytes of all layer parameters with scales; exact.
        kl: Expected KL divergence from FP32 (nats).
        accuracy: Top-1 (or agreement with FP32 where unlabelled) with its interval, 0 to 1, on the data
            variants are measured on, or on the calibration data before FP32 was measured.
        latency_ms: Median latency.
        quantized: Layers with an integer scheme.
        unpriced: Layers in a scheme whose KL nobody has measured.
        worst_class: The class that loses most.
        memory_bytes: Peak memory of a fresh process that runs one sample.
        rate: Part of the variants the intervals are meant to hold, 0 to 1.
        plans: Measured variants the prediction was corrected by.
        left_out: Steps of the plan of which the figures do not know what they win or cost, by name: they look
            at the precisions, or change what the float network computes. Measurements show it.
    """

    size_bytes: int | None
    weight_bytes: int | None
    kl: float | None
    accuracy: Interval | None
    latency_ms: float | None
    quantized: int
    unpriced: int
    worst_class: ClassPrediction | None = None
    memory_bytes: int | None = None
    rate: float = RATE
    plans: int = 0
    left_out: tuple[str, ...] = ()


class PredictionTable:
    """Everything that depends on no precision, as arrays: a flipped layer is priced within a screen frame."""

    def __init__(
        self,
        layers: Sequence[LayerInfo],
        *,
        costs: CostTable | None = None,
        sensitivity: Mapping[str, LayerSensitivity] | None = None,
        curve: AccuracyCurve | None = None,
        classes: Sequence[str] = (),
        steps: Sequence[Step] = (),
        changing: Sequence[str] = (),
    ) -> None:
        """Arrange the tables.

        Args:
            layers: The model's layers.
            costs: Bytes and times, or None before they are known.
            sensitivity: KL by layer and precision.
            curve: Accuracy against KL.
            classes: Names of the classes of `LayerSensitivity.by_class`.
            steps: Those the graph had behind it of which costs and sensitivity tell.
            changing: Names of those that change what the float network computes: nothing here knows by how
                much.
        """
        self.steps = tuple(steps)
        self._changing = tuple(changing)
        self.layers = tuple(layers)
        self.curve = curve
        self.classes = tuple(classes)
        self._rows = [(sensitivity or {}).get(layer.name) for layer in self.layers]
        self._has_sensitivity = bool(sensitivity)
        self._costs = CostColumns(self.layers, costs) if costs is not None else None
        self._shares = self._class_shares()
        # One entry per scheme that was ever asked for, growing; index 0 is FP32.
        self._schemes: dict[LayerScheme, int] = {}
        self._kl: list[tuple[tuple[int, int], Array]] = []
        self._scheme(FP32)

    @property
    def fp32_ms(self) -> float:
        """Median FP32 latency in milliseconds; 0 where not measured."""
        return self._costs.fp32_ms if self._costs is not None else 0.0

    # Reading plans.

    def is_of(self, plan: EffectivePlan) -> bool:
        """Whether the tables are of the graph this plan is for: one that began with the same steps."""
        return plan.steps[: len(self.steps)] == self.steps

    def raw(self, plan: EffectivePlan) -> Raw:
        """A plan before correction: what a model is fitted from."""
        if not self.is_of(plan):
            return Raw(None, None)
        chosen = self._assigned(plan)
        parts, single, unpriced = self._parts(chosen)
        ratio = self._costs.latency_ratio(chosen, list(self._schemes)) if self._costs else None
        if not self._has_sensitivity or unpriced:
            return Raw(None, ratio)
        return Raw(parts, ratio, _profile(single), self.classes)

    def known_parts(self, plan: EffectivePlan) -> Array:
        """Summed estimates of KL of a plan, layers without an estimate left out."""
        return self._parts(self._assigned(plan))[0]

    def known_kl(self, plan: EffectivePlan, model: PredictionModel) -> float:
        """The expected KL of a plan (nats), layers without an estimate left out."""
        return model.kl.kl_of(float(model.kl.factors @ self.known_parts(plan)))

    def predict(self, plan: EffectivePlan, model: PredictionModel | None = None) -> Prediction:
        """The cost of a plan; of one that is for another graph than the tables nothing is known.

        Args:
            plan: What every layer becomes, and behind which steps.
            model: What measured plans taught; None for what other networks showed.
        """
        model = model or fitted_model((), self.curve)
        chosen = self._assigned(plan)
        schemes = list(self._schemes)
        is_quantized = np.asarray([not scheme.is_float for scheme in schemes])
        quantized = int(is_quantized[chosen].sum())
        if not self.is_of(plan):
            return Prediction(None, None, None, None, None, quantized, quantized)
        parts, single, unpriced = self._parts(chosen)
        is_known = self._has_sensitivity and not unpriced
        kl = model.kl.kl_of(float(model.kl.factors @ parts)) if is_known else None
        deviation = model.kl.deviation(parts) if is_known else 0.0
        costs = self._costs
        return Prediction(
            size_bytes=costs.size_bytes(chosen, schemes) if costs else None,
            weight_bytes=costs.weight_bytes(chosen, schemes) if costs else None,
            kl=kl,
            accuracy=None if kl is None or model.law is None else model.law.interval(kl, deviation),
            latency_ms=self._latency_ms(chosen, schemes, model) if costs else None,
            quantized=quantized,
            unpriced=unpriced if self._has_sensitivity else quantized,
            worst_class=None if kl is None else self._worst_class(model, single, kl, deviation),
            memory_bytes=costs.memory_bytes(chosen, schemes, model.judged) if costs else None,
            plans=model.plans,
            left_out=(*self._changing, *(step.name for step in plan.steps[len(self.steps) :])),
        )

    def _latency_ms(
        self, chosen: NDArray[np.intp], schemes: Sequence[LayerScheme], model: PredictionModel
    ) -> float | None:
        assert self._costs is not None
        ratio = self._costs.latency_ratio(chosen, schemes)
        if ratio is None:
            return None
        corrected = ratio * (model.latency.value if (chosen != 0).any() else 1.0)
        return corrected * self._costs.fp32_ms

    # KL.

    def _parts(self, chosen: NDArray[np.intp]) -> tuple[Array, Array, int]:
        """Summed estimates by part, estimates of every layer [parts, layers], and layers without one."""
        single = np.zeros((len(part_names()), len(self.layers)))
        unpriced = 0
        for index in np.unique(chosen):
            (part, activations), own = self._kl[index]
            where = np.flatnonzero(chosen == index)
            estimated = own[:, where]
            unpriced += int(np.isnan(estimated[0]).sum())
            estimated = np.nan_to_num(estimated)
            if activations >= 0:
                single[activations, where] = estimated[1]
            if part >= 0:
                single[part, where] = estimated[0]
        return np.asarray(single.sum(axis=1)), single, unpriced

    def _scheme(self, scheme: LayerScheme) -> int:
        """The number of a scheme."""
        known = self._schemes.get(scheme)
        if known is not None:
            return known
        self._schemes[scheme] = len(self._schemes)
        own = np.zeros((2, len(self.layers)))
        names = part_names()
        part = names.index(scheme.weights.name) if scheme.weights.is_integer else -1
        activations = scheme.activations.sensitivity_name
        for index, (layer, row) in enumerate(zip(self.layers, self._rows, strict=True)):
            parts = kl_parts(row, scheme, reads_floats=layer.op_type != "Gather")
            own[0, index] = np.nan if parts is None else parts.get(scheme.weights.name, 0.0)
            own[1, index] = np.nan if parts is None else parts.get(activations, 0.0)
        self._kl.append(((part, names.index(activations) if activations in names else -1), own))
        return self._schemes[scheme]

    def _assigned(self, plan: EffectivePlan) -> NDArray[np.intp]:
        """The scheme of every layer, by its number."""
        given = [plan.schemes.get(layer.name, FP32) for layer in self.layers]
        # Layers share the few schemes a recipe holds; to hash one takes longer than all the rest.
        numbers = {key: self._scheme(scheme) for key, scheme in {id(one): one for one in given}.items()}
        return np.asarray([numbers[id(scheme)] for scheme in given], dtype=np.intp)

    # Classes.

    def _class_shares(self) -> Array | None:
        """KL of each class over the mean one, [layers, classes]; None where no layer knows."""
        count = len(self.classes)
        if not count:
            return None
        shares = np.ones((len(self.layers), count))
        is_known = False
        for index, row in enumerate(self._rows):
            if row is None or len(row.by_class) != count or not row.kl > 0:
                continue
            own = np.asarray(row.by_class, dtype=np.float64)
            shares[index] = np.where(np.isfinite(own), np.maximum(own, 0.0) / row.kl, 1.0)
            is_known = True
        return shares if is_known else None

    def _by_class(
        self, model: PredictionModel, single: Array, kl: float, deviation: float
    ) -> tuple[Array, tuple[Array, Array, Array]] | None:
        """Base accuracy and predicted accuracies of every class."""
        law = model.law
        if self._shares is None or law is None:
            return None
        known = self._class_bases(model.judged)
        if known is None:
            return None
        base, support = known
        weighted = model.kl.factors @ single
        total = float(weighted.sum())
        own = kl * (weighted @ self._shares) / total if total > 0 else np.zeros(len(base))
        doubt = float(np.hypot(deviation, _CLASS_KL))
        value, low, high = law.intervals(own, doubt, base, support, _CLASS_SCATTER)
        if model.classes is not None and kl > 0:
            share = max(float(law.share_changed(np.asarray(kl))), 1e-12)
            expected = (base - value) / share
            # Plans in which the same layers suffer hurt the same classes; the estimate counts for one more.
            alike = np.clip(model.classes.profiles @ _profile(single), 0.0, 1.0) ** _ALIKE
            found = (alike @ model.classes.losses + expected) / (alike.sum() + 1)
            shift = np.where(np.isfinite(found), share * (found - expected), 0.0)
            # What classes lose elsewhere widens the interval: it may be so here, or not.
            value = np.clip(value - shift, low, high)
            low = np.clip(low - np.maximum(shift, 0.0), 0.0, 1.0)
            high = np.clip(high - np.minimum(shift, 0.0), 0.0, 1.0)
        return base, (value, low, high)

    def _worst_class(
        self, model: PredictionModel, single: Array, kl: float, deviation: float
    ) -> ClassPrediction | None:
        if kl <= 0:
            return None
        found = self._by_class(model, single, kl, deviation)
        if found is None:
            return None
        base, (value, low, high) = found
        if not np.isfinite(base).any():
            return None
        # Until a plan was measured, by what it may well lose: expectations of classes lie close together.
        index = int(np.nanargmax(base - (low if model.classes is None else value)))
        interval = Interval(float(value[index]), float(low[index]), float(high[index]))
        return ClassPrediction(self.classes[index], float(base[index]), interval)

    def _class_bases(self, judged: Judged | None) -> tuple[Array, Array] | None:
        """FP32 accuracy and samples of every class: measured, else of the calibration data."""
        if judged is not None and all(name in judged.classes for name in self.classes):
            rows = [judged.classes[name] for name in self.classes]
            return np.asarray([r[0] for r in rows]), np.asarray([float(r[1]) for r in rows])
        curve = self.curve
        if curve is None or len(curve.by_class) != len(self.classes):
            return None
        count = len(self.classes)
        return np.asarray(curve.by_class), np.full(count, curve.samples / count)


def _profile(single: Array) -> Array:
    """Which layers the KL of a plan comes from: roots of their parts, length 1."""
    roots = np.sqrt(single.sum(axis=0))
    return np.asarray(roots / max(float(np.linalg.norm(roots)), 1e-30))


def predict(
    layers: Sequence[LayerInfo],
    plan: EffectivePlan,
    *,
    costs: CostTable | None,
    sensitivity: Mapping[str, LayerSensitivity],
    curve: AccuracyCurve | None,
    classes: Sequence[str] = (),
    model: PredictionModel | None = None,
) -> Prediction:
    """The cost of one plan; who asks for many keeps a `PredictionTable`."""
    table = PredictionTable(layers, costs=costs, sensitivity=sensitivity, curve=curve, classes=classes)
    return table.predict(plan, model)


def fit_prediction(
    table: PredictionTable, plans: Sequence[MeasuredPlan], judged: Judged | None = None
) -> PredictionModel:
    """What measured plans teach; with none, what other networks showed.

    Args:
        table: Tables of the network.
        plans: Measured plans.
        judged: FP32 on the data they were judged on.
    """
    return fitted_model([(plan, table.raw(plan.plan)) for plan in plans], table.curve, judged)
