"""The Fisher estimate over a data set: batches in, layer sensitivities out, refined as more samples come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from quantstudio.core.codec import to_json
from quantstudio.core.errors import MeasureError, UnsupportedOpError
from quantstudio.core.layers import LayerInfo
from quantstudio.core.results import LayerSensitivity
from quantstudio.engine.analysis.classes import SampleClasses, sample_classes
from quantstudio.engine.analysis.divergence import Array, OutputKind
from quantstudio.engine.analysis.fisher import BatchEffects, FisherPass
from quantstudio.engine.analysis.sensitivity_job import KIND, SensitivityJob, layer_sensitivity
from quantstudio.engine.analysis.taps import LayerProbe
from quantstudio.engine.runtime import worker_threads
from quantstudio.engine.torch_graph.device import torch_settings
from quantstudio.engine.torch_graph.module import TorchGraph

SEED = 0

# What the forward pass may hold for the backward pass. On a CPU batches beyond 32 gain nothing: their
# activations no longer fit the cache. An accelerator needs more at a time to be busy.
_ACTIVATION_BYTES = {True: 256 * 2**20, False: 2 * 2**30}
_LARGEST_BATCH = {True: 32, False: 256}
# Enough for the spread of a value output within a few per cent, at a small part of a pass.
_DEVIATION_SAMPLES = 256


@dataclass(slots=True)
class Estimate:
    """What one pass over the samples found.

    Attributes:
        layers: By name.
        unreachable: Layers no gradient reaches.
        scores: Class scores, [N, C]; None for outputs of another form.
        classes: Class of each sample; None where there are none.
    """

    layers: dict[str, LayerSensitivity]
    unreachable: set[str] = field(default_factory=set)
    scores: Array | None = None
    classes: SampleClasses | None = None


def estimate(job: SensitivityJob, device: torch.device) -> Estimate:
    """Every layer in every precision, from one forward and backward pass over the samples.

    Raises:
        UnsupportedOpError: torch cannot run the network.
        MeasureError: the outputs hold NaN.
        JobCancelled: the token was set.
    """
    module = TorchGraph(job.graph.proto).to(device)
    with torch_settings(worker_threads()):
        fisher = _fisher_pass(job, module, job.layers)
        size = _batch_size(job, fisher, device)
        if job.objective.kind is OutputKind.VALUES:
            first = next(job.dataset.batches(_DEVIATION_SAMPLES, stop=job.samples))
            fisher.set_deviations(first.feed, first.count)
        return _over_batches(job, fisher, size)


def _over_batches(job: SensitivityJob, fisher: FisherPass, size: int) -> Estimate:
    tally = _Tally(job)
    found = Estimate({})
    total = -(-job.samples // size)
    for done, batch in enumerate(job.dataset.batches(size, stop=job.samples), start=1):
        job.cancel.raise_if_set()
        held = job.dataset.fixed_batch or batch.count
        effects = fisher.run(batch.feed, batch.count, held, with_sqnr=done == 1, cancel=job.cancel)
        if any(np.isnan(output).any() for output in effects.outputs):
            raise MeasureError(
                "the model's outputs hold NaN on this data, so nothing can be compared with them",
                hint="Check the data and its transform, or repair the model",
            )
        found.unreachable.update(effects.unreachable)
        tally.add(effects)
        # The first batch fills every row of the table; then at 2, 4, 8, ... batches: each refinement halves
        # the variance, and hundreds of events a second would help nobody.
        if done & (done - 1) == 0 or done == total:
            for layer in tally.layers():
                job.reporter.layer_finished(layer.name, KIND, to_json(layer))
        job.reporter.progress(done, total, "batches", "Estimating sensitivity")
    found.layers = {layer.name: layer for layer in tally.layers()}
    found.unreachable.update({layer.name for layer in job.layers} - set(found.layers))
    found.scores, found.classes = tally.scores(), tally.classes()
    return found


def reference_sqnr(job: SensitivityJob, layers: Sequence[LayerInfo]) -> dict[str, float]:
    """SQNR in dB of each layer's own output on a few samples; nothing where torch cannot run the graph."""
    try:
        module = TorchGraph(job.graph.proto)
        with torch_settings(worker_threads()):
            fisher = _fisher_pass(job, module, layers, headline_only=True)
            size = _batch_size(job, fisher, module.device)
            batch = next(job.dataset.batches(size, stop=min(size, job.samples)))
            return fisher.output_sqnr(batch.feed, job.cancel)
    except UnsupportedOpError:
        return {}


