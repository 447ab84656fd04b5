"""SmoothQuant: moves channels that stand out of activations into weights, as far as it measures better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import affine_qparams
from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.figures import counted, percent
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.precision import Granularity
from quantstudio.core.steps import Need, StepGroup
from quantstudio.core.target import target_named
from quantstudio.engine.calibration.histogram import TensorObserver
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.view import GraphView
from quantstudio.engine.model.derive import derived_graph, editable_copy
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import setting, step
from quantstudio.engine.quantization.activations import ACTIVATION_GRID, range_params
from quantstudio.engine.recovery.channel_means import Samples, prefix_session
from quantstudio.engine.recovery.rounded import rounded_weight
from quantstudio.engine.recovery.smooth_sites import Site, find_sites, scale_slots

FloatArray = NDArray[np.float64]

# Xiao et al. find the best strength between 0.4 and 0.9; weights alone want less (Lin et al. 2023).
_STRENGTHS = (0.15, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Rows of an activation an error is measured on: two digits of it.
_ROWS = 1024
# A channel next to zero on one side would take or give all there is.
_LARGEST_FACTOR = 1e3
# Less than this is within the noise of the rows.
_WORTH_IT = 0.98


@dataclass(frozen=True, slots=True)
class SmoothSettings:
    """What is measured."""

    samples: int = setting(
        128, "Samples", "Samples of the calibration data activations are taken from.", low=1, unit="samples"
    )


@step(
    name="smooth",
    label="Smooth activations",
    explanation="""A channel of an activation that is far larger than the others takes the range from all
    of them. Its factor is moved into the rows of the weights that read it, and out of the
    normalisation, product or Mul before it, which changes no output. How much of it is moved is
    measured for every activation, by the error of the products as the plan rounds both sides; where
    nothing gains, nothing is moved. Fashion-MNIST vit, which has no such channel, gains 0.3 dB with
    static INT8 and 0.8 dB with dynamic. It is for transformers with static or dynamic INT8 activations;
    where weights alone are rounded it protects the rows of large activations. It costs one run of the
    network.""",
    source="Xiao et al. 2022, SmoothQuant, arXiv:2211.10438, eq. 3 and 4; for weights alone Lin et al. 2023, "
    "AWQ, arXiv:2306.00978, eq. 4",
    needs=(Need.DATA, Need.PLAN),
    group=StepGroup.PREPARE,
    keeps_outputs=True,
)
def smooth(
    graph: Graph, context: StepContext, settings: SmoothSettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with factors moved out of activations; its float outputs stay what they were.

    Raises:
        CalibrationError: an activation holds NaN or infinity.
        JobCancelled: `cancel` was set; it is looked at before every batch and activation.
    """
    plan = context.plan
    read = [site for site in find_sites(graph) if _rounded(site, plan)]
    sites = [site for site in read if site.producers and _can_give(site, plan)]
    skipped = len(read) - len(sites)
    left = f" {counted(skipped, 'activation')} had nothing before it that takes a factor." if skipped else ""
    if not sites:
        return StepOutcome(
            graph,
            f"Found no activation of a quantized product to smooth.{left}",
            {"smoothed": 0, "skipped": skipped},
        )
    seen = _observed(graph, sites, Samples(context.dataset, settings.samples, cancel))
    view, model = GraphView(graph.proto), editable_copy(graph)
    found: dict[str, _Choice] = {}
    for position, site in enumerate(sites):
        cancel.raise_if_set()
        reporter.progress(position, len(sites), "activations", f"Smoothing {site.tensor}")
        found[site.tensor] = choice = _chosen(site, seen[site.tensor], view, plan)
        if choice.factors is not None:
            scale_slots(model, site.producers, 1 / choice.factors)
            scale_slots(model, tuple(slot for _, slot in site.readers), choice.factors)
    moved = {name: choice for name, choice in found.items() if choice.factors is not None}
    details = {
        "smoothed": len(moved),
        "kept": len(found) - len(moved),
        "skipped": skipped,
        "strength": {name: choice.strength for name, choice in found.items()},
        "error_before": {name: choice.before for name, choice in found.items()},
        "error_after": {name: choice.after for name, choice in found.items()},
    }
    if not moved:
        return StepOutcome(
            graph,
            f"No activation of {len(found)} gains from smoothing: the graph is as it was.{left}",
            details,
        )
    ratio = float(np.median([choice.after / choice.before for choice in moved.values()]))
    summary = (
        f"Smoothed {len(moved)} of {counted(len(found), 'activation')}: the error of the products that read "
        f"them is {percent(ratio, 0)} of what it was (median).{left}"
    )
    return StepOutcome(derived_graph(graph, model, summary), summary, details)


@dataclass(frozen=True, slots=True)
class _Choice:
    """What was found for an activation.

    Attributes:
        factors: What its channels are divided by, shape [C]; None where nothing gains.
        strength: Share of a channel's size that is moved.
        before: Squared error of the products over their power.
        after: The same with the factors.
    """

    factors: FloatArray | None
    strength: float
    before: float
    after: float


