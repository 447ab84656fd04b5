"""How much the whole network suffers when one layer alone is quantized, for every layer and precision.

`fisher_sensitivity` estimates it for all layers and precisions from one forward and backward pass;
`exact_sensitivity` measures it one layer at a time. Both give KL divergences from the FP32 output in nats.
Layers are ranked by KL: weight SQNR and local SQNR rank them wrongly, and accuracy moves in whole samples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from quantstudio.core.errors import RecipeError, UnsupportedOpError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, Severity
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import DEFAULT_PRECISIONS, DEFAULT_REFERENCE
from quantstudio.core.results import AccuracyCurve, Provenance, SensitivityResult
from quantstudio.core.statistics import Statistics
from quantstudio.engine.analysis.accuracy_curve import accuracy_curve
from quantstudio.engine.analysis.classes import class_labels
from quantstudio.engine.analysis.divergence import Array, log_probabilities
from quantstudio.engine.analysis.estimate import estimate
from quantstudio.engine.analysis.measurement import Question, measure
from quantstudio.engine.analysis.sensitivity_job import SensitivityJob
from quantstudio.engine.analysis.store import ResultStore
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import CPU, resolve_provider
from quantstudio.engine.torch_graph.device import resolve_device


def fisher_sensitivity(
    graph: Graph,
    dataset: Dataset,
    *,
    samples: int = 512,
    precisions: Sequence[str] = DEFAULT_PRECISIONS,
    reference: str = DEFAULT_REFERENCE,
    statistics: Statistics | None = None,
    device: str = "cpu",
    store: ResultStore | None = None,
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
        store: Where what is known is read and what is found is kept, batch by batch; None keeps nothing.
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
    job = SensitivityJob.prepare(
        graph, dataset, samples, precisions, reference, statistics, reporter, cancel, store
    )
    job.cancel.raise_if_set()
    if not job.layers:
        stored = sum(bool(layer.stored_as) for layer in graph.layers)
        why = f": {stored} of {len(graph.layers)} are quantized already" if stored else ""
        reporter.message(f"No layer of this model can have one of these precisions{why}", Severity.WARNING)
        return _measured_result(job, (), CPU, started)
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
        layers = {**layers, **measure(job, rest, CPU).layers}
    return SensitivityResult(
        method="fisher",
        samples=job.samples,
        seconds=time.perf_counter() - started,
        reference=job.reference,
        layers=tuple(layers[layer.name] for layer in job.layers if layer.name in layers),
        curve=_curve(job, found.scores, are_probabilities=False),
        provenance=Provenance.PREDICTED,
        device=str(where),
        classes=found.classes.names if found.classes is not None else (),
        precisions=tuple(job.trials),
    )


def exact_sensitivity(
    graph: Graph,
    dataset: Dataset,
    *,
    samples: int = 512,
    precisions: Sequence[str] = DEFAULT_PRECISIONS,
    reference: str = DEFAULT_REFERENCE,
    layers: Collection[str] | None = None,
    top: int | None = None,
    all_but: bool = False,
    accumulated: bool = False,
    statistics: Statistics | None = None,
    device: str = "cpu",
    store: ResultStore | None = None,
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
        top: Measure only so many, those an estimate ranks highest.
        all_but: Also every layer but this one at the reference precision (`kl_all_but`).
        accumulated: Also the SQNR of each layer's output with every layer quantized, beside its own.
        statistics: Calibrated activation ranges; without, the range of the samples themselves.
        device: Execution provider, short or full name: "cpu", "cuda", ...
        store: Where what is known is read and what is found is kept, layer by layer; None keeps nothing.
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
    job = SensitivityJob.prepare(
        graph, dataset, samples, precisions, reference, statistics, reporter, cancel, store
    )
    chosen = _chosen(job, layers)
    if top is not None:
        chosen = _worst(job, chosen, top)
    return _measured_result(job, chosen, provider, started, Question(all_but, accumulated))


def _chosen(job: SensitivityJob, names: Collection[str] | None) -> tuple[LayerInfo, ...]:
    if names is None:
        return job.layers
    unknown = sorted(set(names) - {layer.name for layer in job.layers})
    if unknown:
        raise RecipeError(
            f"layer {unknown[0]!r} is not a quantizable layer of this model",
            hint=Hint("The list of layers shows their names", HintAction.LIST_LAYERS),
        )
    return tuple(layer for layer in job.layers if layer.name in set(names))


def _worst(job: SensitivityJob, layers: Sequence[LayerInfo], top: int) -> tuple[LayerInfo, ...]:
    """Those with the highest estimate, in execution order; a layer no gradient reaches is among them."""
    if top < 1:
        raise RecipeError(f"cannot measure {top} layers", hint="Choose at least one")
    try:
        found = estimate(job, resolve_device("cpu"))
    except UnsupportedOpError as error:
        job.reporter.message(
            f"{error.one_line} Without an estimate every layer is measured", Severity.WARNING
        )
        return tuple(layers)
    kl = {name: row.kl for name, row in found.layers.items()}
    ranked = sorted(layers, key=lambda layer: -kl.get(layer.name, math.inf))
    kept = {layer.name for layer in ranked[:top]}
    return tuple(layer for layer in layers if layer.name in kept)


def _curve(job: SensitivityJob, scores: Array | None, *, are_probabilities: bool) -> AccuracyCurve | None:
    """Accuracy against KL, for one class score per sample."""
    if scores is None or scores.shape[1] < 2:
        return None
    logits = log_probabilities(scores, replace(job.objective, is_probability=are_probabilities))
    labels = class_labels(job.dataset)
    return accuracy_curve(logits, None if labels is None else labels[: len(logits)], cancel=job.cancel)


def _measured_result(
    job: SensitivityJob,
    layers: Sequence[LayerInfo],
    provider: str,
    started: float,
    question: Question | None = None,
) -> SensitivityResult:
    found = measure(job, layers, provider, question)
    return SensitivityResult(
        method="exact",
        samples=job.samples,
        seconds=time.perf_counter() - started,
        reference=job.reference,
        layers=tuple(found.layers[layer.name] for layer in layers if layer.name in found.layers),
        curve=_curve(job, found.scores, are_probabilities=job.objective.is_probability),
        provenance=Provenance.MEASURED,
        device=provider,
        classes=found.classes.names if found.classes is not None else (),
        kl_all=found.kl_all,
        precisions=tuple(job.trials),
    )