def _fisher_pass(
    job: SensitivityJob, module: TorchGraph, layers: Sequence[LayerInfo], *, headline_only: bool = False
) -> FisherPass:
    probes = [_probe(job, module, layer, headline_only=headline_only) for layer in layers]
    return FisherPass(module, probes, job.objective, ranges=job.known_ranges(), seed=SEED)


def _probe(job: SensitivityJob, module: TorchGraph, layer: LayerInfo, *, headline_only: bool) -> LayerProbe:
    job.cancel.raise_if_set()
    trials = job.trials_of(layer)
    headline = trials[job.headline(trials)]
    if headline_only:
        trials = {headline.name: headline}
    parts = {one.weights_name: one for one in trials.values() if one.weights is not None}
    errors: dict[str, torch.Tensor] = {}
    slot = None
    if layer.weight_name:
        slot = module.node(layer.name).inputs.index(layer.weight_name)
    for name, one in parts.items():
        error = np.ascontiguousarray(job.rounded(layer, one) - job.weights[layer.weight_name])
        errors[name] = torch.from_numpy(error).to(module.device)
    grids = {one.activations_name: one.activations for one in trials.values() if one.activations is not None}
    return LayerProbe(layer, slot, errors, grids, trials, headline)


def _batch_size(job: SensitivityJob, fisher: FisherPass, device: torch.device) -> int:
    """Samples a batch, after finding where the samples are in every tensor."""
    data = job.dataset
    if data.fixed_batch is not None:
        fisher.assume_layouts(next(data.batches(data.fixed_batch)).feed, data.fixed_batch)
        return data.fixed_batch
    if len(data) < 3:
        fisher.assume_layouts(next(data.batches(1)).feed, 1)
        return 1
    fisher.find_layouts(next(data.batches(2, stop=2)).feed, next(data.batches(3, stop=3)).feed)
    on_cpu = device.type == "cpu"
    # Gradients and handles double what the forward pass holds.
    fits = _ACTIVATION_BYTES[on_cpu] // max(2 * fisher.bytes_per_sample, 1)
    return max(1, min(_LARGEST_BATCH[on_cpu], fits))


class _Tally:
    """Effects of all batches so far, as layer sensitivities."""

    def __init__(self, job: SensitivityJob) -> None:
        self._job = job
        self._effects: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
        self._sqnr: dict[str, float] = {}
        self._scores: list[Array] = []

    def add(self, batch: BatchEffects) -> None:
        """Count one batch."""
        for name, by_precision in batch.effects.items():
            kept = self._effects.setdefault(name, {})
            for precision, values in by_precision.items():
                kept.setdefault(precision, []).append(values)
        self._sqnr.update(batch.sqnr)
        # Only what takes one class score a sample reads them; a language model's would fill the memory.
        if self._job.objective.kind is OutputKind.CLASSES and batch.outputs[0].ndim == 2:
            self._scores.append(batch.outputs[0])

    def scores(self) -> Array | None:
        """Class scores of the samples so far, [N, C]; None for outputs of another form."""
        return np.concatenate(self._scores) if self._scores else None

    def classes(self) -> SampleClasses | None:
        """Class of each of the samples so far."""
        return sample_classes(self._job.dataset, self._job.objective, self.scores())

    def layers(self) -> list[LayerSensitivity]:
        """Every layer seen, in execution order."""
        found = []
        classes = self.classes()
        for layer in self._job.layers:
            effects = self._effects.get(layer.name)
            if not effects:
                continue
            joined = {precision: np.concatenate(parts) for precision, parts in effects.items()}
            headline = self._job.headline(joined)
            sqnr = self._sqnr.get(layer.name, np.nan)
            # A layer that lost its gradient in one batch lacks samples, and is measured in the end.
            whole = classes is not None and len(joined[headline]) == len(classes.of_sample)
            found.append(
                layer_sensitivity(layer, joined, headline, sqnr, "fisher", classes=classes if whole else None)
            )
        return found