@dataclass(slots=True)
class _Seen:
    """What activations looked like.

    Attributes:
        largest: Largest magnitude per channel, shape [C].
        total: Sum of magnitudes per channel.
        rows: Some of the rows.
    """

    largest: FloatArray
    total: FloatArray
    rows: list[NDArray[np.float32]] = field(default_factory=list)


def _rounded(site: Site, plan: EffectivePlan) -> bool:
    return any(plan.schemes[layer.name].weights.is_integer for layer, _ in site.readers)


def _can_give(site: Site, plan: EffectivePlan) -> bool:
    """Whether the layer before it, if one takes the factors, has a scale for each of its channels."""
    if not site.source:
        return True
    scheme = plan.schemes[site.source]
    return not scheme.weights.is_integer or scheme.granularity is not Granularity.PER_TENSOR


def _observed(graph: Graph, sites: Sequence[Site], samples: Samples) -> dict[str, _Seen]:
    names = [site.tensor for site in sites]
    seen = {site.tensor: _Seen(np.zeros(site.channels), np.zeros(site.channels)) for site in sites}
    prefix = prefix_session(graph.proto, graph, names, samples.cancel)
    batches = max(1, -(-min(samples.count, len(samples.dataset)) // samples.batch_size))
    for _, values in samples.values(prefix.session, names):
        for name in names:
            one, rows = seen[name], values[name].reshape(-1, values[name].shape[-1])
            if not np.isfinite(rows).all():
                raise CalibrationError(
                    f"activation {name!r} holds NaN or infinity",
                    hint=Hint("Check the data and its transform", HintAction.CHOOSE_DATA),
                )
            magnitudes = np.abs(rows.astype(np.float64))
            one.largest = np.maximum(one.largest, magnitudes.max(axis=0, initial=0.0))
            one.total = one.total + magnitudes.sum(axis=0)
            stride = max(1, len(rows) * batches // _ROWS)
            one.rows.append(np.asarray(rows[::stride], dtype=np.float32))
    return seen


def _chosen(site: Site, seen: _Seen, view: GraphView, plan: EffectivePlan) -> _Choice:
    weights = []
    for layer, slot in site.readers:
        value = np.asarray(view.array(layer.weight_name), dtype=np.float32)
        weights.append(value.T if slot.axis else value)
    rows = np.concatenate(seen.rows)
    least = _error(site, rows, weights, np.ones(site.channels), plan)
    best = _Choice(None, 0.0, least, least)
    widest = np.max([np.abs(value).max(axis=1) for value in weights], axis=0).astype(np.float64)
    activations = seen.largest if _has_ranges(site, plan) else seen.total
    alive = (activations > 0) & (widest > 0)
    if not alive.any() or least == 0:
        return best
    for strength in _STRENGTHS:
        factors = np.ones(site.channels)
        power = widest if _has_ranges(site, plan) else np.ones_like(widest)
        factors[alive] = activations[alive] ** strength / power[alive] ** (1 - strength)
        # Only their ratios matter to a scale; about 1 they keep numbers as they are.
        factors[alive] /= np.exp(np.log(factors[alive]).mean())
        factors = np.clip(factors, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
        error = _error(site, rows, weights, factors, plan)
        if error < min(best.after, least * _WORTH_IT):
            best = _Choice(factors, strength, least, error)
    return best


def _has_ranges(site: Site, plan: EffectivePlan) -> bool:
    """Whether the activation itself is rounded for any reader."""
    return any(not plan.schemes[layer.name].is_weight_only for layer, _ in site.readers)


def _error(
    site: Site,
    rows: NDArray[np.float32],
    weights: Sequence[NDArray[np.float32]],
    factors: FloatArray,
    plan: EffectivePlan,
) -> float:
    """Squared error of the products over their power, both sides smoothed and rounded as the plan does."""
    smoothed = (rows / factors).astype(np.float32)
    total = 0.0
    for (layer, slot), weight in zip(site.readers, weights, strict=True):
        scaled = (weight * factors[:, None]).astype(np.float32)
        made = rounded_weight(np.ascontiguousarray(scaled.T) if slot.axis else scaled, layer, plan)
        if made is None:
            continue
        expected = rows @ weight
        power = float(np.square(expected, dtype=np.float64).sum())
        found = _rounded_rows(smoothed, layer.name, plan) @ (made.T if slot.axis else made)
        total += float(np.square(found - expected, dtype=np.float64).sum()) / max(power, 1e-30)
    return total / len(site.readers)


def _rounded_rows(rows: NDArray[np.float32], layer: str, plan: EffectivePlan) -> NDArray[np.float32]:
    """An activation as a layer reads it."""
    scheme = plan.schemes[layer]
    if scheme.is_static:
        observer = TensorObserver(layer)
        observer.observe(rows)
        grid = target_named(plan.target).activation_grid(scheme.activations.bits)
        params = range_params(observer.histogram(), plan.calibration, None, grid)
        scale, zero = params.scale, params.zero_point
    elif scheme.is_dynamic:
        grid = ACTIVATION_GRID
        scale, zero = affine_qparams(float(rows.min()), float(rows.max()), grid)
    else:
        return rows
    integers = np.clip(np.rint(rows / scale) + zero, grid.low, grid.high)
    return np.asarray((integers - zero) * scale, dtype=np.float32)
