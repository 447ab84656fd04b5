"""The Fisher estimate over a data set: batches in, layer sensitivities out, refined as more samples come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np
import torch

from quantstudio.core.errors import MeasureError, UnsupportedOpError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.layers import LayerInfo
from quantstudio.engine.analysis.divergence import OutputKind, Scores
from quantstudio.engine.analysis.fisher import FisherPass, PassMemory
from quantstudio.engine.analysis.precisions import Trial
from quantstudio.engine.analysis.sensitivity_job import SensitivityJob
from quantstudio.engine.analysis.tally import BatchRecord, Estimate, KeptBatches, Tally
from quantstudio.engine.analysis.taps import LayerProbe
from quantstudio.engine.graph.runtime import worker_threads
from quantstudio.engine.torch_graph.device import torch_settings
from quantstudio.engine.torch_graph.module import TorchGraph

SEED = 0

# What the forward pass may hold for the backward pass. On a CPU batches beyond 32 gain nothing: their
# activations no longer fit the cache. An accelerator needs more at a time to be busy.
_ACTIVATION_BYTES = {True: 256 * 2**20, False: 2 * 2**30}
_LARGEST_BATCH = {True: 32, False: 256}
# Enough for the spread of a value output within a few per cent, at a small part of a pass.
_DEVIATION_SAMPLES = 256


def estimate(job: SensitivityJob, device: torch.device) -> Estimate:
    """Every layer in every precision, from one forward and backward pass over the samples.

    Batches and precisions that are kept from before are not run again.

    Raises:
        UnsupportedOpError: torch cannot run the network.
        MeasureError: the outputs hold NaN.
        JobCancelled: the token was set; the batches finished before are kept.
    """
    with torch_settings(worker_threads()):
        return _Estimator(job, device).run()


class _Estimator:
    """Goes through the batches; runs what is missing in each and takes the rest from what is kept."""

    def __init__(self, job: SensitivityJob, device: torch.device) -> None:
        self._job = job
        self._device = device
        self._kept = KeptBatches(job, f"fisher {device.type}")
        self._fisher: FisherPass | None = None
        self._module: TorchGraph | None = None
        self._unread: list[PassMemory] = []
        self._asked: frozenset[str] = frozenset()

    def run(self) -> Estimate:
        """The estimate over all samples."""
        job = self._job
        size = self._kept.batch_size() or self._plan()
        total = -(-job.samples // size)
        tally = Tally(job, self._sqnr())
        was_run = False
        for index in range(total):
            job.cancel.raise_if_set()
            kept = self._kept.batch(index)
            missing = tuple(one for name, one in job.trials.items() if name not in kept.effects)
            if missing:
                if not was_run and tally.samples:
                    self._report(tally)
                    job.reporter.message(f"{tally.samples} of {job.samples} samples are known from before")
                kept = kept.with_more(self._run_batch(index, size, missing, tally))
                self._kept.keep(index, kept, missing)
            elif kept.memory is not None:
                self._unread.append(kept.memory)
            tally.add(kept)
            was_run = bool(missing)
            done = index + 1
            # The first batch fills every row of the table; then at 2, 4, 8, ... batches: each refinement
            # halves the variance, and hundreds of events a second would help nobody.
            if done == total or (was_run and done & (done - 1) == 0):
                self._report(tally)
            job.reporter.progress(done, total, "batches", "Estimating sensitivity")
        if self._fisher is None:
            job.reporter.message("All of it is known from before; nothing was computed again")
        return tally.estimate()

    def _report(self, tally: Tally) -> None:
        for layer in tally.layers():
            self._job.reporter.found(layer)

    def _plan(self) -> int:
        size = _batch_size(self._job, self._ready(), self._device)
        self._kept.keep_batch_size(size)
        return size

    def _sqnr(self) -> dict[str, float]:
        """SQNR of every layer's own output: kept, or nothing where the first batch is going to tell it."""
        known = self._kept.sqnr()
        if known is None and self._kept.batch(0).effects:
            known = reference_sqnr(self._job, self._job.layers)
            self._kept.keep_sqnr(known)
        return known or {}

    def _run_batch(self, index: int, size: int, missing: Sequence[Trial], tally: Tally) -> BatchRecord:
        job = self._job
        fisher = self._ready()
        names = frozenset(one.name for one in missing)
        if names != self._asked:
            fisher.probes = self._probes(names)
            self._asked = names
        batch = next(job.dataset.batches(size, start=index * size, stop=job.samples))
        held = job.dataset.fixed_batch or batch.count
        with_sqnr = index == 0 and not tally.sqnr
        effects = fisher.run(batch.feed, batch.count, held, with_sqnr=with_sqnr, cancel=job.cancel)
        if any(np.isnan(output).any() for output in effects.outputs):
            raise MeasureError(
                "the model's outputs hold NaN on this data, so nothing can be compared with them",
                hint=Hint(
                    "Check the data and its transform; if they are right, the network computes NaN",
                    HintAction.CHECK_DATA,
                ),
            )
        if with_sqnr:
            tally.sqnr.update(effects.sqnr)
            self._kept.keep_sqnr(effects.sqnr)
        # Only what takes one class score a sample reads them; a language model's would fill the memory.
        scores = effects.outputs[0]
        has_scores = job.objective.kind is OutputKind.CLASSES and scores.ndim == 2
        by_precision: dict[str, dict[str, Scores]] = {name: {} for name in names}
        for layer, found in effects.effects.items():
            for name, values in found.items():
                by_precision[name][layer] = values
        return BatchRecord(batch.count, by_precision, fisher.memory(), scores if has_scores else None)

    def _ready(self) -> FisherPass:
        """The pass, made when first needed, with the batches before this one behind it."""
        if self._fisher is None:
            proto, wanted = self._job.graph.proto, self._job.objective.tensors
            self._module = TorchGraph(proto, wanted).to(self._device)
            fisher = FisherPass(
                self._module, (), self._job.objective, ranges=self._job.known_ranges(), seed=SEED
            )
            _find_layouts(self._job, fisher)
            if self._job.objective.kind is OutputKind.VALUES:
                first = next(self._job.dataset.batches(_DEVIATION_SAMPLES, stop=self._job.samples))
                fisher.set_deviations(first.feed, first.count, first.held)
            self._fisher = fisher
        for memory in self._unread:
            self._fisher.resume(memory)
        self._unread.clear()
        return self._fisher

    def _probes(self, names: Set[str]) -> list[LayerProbe]:
        module = self._module
        assert module is not None
        probes = []
        for layer in self._job.layers:
            trials = {name: one for name, one in self._job.trials_of(layer).items() if name in names}
            if trials and module.has_node(layer.name):
                probes.append(_probe(self._job, module, layer, trials))
        return probes


