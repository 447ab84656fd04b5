"""What a plan will cost, predicted from tables measured once: within a screen frame, without a runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantstudio.core.costs import CostTable, FileForm
from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.layers import LayerInfo
from quantstudio.core.predict.accuracy_law import RATE
from quantstudio.core.predict.clip_loss import Distributions
from quantstudio.core.predict.cost_columns import CostColumns, GivenSchemes
from quantstudio.core.predict.kl_columns import Chosen, Estimates, KlColumns
from quantstudio.core.predict.kl_model import Array
from quantstudio.core.predict.model import Judged, MeasuredPlan, PredictionModel, Raw, fitted_model
from quantstudio.core.recipe import PACKED_FILES, SHARED_VALUES
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
        size_bytes: File size; off by up to one percent unless `is_size_exact`.
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
        accuracy_at_most: What the accuracy is not above, where `accuracy` is None because errors of layers no
            longer add up: the network may collapse, and only a measurement knows how far.
        fp32_ms: Median latency of FP32 that `latency_ms` is held against.
        is_size_exact: Whether a file that holds the same was written.
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
    accuracy_at_most: float | None = None
    fp32_ms: float | None = None
    is_size_exact: bool = False


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
        distributions: Distributions | None = None,
        edges: Sequence[tuple[int, int]] = (),
        weight_bits: int = 8,
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
            distributions: Of weights and activations, which tell what ranges set by hand cost.
            edges: Pairs (producer layer, consumer layer) by index.
            weight_bits: Bits an integer kernel of the target of the plans may take of a weight.
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
        self._kl = KlColumns(self.layers, self._rows, distributions or Distributions(), edges, weight_bits)

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
        chosen = self._kl.assigned(plan)
        return self._raw(chosen, self._given(chosen, plan), plan, self._kl.estimates(chosen, plan))

    def _given(self, chosen: Chosen, plan: EffectivePlan) -> GivenSchemes | None:
        if self._costs is None:
            return None
        packed = FileForm.SHARED if plan.emission >= SHARED_VALUES else FileForm.PACKED
        form = FileForm.UNPACKED if plan.unpacked else packed
        if plan.emission < PACKED_FILES:
            form = FileForm.INT8
        return self._costs.given(chosen, self._kl.schemes, form=form)

    def _raw(self, chosen: Chosen, given: GivenSchemes | None, plan: EffectivePlan, found: Estimates) -> Raw:
        costs, scope = self._costs, plan.activation_scope
        ratio = costs.latency_ratio(given) if costs and given else None
        kernels = costs.kernels(given, scope) if costs and given and ratio else None
        # What steps leave in a file nobody priced.
        file = costs.file_of(given, scope) if costs and given and not plan.steps else None
        is_float = not (chosen != 0).any()
        if not self._has_sensitivity or found.unpriced:
            return Raw(None, ratio, kernels=kernels, is_float=is_float, file=file)
        return Raw(
            parts=found.parts,
            latency_ratio=ratio,
            profile=_profile(found.single),
            classes=self.classes,
            by_law=found.by_law,
            errors=found.trace,
            kernels=kernels,
            is_float=is_float,
            file=file,
        )

    def known_parts(self, plan: EffectivePlan) -> Array:
        """Summed estimates of KL of a plan, layers without an estimate left out."""
        return self._kl.estimates(self._kl.assigned(plan), plan).parts

    def known_kl(self, plan: EffectivePlan, model: PredictionModel) -> float:
        """The expected KL of a plan (nats), layers without an estimate left out."""
        return model.kl.kl_of(float(model.kl.factors @ self.known_parts(plan)))

    def by_layer(self, plan: EffectivePlan, model: PredictionModel) -> Array:
        """What every layer adds to the sum behind the KL of a plan, [layers]."""
        found = self._kl.estimates(self._kl.assigned(plan), plan)
        return np.asarray(model.kl.factors @ found.single)

    def predict(self, plan: EffectivePlan, model: PredictionModel | None = None) -> Prediction:
        """The cost of a plan; of one that is for another graph than the tables nothing is known.

        Args:
            plan: What every layer becomes, and behind which steps.
            model: What measured plans taught; None for what other networks showed.
        """
        model = model or self.fitted(())
        chosen = self._kl.assigned(plan)
        counts = np.bincount(chosen, minlength=1).tolist()
        quantized = sum(
            n for n, scheme in zip(counts, self._kl.schemes, strict=False) if n and not scheme.is_float
        )
        if not self.is_of(plan):
            return Prediction(None, None, None, None, None, quantized, quantized)
        found = self._kl.estimates(chosen, plan)
        given, costs = self._given(chosen, plan), self._costs
        raw = self._raw(chosen, given, plan, found)
        kl, deviation = (None, 0.0) if raw.parts is None else model.expected_kl(raw)
        accuracy = None if kl is None else model.accuracy(raw, kl, deviation)
        value = accuracy.value if accuracy is not None else None
        ratio = model.latency_ratio(raw)
        written = model.files.get(raw.file) if raw.file is not None else None
        is_whole = costs and given and costs.is_priced_whole(given, plan.activation_scope)
        return Prediction(
            size_bytes=costs.size_bytes(given) if costs and given and written is None else written,
            weight_bytes=costs.weight_bytes(given) if costs and given else None,
            kl=kl,
            accuracy=value,
            latency_ms=None if ratio is None else ratio * self.measured_fp32_ms(model),
            quantized=quantized,
            unpriced=found.unpriced if self._has_sensitivity else quantized,
            worst_class=None
            if kl is None or value is None
            else self._worst_class(model, found.single, kl, deviation),
            memory_bytes=costs.memory_bytes(given, model.judged) if costs and given else None,
            plans=model.plans,
            left_out=(*self._changing, *(step.name for step in plan.steps[len(self.steps) :])),
            accuracy_at_most=accuracy.at_most if accuracy is not None and value is None else None,
            fp32_ms=self.measured_fp32_ms(model) or None,
            is_size_exact=written is not None or bool(is_whole and raw.file is not None),
        )

    def fitted(
        self, plans: Sequence[tuple[MeasuredPlan, Raw]], judged: Judged | None = None
    ) -> PredictionModel:
        """The model that fits measured plans, as `raw` reads them."""
        return fitted_model(plans, self.curve, judged, self._chance(judged))

    def _chance(self, judged: Judged | None) -> float:
        """Accuracy of an answer drawn by lot; 0 where nobody knows how many classes there are."""
        by_class = self.curve.by_class if self.curve is not None else ()
        count = len(self.classes) or len(judged.classes if judged is not None else ()) or len(by_class)
        return 1 / count if count else 0.0

    def measured_fp32_ms(self, model: PredictionModel) -> float:
        """What FP32 takes: as it was measured beside variants, else as costs were."""
        measured = model.judged.latency_ms if model.judged is not None else None
        return measured or self.fp32_ms

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
        lost = base - (low if model.classes is None else value)
        index = int(np.where(np.isnan(lost), -np.inf, lost).argmax())
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
    return table.fitted([(plan, table.raw(plan.plan)) for plan in plans], judged)
