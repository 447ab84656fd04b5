"""How much the whole network suffers when one layer alone is quantized, for every layer and precision.

`fisher_sensitivity` estimates it for all layers and precisions from one forward and backward pass;
`exact_sensitivity` measures it one layer at a time. Both give KL divergences from the FP32 output in nats.
Layers are ranked by KL: weight SQNR and local SQNR rank them wrongly, and accuracy moves in whole samples.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from quantstudio.core.codec import to_json
from quantstudio.core.errors import RecipeError, UnsupportedOpError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, Severity
from quantstudio.core.layers import LayerInfo
from quantstudio.core.results import AccuracyCurve, LayerSensitivity, Provenance, SensitivityResult
from quantstudio.core.statistics import Statistics
from quantstudio.engine.analysis.accuracy_curve import accuracy_curve
from quantstudio.engine.analysis.divergence import (
    Array,
    OutputKind,
    log_probabilities,
)
from quantstudio.engine.analysis.exact import ExactScorer, Measured, check_override
from quantstudio.engine.analysis.fisher import FisherPass, LayerProbe, torch_threads
from quantstudio.engine.analysis.sensitivity_job import SensitivityJob, reads_floats
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.model.graph import Graph
from quantstudio.engine.runtime import worker_threads
from quantstudio.engine.torch_graph.module import TorchGraph

DEFAULT_PRECISIONS = ("int8", "int4", "int8-activations")
DEFAULT_REFERENCE = "int4"
KIND = "sensitivity"

_SEED = 0
_Z95 = 1.96

# What the forward pass may hold for the backward pass. Batches beyond 32 gain nothing: their activations no
# longer fit the cache.
_ACTIVATION_BYTES = 256 * 2**20
_LARGEST_BATCH = 32
# Enough for the spread of a value output within a few per cent, at a small part of a pass.
_DEVIATION_SAMPLES = 256


def fisher_sensitivity(
    graph: Graph,
    dataset: Dataset,
    *,
    samples: int = 512,
    precisions: Sequence[str] = DEFAULT_PRECISIONS,
    reference: str = DEFAULT_REFERENCE,
    statistics: Statistics | None = None,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> SensitivityResult:
    """Predicted sensitivity of every quantizable layer, from one forward and backward pass.

    Every layer gets a first estimate after the first batch, refined as more come in. Layers that no gradient
    reaches, and models torch cannot run, are measured exactly instead (method "exact").

    Args:
        graph: The network.
        dataset: Samples; labels are used for the accuracy curve only.
        samples: How many of them.
        precisions: "int8", "int6", "int4", "int3", "int2", "binary" for weights alone (per output channel;
            least squared error below 8 bits), "int8-activations", "int4-activations" for inputs alone.
        reference: Precision of the headline `kl`. Layers that cannot have it (products of two activations)
            are headed by the first precision they can have.
        statistics: Calibrated activation ranges; without, the range of the samples themselves.

    Returns:
        All layers that can have one of the precisions, in execution order; `by_precision` is keyed by them.

    Raises:
        RecipeError: a precision is unknown.
        DataError: there are no samples.
        JobCancelled: the token was set; results of finished layers were reported.

    Source: see `fisher`.
    """
    started = time.perf_counter()
    job = SensitivityJob.prepare(graph, dataset, samples, precisions, reference, statistics, reporter, cancel)
    job.cancel.raise_if_set()
    try:
        module = TorchGraph(graph.proto)
        with torch_threads(worker_threads()):
            found, unreachable, logits = _estimate(job, module)
    except UnsupportedOpError as error:
        reporter.message(f"{error.one_line} Sensitivity is measured layer by layer instead", Severity.WARNING)
        return _measured_result(job, job.layers, started)
    if unreachable:
        names = ", ".join(sorted(unreachable)[:3])
        reporter.message(f"No gradient reaches {names}: measured one by one instead")
        measured, _ = _measure(job, [layer for layer in job.layers if layer.name in unreachable])
        found.update(measured)
    return SensitivityResult(
        method="fisher",
        samples=job.samples,
        seconds=time.perf_counter() - started,
        reference=reference,
        layers=tuple(found[layer.name] for layer in job.layers if layer.name in found),
        curve=_curve(job, logits, are_probabilities=False),
        provenance=Provenance.PREDICTED,
    )


def exact_sensitivity(
    graph: Graph,
    dataset: Dataset,
    *,
    samples: int = 512,
    precisions: Sequence[str] = DEFAULT_PRECISIONS,
    reference: str = DEFAULT_REFERENCE,
    layers: Collection[str] | None = None,
    statistics: Statistics | None = None,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> SensitivityResult:
    """Measured sensitivity: each layer alone quantized and run in ONNX Runtime on every sample.

    Args:
        graph: The network.
        dataset: Samples; with class labels the accuracy drop is measured too.
        samples: How many of them.
        precisions: As for `fisher_sensitivity`.
        reference: Precision of the headline figures.
        layers: Names of the layers to measure; None for all quantizable ones.
        statistics: Calibrated activation ranges; without, the range of the samples themselves.

    Raises:
        RecipeError: a precision or layer is unknown.
        DataError: there are no samples.
        MeasureError: the runtime does not honour a replaced weight.
        JobCancelled: the token was set; results of finished layers were reported.
    """
    started = time.perf_counter()
    job = SensitivityJob.prepare(graph, dataset, samples, precisions, reference, statistics, reporter, cancel)
    chosen = job.layers
    if layers is not None:
        unknown = sorted(set(layers) - {layer.name for layer in chosen})
        if unknown:
            raise RecipeError(
                f"layer {unknown[0]!r} is not a quantizable layer of this model",
                hint="Run `quantstudio inspect MODEL` for the layer names",
            )
        chosen = tuple(layer for layer in chosen if layer.name in set(layers))
    return _measured_result(job, chosen, started)


# -- the estimate ----------------------------------------------------------------------------------


def _estimate(
    job: SensitivityJob, module: TorchGraph
) -> tuple[dict[str, LayerSensitivity], set[str], list[tuple[Array, ...]]]:
    """Layers found, layers out of reach, outputs of each batch."""
    fisher = FisherPass(
        module, _probes(job, module, job.layers), job.objective, ranges=job.known_ranges(), seed=_SEED
    )
    size = _batch_size(job, fisher)
    if job.objective.kind is OutputKind.VALUES:
        first = next(job.dataset.batches(_DEVIATION_SAMPLES, stop=job.samples))
        fisher.set_deviations(first.feed, first.count)
    tally = _Tally(job)
    logits: list[tuple[Array, ...]] = []
    unreachable: set[str] = set()
    total = -(-job.samples // size)
    for done, batch in enumerate(job.dataset.batches(size, stop=job.samples), start=1):
        job.cancel.raise_if_set()
        effects = fisher.run(
            batch.feed, batch.count, job.dataset.fixed_batch or batch.count, with_sqnr=done == 1
        )
        logits.append(effects.outputs)
        unreachable.update(effects.unreachable)
        tally.add(effects.effects, effects.sqnr)
        # The first batch fills every row of the table; then at 2, 4, 8, ... batches: each refinement halves
        # the variance, and hundreds of events a second would help nobody.
        if done & (done - 1) == 0 or done == total:
            for layer in tally.layers():
                job.reporter.layer_finished(layer.name, KIND, to_json(layer))
        job.reporter.progress(done, total, "batches", "Estimating sensitivity")
    reached = {layer.name: layer for layer in tally.layers()}
    missing = {layer.name for layer in job.layers} - set(reached)
    return reached, unreachable | missing, logits


def _probes(job: SensitivityJob, module: TorchGraph, layers: Sequence[LayerInfo]) -> list[LayerProbe]:
    probes = []
    for layer in layers:
        job.cancel.raise_if_set()
        errors: dict[str, torch.Tensor] = {}
        slot = None
        node = module.node(layer.name)
        if layer.weight_name:
            slot = node.inputs.index(layer.weight_name)
            weight = job.weights[layer.weight_name]
            for precision in job.weight_precisions:
                error = job.dequantized(layer, precision) - weight
                errors[precision] = torch.from_numpy(np.ascontiguousarray(error))
        grids = job.grids_of(layer)
        probes.append(LayerProbe(layer, slot, errors, grids, job.headline(layer, [*errors, *grids])))
    return probes


def _batch_size(job: SensitivityJob, fisher: FisherPass) -> int:
    """Samples a batch, after finding where the samples are in every tensor."""
    data = job.dataset
    if data.fixed_batch is not None:
        fisher.assume_layouts(next(data.batches(data.fixed_batch)).feed, data.fixed_batch)
        return data.fixed_batch
    if len(data) < 3:
        fisher.assume_layouts(next(data.batches(1)).feed, 1)
        return 1
    fisher.find_layouts(next(data.batches(2, stop=2)).feed, next(data.batches(3, stop=3)).feed)
    # Gradients and handles double what the forward pass holds.
    fits = _ACTIVATION_BYTES // max(2 * fisher.bytes_per_sample, 1)
    return max(1, min(_LARGEST_BATCH, fits))


class _Tally:
    """Effects of all batches so far, as layer sensitivities."""

    def __init__(self, job: SensitivityJob) -> None:
        self._job = job
        self._effects: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
        self._sqnr: dict[str, float] = {}

    def add(
        self, effects: Mapping[str, Mapping[str, NDArray[np.float64]]], sqnr: Mapping[str, float]
    ) -> None:
        """Count one batch."""
        for name, by_precision in effects.items():
            kept = self._effects.setdefault(name, {})
            for precision, values in by_precision.items():
                kept.setdefault(precision, []).append(values)
        self._sqnr.update(sqnr)

    def layers(self) -> list[LayerSensitivity]:
        """Every layer seen, in execution order."""
        found = []
        for layer in self._job.layers:
            effects = self._effects.get(layer.name)
            if not effects:
                continue
            joined = {precision: np.concatenate(parts) for precision, parts in effects.items()}
            headline = self._job.headline(layer, joined)
            found.append(
                _layer_sensitivity(layer, joined, headline, self._sqnr.get(layer.name, np.nan), "fisher")
            )
        return found


def _layer_sensitivity(
    layer: LayerInfo,
    divergences: Mapping[str, NDArray[np.float64]],
    headline: str,
    sqnr: float,
    method: str,
    accuracy_drop: float | None = None,
) -> LayerSensitivity:
    values = divergences[headline]
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else mean
    return LayerSensitivity(
        name=layer.name,
        kl=mean,
        kl_low=max(mean - _Z95 * error, 0.0),
        kl_high=mean + _Z95 * error,
        sqnr_db=float(sqnr),
        accuracy_drop=accuracy_drop,
        by_precision={precision: float(v.mean()) for precision, v in divergences.items()},
        method=method,
    )


def _curve(
    job: SensitivityJob, outputs: Sequence[Sequence[Array]], *, are_probabilities: bool
) -> AccuracyCurve | None:
    """Accuracy against KL, for one class score a sample."""
    if job.objective.kind is not OutputKind.CLASSES or not outputs or outputs[0][0].ndim != 2:
        return None
    scores = np.concatenate([parts[0] for parts in outputs])
    if scores.shape[1] < 2:
        return None
    logits = log_probabilities(scores, replace(job.objective, is_probability=are_probabilities))
    labels = job.dataset.labels
    if labels is None or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return accuracy_curve(logits)
    return accuracy_curve(logits, np.asarray(labels[: len(logits)], dtype=np.int64))


# -- the measurement -------------------------------------------------------------------------------


def _measured_result(job: SensitivityJob, layers: Sequence[LayerInfo], started: float) -> SensitivityResult:
    found, scorer = _measure(job, layers)
    return SensitivityResult(
        method="exact",
        samples=job.samples,
        seconds=time.perf_counter() - started,
        reference=job.reference,
        layers=tuple(found[layer.name] for layer in layers if layer.name in found),
        curve=_curve(job, [scorer.outputs], are_probabilities=job.objective.is_probability),
        provenance=Provenance.MEASURED,
    )


def _measure(
    job: SensitivityJob, layers: Sequence[LayerInfo]
) -> tuple[dict[str, LayerSensitivity], ExactScorer]:
    scorer = ExactScorer(job.graph, job.dataset, job.objective, samples=job.samples, cancel=job.cancel)
    weighted = [layer for layer in layers if layer.weight_name and not layer.scope]
    if weighted and job.weight_precisions:
        check_override(job.graph, weighted[0], scorer)
    ranges = _measured_ranges(job, layers, scorer)
    sqnr = _reference_sqnr(job, layers)
    found: dict[str, LayerSensitivity] = {}
    for done, layer in enumerate(layers, start=1):
        divergences: dict[str, NDArray[np.float64]] = {}
        drops: dict[str, float] = {}
        for precision in (*job.weight_precisions, *job.grids_of(layer)):
            job.cancel.raise_if_set()
            measured = _measure_one(job, scorer, layer, precision, ranges)
            if measured is None:
                continue
            divergences[precision] = measured.divergence
            if measured.hits is not None and scorer.base_hits is not None:
                drops[precision] = 100 * float(scorer.base_hits.mean() - measured.hits.mean())
        if not divergences:
            job.reporter.message(f"{layer.name}: none of the precisions asked for can be tried here")
            continue
        headline = job.headline(layer, divergences)
        found[layer.name] = _layer_sensitivity(
            layer, divergences, headline, sqnr.get(layer.name, np.nan), "exact", drops.get(headline)
        )
        job.reporter.layer_finished(layer.name, KIND, to_json(found[layer.name]))
        job.reporter.progress(done, len(layers), "layers", "Measuring sensitivity")
    return found, scorer


def _measure_one(
    job: SensitivityJob,
    scorer: ExactScorer,
    layer: LayerInfo,
    precision: str,
    ranges: Mapping[tuple[str, str], tuple[float, float]],
) -> Measured | None:
    """One layer at one precision; None where it cannot have it."""
    if precision in job.grids:
        known = {name: ranges[name, precision] for name in layer.inputs if (name, precision) in ranges}
        return scorer.activations(layer, known, job.grids[precision]) if known else None
    return scorer.weights(layer, job.dequantized(layer, precision)) if layer.weight_name else None


def _measured_ranges(
    job: SensitivityJob, layers: Sequence[LayerInfo], scorer: ExactScorer
) -> dict[tuple[str, str], tuple[float, float]]:
    ranges = job.known_ranges()
    if not job.grids:
        return ranges
    # Tensors inside an If or Loop body cannot be watched from outside.
    read = {name for layer in layers if not layer.scope and reads_floats(layer) for name in layer.inputs}
    missing = tuple(sorted(name for name in read if not any(known[0] == name for known in ranges)))
    seen = scorer.observed_ranges(missing) if missing else {}
    ranges.update({(name, precision): limits for name, limits in seen.items() for precision in job.grids})
    return ranges


def _reference_sqnr(job: SensitivityJob, layers: Sequence[LayerInfo]) -> dict[str, float]:
    """SQNR of each layer's own output on a few samples; nothing where torch cannot run the graph."""
    try:
        module = TorchGraph(job.graph.proto)
        fisher = FisherPass(
            module, _probes(job, module, layers), job.objective, ranges=job.known_ranges(), seed=_SEED
        )
        with torch_threads(worker_threads()):
            size = _batch_size(job, fisher)
            batch = next(job.dataset.batches(size, stop=min(size, job.samples)))
            return fisher.output_sqnr(batch.feed)
    except UnsupportedOpError:
        return {}