def reference_sqnr(job: SensitivityJob, layers: Sequence[LayerInfo]) -> dict[str, float]:
    """SQNR in dB of each layer's own output on a few samples; nothing where torch cannot run the graph."""
    try:
        module = TorchGraph(job.graph.proto, job.objective.tensors)
        with torch_settings(worker_threads()):
            probes = []
            for layer in (one for one in layers if module.has_node(one.name)):
                trials = job.trials_of(layer)
                headline = job.headline(trials)
                probes.append(_probe(job, module, layer, {headline: trials[headline]}))
            fisher = FisherPass(module, probes, job.objective, ranges=job.known_ranges(), seed=SEED)
            _find_layouts(job, fisher)
            size = _batch_size(job, fisher, module.device)
            batch = next(job.dataset.batches(size, stop=min(size, job.samples)))
            return fisher.output_sqnr(batch.feed, job.cancel)
    except UnsupportedOpError:
        return {}


def _probe(
    job: SensitivityJob, module: TorchGraph, layer: LayerInfo, trials: Mapping[str, Trial]
) -> LayerProbe:
    job.cancel.raise_if_set()
    slot = module.node(layer.name).inputs.index(layer.weight_name) if layer.weight_name else None
    errors: dict[str, torch.Tensor] = {}
    for one in trials.values():
        if one.weights is not None and one.weights_name not in errors:
            error = np.ascontiguousarray(job.rounded(layer, one) - job.weights[layer.weight_name])
            errors[one.weights_name] = torch.from_numpy(error).to(module.device)
    grids = {one.activations_name: one.activations for one in trials.values() if one.activations is not None}
    return LayerProbe(layer, slot, errors, grids, dict(trials), trials[job.headline(trials)])


def _find_layouts(job: SensitivityJob, fisher: FisherPass) -> None:
    """Find where the samples are in every tensor."""
    data = job.dataset
    if data.fixed_batch is not None:
        fisher.assume_layouts(next(data.batches(data.fixed_batch)).feed, data.fixed_batch)
    elif len(data) < 3 or job.objective.has_whole_outputs:
        fisher.assume_layouts(next(data.batches(1)).feed, 1)
    else:
        two, three = (next(data.batches(n, stop=n)).feed for n in (2, 3))
        fisher.find_layouts(two, three, data.sample_axes)


def _batch_size(job: SensitivityJob, fisher: FisherPass, device: torch.device) -> int:
    """Samples per batch."""
    data = job.dataset
    if data.fixed_batch is not None:
        return data.fixed_batch
    if len(data) < 3 or job.objective.has_whole_outputs:
        return 1
    on_cpu = device.type == "cpu"
    # Gradients and handles double what the forward pass holds.
    fits = _ACTIVATION_BYTES[on_cpu] // max(2 * fisher.bytes_per_sample, 1)
    return max(1, min(_LARGEST_BATCH[on_cpu], fits))
