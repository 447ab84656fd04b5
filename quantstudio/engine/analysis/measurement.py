"""Layers measured one at a time, in both directions; what an earlier run measured is not run again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.layers import LayerInfo
from quantstudio.core.results import LayerSensitivity
from quantstudio.engine.analysis.accumulated import accumulated_sqnr
from quantstudio.engine.analysis.classes import SampleClasses, sample_classes
from quantstudio.engine.analysis.divergence import Array, Scores
from quantstudio.engine.analysis.edits import (
    activation_edit,
    both_edits,
    edited,
    first_node,
    restoring_edit,
    weight_edit,
)
from quantstudio.engine.analysis.estimate import reference_sqnr
from quantstudio.engine.analysis.exact import ExactScorer, Measured
from quantstudio.engine.analysis.precisions import Trial, reads_floats
from quantstudio.engine.analysis.sensitivity_job import SensitivityJob, layer_sensitivity
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.calibration.tensors import calibration_tensors
from quantstudio.engine.graph.cut import Edit
from quantstudio.engine.graph.graph import Graph

Ranges = Mapping[tuple[str, str], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Question:
    """What to measure of each layer.

    Attributes:
        all_but: Also every layer but this one quantized.
        accumulated: Also the error of its output when every layer up to it is quantized.
    """

    all_but: bool = False
    accumulated: bool = False


@dataclass(slots=True)
class Measurement:
    """What was measured.

    Attributes:
        layers: By name.
        scores: FP32 class scores, [N, C]; None for outputs of another form.
        classes: Class of each sample; None where there are none.
        kl_all: Mean KL with every layer at the reference precision; None where not asked.
    """

    layers: dict[str, LayerSensitivity] = field(default_factory=dict)
    scores: Array | None = None
    classes: SampleClasses | None = None
    kl_all: float | None = None


def measure(
    job: SensitivityJob, layers: Sequence[LayerInfo], provider: str, question: Question | None = None
) -> Measurement:
    """Each layer in every precision it can have, reported as it is finished.

    Raises:
        MeasureError: a graph does not run, or the model's outputs hold NaN.
        JobCancelled: the token was set; what was measured before is kept.
    """
    return _Bench(job, provider).measure(layers, question or Question())


class _Bench:
    """Runs what is not kept from before. Sessions and ranges are made when the first run needs them."""

    def __init__(self, job: SensitivityJob, provider: str) -> None:
        self._job = job
        self._method = f"exact {provider}"
        self._provider = provider
        self._steps = _Steps(job, 0)
        self._read = self._ran = 0

    def measure(self, layers: Sequence[LayerInfo], question: Question) -> Measurement:
        job = self._job
        base = self._base()
        found = Measurement(scores=base.scores, classes=base.classes)
        self._steps = steps = _Steps(job, len(layers) * (1 + question.all_but))
        local = self._reference_sqnr(layers)
        accumulated = self._accumulated(layers) if question.accumulated else {}
        if question.all_but:
            found.kl_all = float(self._everything().divergence.mean())
        for layer in layers:
            job.cancel.raise_if_set()
            measured = self._alone(layer)
            if not measured:
                job.reporter.message(f"{layer.name}: none of the precisions asked for can be tried here")
                steps.finished(1 + question.all_but)
                continue
            row = self._row(layer, measured, base, local.get(layer.name, np.nan))
            steps.finished()
            if question.all_but:
                rest = self._all_but(layer)
                row = replace(row, kl_all_but=None if rest is None else float(rest.divergence.mean()))
                steps.finished()
            row = replace(row, accumulated_sqnr_db=accumulated.get(layer.name))
            found.layers[layer.name] = row
            job.reporter.found(row)
        if self._read:
            ran = f"{self._read} of {self._read + self._ran}" if self._ran else "All"
            job.reporter.message(f"{ran} measurements are known from before; they were not made again")
        return found

    def _row(
        self, layer: LayerInfo, measured: Mapping[str, Measured], base: _Base, sqnr: float
    ) -> LayerSensitivity:
        headline = self._job.headline(measured)
        hits = measured[headline].hits
        drop = None if hits is None or base.hits is None else 100 * float(base.hits.mean() - hits.mean())
        divergences: dict[str, Scores] = {name: one.divergence for name, one in measured.items()}
        return layer_sensitivity(layer, divergences, headline, sqnr, "exact", drop, base.classes)

    # -- one direction, and the other ------------------------------------------------------------------

    def _alone(self, layer: LayerInfo) -> dict[str, Measured]:
        """Only this layer quantized, in every precision."""
        job = self._job
        found: dict[str, Measured] = {}
        missing: dict[str, Trial] = {}
        for name, one in job.trials_of(layer).items():
            known = self._known("one", layer.name, job.key_of(one))
            if known is None:
                missing[name] = one
            else:
                found[name] = known
        edits = {name: edit for name, one in missing.items() if (edit := self._edit(layer, one)) is not None}
        if edits:
            scorer = self._scorer
            after = self._steps.after_batch(scorer.batches)
            measured = scorer.measure(layer.name, list(edits.values()), after)
            for name, result in zip(edits, measured, strict=True):
                self._keep(result, "one", layer.name, job.key_of(missing[name]))
                found[name] = result
        return {name: found[name] for name in job.trials if name in found}

    def _all_but(self, layer: LayerInfo) -> Measured | None:
        """Every layer but this one quantized at the reference; None for a layer that cannot have it."""
        key = ("all but", layer.name, self._reference_key)
        if self._job.reference not in self._job.trials_of(layer):
            return None
        found = self._known(*key)
        if found is None and layer.name in self._reference_edits:
            graph = self._quantized
            edit = restoring_edit(self._job.graph, layer)
            scorer = self._quantized_scorer
            after = self._steps.after_batch(scorer.batches)
            found = scorer.measure(first_node(graph, layer), [edit], after)[0]
            self._keep(found, *key)
        return found

    def _everything(self) -> Measured:
        """Every layer quantized at the reference."""
        found = self._known("all", self._reference_key)
        if found is None:
            first = self._quantized.proto.graph.node[0].name
            found = self._quantized_scorer.measure(first, [lambda _: None])[0]
            self._keep(found, "all", self._reference_key)
        return found

    def _accumulated(self, layers: Sequence[LayerInfo]) -> dict[str, float]:
        """SQNR in dB of each layer's output in the quantized graph."""
        job = self._job
        key = (self._method, "accumulated", self._reference_key)
        found = job.entries.get(*key)
        if found is None:
            sqnr = accumulated_sqnr(
                job.graph,
                self._quantized,
                job.dataset,
                samples=job.samples,
                provider=self._provider,
                reporter=job.reporter,
                cancel=job.cancel,
            )
            names = np.array(list(sqnr), dtype=np.str_)
            found = {"layers": names, "sqnr_db": np.array(list(sqnr.values()), dtype=np.float64)}
            job.entries.put({key: found})
        chosen = {layer.name for layer in layers}
        pairs = zip(found["layers"].tolist(), found["sqnr_db"].tolist(), strict=True)
        return {name: value for name, value in pairs if name in chosen}

    # -- graphs ----------------------------------------------------------------------------------------

    @cached_property
    def _scorer(self) -> ExactScorer:
        return self._scorer_of(self._job.graph, None)

    @cached_property
    def _quantized_scorer(self) -> ExactScorer:
        return self._scorer_of(self._quantized, self._scorer)

    def _scorer_of(self, graph: Graph, truth: ExactScorer | None) -> ExactScorer:
        job = self._job
        return ExactScorer(
            graph,
            job.dataset,
            job.objective,
            samples=job.samples,
            cancel=job.cancel,
            provider=self._provider,
            truth=truth,
        )

    @cached_property
    def _reference_edits(self) -> dict[str, Edit]:
        """By layer, of all that can have the reference precision."""
        reference = self._job.trials[self._job.reference]
        edits = {
            layer.name: self._edit(layer, reference)
            for layer in self._job.layers
            if reference.name in self._job.trials_of(layer)
        }
        return {name: edit for name, edit in edits.items() if edit is not None}

    @cached_property
    def _reference_key(self) -> str:
        return self._job.key_of(self._job.trials[self._job.reference])

    @cached_property
    def _quantized(self) -> Graph:
        """Every layer that can have it at the reference precision."""
        return edited(self._job.graph, self._reference_edits.values())

    def _edit(self, layer: LayerInfo, one: Trial) -> Edit | None:
        """A layer in a precision; None where its inputs have no range."""
        parts: list[Edit] = []
        if one.activations is not None:
            ranges, key = self._ranges, one.activations_name
            known = {tensor: ranges[tensor, key] for tensor in layer.inputs if (tensor, key) in ranges}
            if not known:
                return None
            parts.append(activation_edit(layer, known, one.activations))
        if one.weights is not None:
            parts.append(weight_edit(layer, self._job.rounded(layer, one)))
        return parts[0] if len(parts) == 1 else both_edits(*parts)

    @cached_property
    def _ranges(self) -> Ranges:
        """Calibrated ranges, and where there are none the ends of the samples themselves."""
        job = self._job
        ranges = job.known_ranges()
        # Tensors inside an If or Loop body cannot be watched from outside.
        layers = [layer for layer in job.layers if not layer.scope and reads_floats(layer)]
        missing = {name for layer in layers for name in layer.inputs} - {name for name, _ in ranges}
        if missing & set(calibration_tensors(job.graph)):
            seen = calibrate(
                job.graph, job.dataset, samples=job.samples, reporter=job.reporter, cancel=job.cancel
            ).tensors
            for name in sorted(missing & set(seen)):
                ends = (seen[name].minimum, seen[name].maximum)
                ranges.update({(name, precision): ends for precision in job.grids})
        return ranges

    # -- what is known ---------------------------------------------------------------------------------

    def _base(self) -> _Base:
        """FP32 on the samples."""
        job = self._job
        found = job.entries.get(self._method, "base")
        if found is None:
            scores, hits = self._scorer.scores, self._scorer.base_hits
            arrays = {name: a for name, a in (("scores", scores), ("hits", hits)) if a is not None}
            job.entries.put({(self._method, "base"): arrays})
        else:
            scores, hits = found.get("scores"), _bools(found.get("hits"))
        return _Base(scores, hits, sample_classes(job.dataset, job.objective, scores))

    def _reference_sqnr(self, layers: Sequence[LayerInfo]) -> dict[str, float]:
        job = self._job
        keys = {
            layer.name: (self._method, "sqnr", layer.name, job.key_of(trials[job.headline(trials)]))
            for layer in layers
            if (trials := job.trials_of(layer))
        }
        known = {name: kept for name, key in keys.items() if (kept := job.entries.get(*key)) is not None}
        sqnr = {name: float(kept["sqnr_db"]) for name, kept in known.items()}
        missing = [layer for layer in layers if layer.name in keys and layer.name not in known]
        if missing:
            found = reference_sqnr(job, missing)
            job.entries.put({keys[name]: {"sqnr_db": np.array(value)} for name, value in found.items()})
            sqnr.update(found)
        return sqnr

    def _known(self, *key: str) -> Measured | None:
        found = self._job.entries.get(self._method, *key)
        if found is None:
            return None
        self._read += 1
        return Measured(found["divergence"].astype(np.float64), _bools(found.get("hits")))

    def _keep(self, measured: Measured, *key: str) -> None:
        self._ran += 1
        arrays: dict[str, Array] = {"divergence": measured.divergence}
        if measured.hits is not None:
            arrays["hits"] = measured.hits
        self._job.entries.put({(self._method, *key): arrays})


class _Steps:
    """Progress in samples over all measurements, also within one."""

    def __init__(self, job: SensitivityJob, measurements: int) -> None:
        self._job = job
        self._total = measurements * job.samples
        self._done = 0

    def after_batch(self, batches: int) -> Callable[[], None]:
        """What to call after each of the batches of one measurement."""
        part = iter(range(1, batches))
        return lambda: self._say(self._done + next(part, batches) * self._job.samples // batches)

    def finished(self, measurements: int = 1) -> None:
        """So many are done, or need not be."""
        self._done += measurements * self._job.samples
        self._say(self._done)

    def _say(self, done: int) -> None:
        self._job.reporter.progress(done, self._total, "samples", "Measuring sensitivity")


@dataclass(frozen=True, slots=True, eq=False)
class _Base:
    """FP32 class scores, whether each is right, and the class of each sample; None where there is none."""

    scores: Array | None
    hits: NDArray[np.bool_] | None
    classes: SampleClasses | None


def _bools(array: Array | None) -> NDArray[np.bool_] | None:
    return None if array is None else array.astype(np.bool_)
