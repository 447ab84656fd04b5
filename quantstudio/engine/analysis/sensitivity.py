"""How much the whole network suffers when one layer alone is quantized, for every layer and precision.

`fisher_sensitivity` estimates it for all layers and precisions from one forward and backward pass;
`exact_sensitivity` measures it one layer at a time. Both give KL divergences from the FP32 output in nats.
Layers are ranked by KL: weight SQNR and local SQNR rank them wrongly, and accuracy moves in whole samples.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.codec import to_json
from quantstudio.core.errors import RecipeError, UnsupportedOpError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, Severity
from quantstudio.core.layers import LayerInfo
from quantstudio.core.results import AccuracyCurve, LayerSensitivity, Provenance, SensitivityResult
from quantstudio.core.statistics import Statistics
from quantstudio.engine.analysis.accuracy_curve import accuracy_curve
from quantstudio.engine.analysis.classes import class_labels, sample_classes
from quantstudio.engine.analysis.divergence import Array, log_probabilities
from quantstudio.engine.analysis.estimate import estimate, reference_sqnr
from quantstudio.engine.analysis.exact import ExactScorer, activation_edit, both_edits, weight_edit
from quantstudio.engine.analysis.precisions import reads_floats
from quantstudio.engine.analysis.sensitivity_job import (
    KIND,
    SensitivityJob,
    layer_sensitivity,
)
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.calibration.tensors import calibration_tensors
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.model.cut import Edit
from quantstudio.engine.model.graph import Graph
from quantstudio.engine.runtime import CPU, resolve_provider
from quantstudio.engine.torch_graph.device import resolve_device

DEFAULT_PRECISIONS = ("int8", "int4", "int8-activations")
DEFAULT_REFERENCE = "int4"

Ranges = dict[tuple[str, str], tuple[float, float]]


def fisher_sensitivity(
    graph: Graph,
    dataset: Dataset,
    *,
    samples: int = 512,
    precisions: Sequence[str] = DEFAULT_PRECISIONS,
    reference: str = DEFAULT_REFERENCE,
    statistics: Statistics | None = None,
    device: str = "cpu",
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> SensitivityResult:
    """Predicted sensitivity of every quantizable layer, from one forward and backward pass.

    Every layer gets a first estimate after the first batch, refined as more come in. Layers that no gradient
    reaches, and models torch cannot run, are measured exactly instead (method "exact"), on the CPU.

    Args:
        graph: The network.
        dataset: Samples; labels are used for the accuracy curve only.
        samples: How many of them.
        precisions: Names, see `precisions`: "int4" for weights alone, "int8-activations" for inputs alone,
            "int4+int8-activations" for both, "int4/tensor" and "int4/group32" for other granularities.
        reference: Precision of the headline `kl`. Layers that cannot have it (products of two activations)
            are headed by the first precision they can have.
        statistics: Calibrated activation ranges; without, the range of the samples themselves.
        device: torch device: "cpu", "cuda", "cuda:1", "mps".
        reporter: Told of batches and layers.
        cancel: Looked at before every pass and every layer.

    Returns:
        All layers that can have one of the precisions, in execution order; `by_precision` is keyed by them.

    Raises:
        RecipeError: a precision is unknown.
        DataError: there are no samples.
        MeasureError: the device is not installed, or the model's outputs hold NaN.
        JobCancelled: the token was set; results of finished layers were reported.

    Source: see `fisher`.
    """
    started = time.perf_counter()
    where = resolve_device(device)
    job = SensitivityJob.prepare(graph, dataset, samples, precisions, reference, statistics, reporter, cancel)
    job.cancel.raise_if_set()
    try:
        found = estimate(job, where)
    except UnsupportedOpError as error:
        reporter.message(f"{error.one_line} Sensitivity is measured layer by layer instead", Severity.WARNING)
        return _measured_result(job, job.layers, CPU, started)
    layers = found.layers
    if found.unreachable:
        names = ", ".join(sorted(found.unreachable)[:3])
        reporter.message(f"No gradient reaches {names}: measured one by one instead")
        rest = [layer for layer in job.layers if layer.name in found.unreachable]
        layers = {**layers, **_measure(job, rest, CPU)[0]}
    return SensitivityResult(
        method="fisher",
        samples=job.samples,
        seconds=time.perf_counter() - started,
        reference=reference,
        layers=tuple(layers[layer.name] for layer in job.layers if layer.name in layers),
        curve=_curve(job, found.scores, are_probabilities=False),
        provenance=Provenance.PREDICTED,
        device=str(where),
        classes=found.classes.names if found.classes is not None else (),
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
    device: str = "cpu",
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> SensitivityResult:
    """Measured sensitivity: each layer alone quantized and run in ONNX Runtime on every sample.

    Args:
        graph: The network.
        dataset: Samples; with class labels the accuracy drop is measured too.
        samples: How many of them.
        precisions: As for `fisher_sensitivity`. What is not asked is not run.
        reference: Precision of the headline figures.
        layers: Names of the layers to measure; None for all quantizable ones.
        statistics: Calibrated activation ranges; without, the range of the samples themselves.
        device: Execution provider, short or full name: "cpu", "cuda", ...
        reporter: Told of batches and layers.
        cancel: Ends a run in progress, too.

    Raises:
        RecipeError: a precision or layer is unknown.
        DataError: there are no samples.
        MeasureError: the provider is not installed, or the model's outputs hold NaN.
        JobCancelled: the token was set; results of finished layers were reported.
    """
    started = time.perf_counter()
    provider = resolve_provider(device.removesuffix(":0"))
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
    return _measured_result(job, chosen, provider, started)


def _curve(job: SensitivityJob, scores: Array | None, *, are_probabilities: bool) -> AccuracyCurve | None:
    """Accuracy against KL, for one class score a sample."""
    if scores is None or scores.shape[1] < 2:
        return None
    logits = log_probabilities(scores, replace(job.objective, is_probability=are_probabilities))
    labels = class_labels(job.dataset)
    return accuracy_curve(logits, None if labels is None else labels[: len(logits)], cancel=job.cancel)


# -- the measurement -------------------------------------------------------------------------------


def _measured_result(
    job: SensitivityJob, layers: Sequence[LayerInfo], provider: str, started: float
) -> SensitivityResult:
    found, scores = _measure(job, layers, provider)
    classes = sample_classes(job.dataset, job.objective, scores)
    return SensitivityResult(
        method="exact",
        samples=job.samples,
        seconds=time.perf_counter() - started,
        reference=job.reference,
        layers=tuple(found[layer.name] for layer in layers if layer.name in found),
        curve=_curve(job, scores, are_probabilities=job.objective.is_probability),
        provenance=Provenance.MEASURED,
        device=provider,
        classes=classes.names if classes is not None else (),
    )


def _measure(
    job: SensitivityJob, layers: Sequence[LayerInfo], provider: str
) -> tuple[dict[str, LayerSensitivity], Array | None]:
    """Layers by name, and the FP32 class scores."""
    ranges = _ranges(job, layers)
    scorer = ExactScorer(
        job.graph,
        job.dataset,
        job.objective,
        samples=job.samples,
        cancel=job.cancel,
        provider=provider,
    )
    sqnr = reference_sqnr(job, layers)
    steps = _Steps(job, len(layers) * scorer.batches)
    classes = sample_classes(job.dataset, job.objective, scorer.scores)
    found: dict[str, LayerSensitivity] = {}
    for layer in layers:
        job.cancel.raise_if_set()
        edits = _edits(job, layer, ranges)
        if not edits:
            job.reporter.message(f"{layer.name}: none of the precisions asked for can be tried here")
            steps.skip(scorer.batches)
            continue
        measured = dict(zip(edits, scorer.measure(layer, list(edits.values()), steps.next), strict=True))
        headline = job.headline(measured)
        hits, base = measured[headline].hits, scorer.base_hits
        drop = None if hits is None or base is None else 100 * float(base.mean() - hits.mean())
        divergences: dict[str, NDArray[np.float64]] = {name: one.divergence for name, one in measured.items()}
        found[layer.name] = layer_sensitivity(
            layer, divergences, headline, sqnr.get(layer.name, np.nan), "exact", drop, classes
        )
        job.reporter.layer_finished(layer.name, KIND, to_json(found[layer.name]))
    return found, scorer.scores


class _Steps:
    """Progress over all layers, batch by batch."""

    def __init__(self, job: SensitivityJob, total: int) -> None:
        self._job = job
        self._total = total
        self._done = 0

    def next(self) -> None:
        """One more batch is done."""
        self.skip(1)

    def skip(self, count: int) -> None:
        """So many are, or need not be."""
        self._done += count
        self._job.reporter.progress(self._done, self._total, "batches", "Measuring sensitivity")


def _edits(job: SensitivityJob, layer: LayerInfo, ranges: Ranges) -> dict[str, Edit]:
    """What to try on a layer, by precision; only what it can have."""
    found: dict[str, Edit] = {}
    for name, one in job.trials_of(layer).items():
        parts: list[Edit] = []
        if one.activations is not None:
            key = one.activations_name
            known = {tensor: ranges[tensor, key] for tensor in layer.inputs if (tensor, key) in ranges}
            if not known:
                continue
            parts.append(activation_edit(layer, known, one.activations))
        if one.weights is not None:
            parts.append(weight_edit(layer, job.rounded(layer, one)))
        found[name] = parts[0] if len(parts) == 1 else both_edits(*parts)
    return found


def _ranges(job: SensitivityJob, layers: Sequence[LayerInfo]) -> Ranges:
    """Calibrated ranges, and where there are none the ends of the samples themselves."""
    ranges = job.known_ranges()
    if not job.grids:
        return ranges
    # Tensors inside an If or Loop body cannot be watched from outside.
    read = {name for layer in layers if not layer.scope and reads_floats(layer) for name in layer.inputs}
    missing = read - {name for name, _ in ranges}
    if missing & set(calibration_tensors(job.graph)):
        seen = calibrate(
            job.graph, job.dataset, samples=job.samples, reporter=job.reporter, cancel=job.cancel
        ).tensors
        for name in sorted(missing & set(seen)):
            ends = (seen[name].minimum, seen[name].maximum)
            ranges.update({(name, precision): ends for precision in job.grids})
    return ranges
