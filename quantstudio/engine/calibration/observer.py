"""Calibration: one run over the samples, a bounded histogram for every tensor that may need a range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, Severity, never_cancelled
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.statistics import Histogram, Statistics
from quantstudio.engine.calibration.histogram import TensorObserver
from quantstudio.engine.calibration.tensors import CalibrationPlan, plan_calibration
from quantstudio.engine.data.dataset import Batch, Dataset
from quantstudio.engine.graph.cut import CutGraph
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import resolve_provider, run, worker_threads

# Observed tensors of one batch stay in the level-2 and level-3 cache: larger batches run up to 15 % slower.
BATCH_BYTES_PER_THREAD = 4 << 20
LARGEST_BATCH = 256
# Elements of one tensor that go into its bins, at least; and the largest part of them left out. The ranges
# then lose at most 0.1 dB of the tensor's SQNR against counting all (8 bits, MSE, the worst tensor of a
# residual network and a transformer), which would take another pass.
COUNTED_ELEMENTS = 1 << 21
LARGEST_STRIDE = 8
_PRIMES = (1, 2, 3, 5, 7, 11, 13, 17, 19)


def calibrate(
    graph: Graph,
    dataset: Dataset,
    *,
    samples: int = 512,
    batch_size: int = 0,
    threads: int | None = None,
    provider: str = "cpu",
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> Statistics:
    """Distribution of every activation that static quantization may need, over the first samples.

    Memory does not grow with the number of samples: each tensor keeps 4096 counts and its exact ends. The
    ends come from all elements; the counts from an even choice of them (see `COUNTED_ELEMENTS`).

    Args:
        graph: The model.
        dataset: Data bound to the model's inputs.
        samples: Samples to use, from the first on; 0 for all.
        batch_size: Samples per run; 0 chooses by the size of the activations.
        threads: Threads of the runtime and of the counting; None for `worker_threads()`.
        provider: Execution provider, short or full name.
        reporter: Gets progress in samples, and a warning when the samples do not hold every class.
        cancel: Ends a run in progress, too.

    Raises:
        CalibrationError: a tensor holds NaN or infinity, or there are no samples.
        MeasureError: the model does not run on the data, or the provider is not installed.
        JobCancelled: `cancel` was set.
    """
    cancel = cancel or never_cancelled()
    total = min(samples, len(dataset)) if samples > 0 else len(dataset)
    if total == 0:
        raise CalibrationError("there are no samples to calibrate with")
    _warn_of_missing_classes(dataset, total, reporter)
    threads = threads or worker_threads()
    plan = plan_calibration(graph)
    # The weights live as long as `whole` does.
    whole, session = _with_observed_outputs(graph, plan, threads, resolve_provider(provider), cancel)
    outputs = _float_outputs(session, plan)
    if not plan.observed:
        raise CalibrationError(
            "the model has no activations that static quantization could use",
            hint=Hint("The list of layers shows what each can be", HintAction.LIST_LAYERS),
        )
    probe = next(dataset.batches(1, stop=1))
    values = _observed(session, outputs, plan, probe, cancel)
    size = batch_size if batch_size > 0 else _batch_size(values, probe, threads)
    observers = {
        name: TensorObserver(name, _stride(array, probe.held, total)) for name, array in values.items()
    }
    del values
    with ThreadPoolExecutor(threads) as pool:
        for batch in dataset.batches(size, stop=total):
            values = _observed(session, outputs, plan, batch, cancel)
            if threads == 1:
                for name in list(values):
                    observers[name].observe(values.pop(name))
            else:
                # list() raises what a thread raised
                list(pool.map(lambda item: observers[item[0]].observe(item[1]), values.items()))
            # Freed before the next run, which then finds its buffers still in the cache.
            del values
            reporter.progress(batch.start + batch.count, total, "samples", "Calibrating")
    del session, whole
    return _statistics(graph, dataset, plan, observers, total)


def _statistics(
    graph: Graph, dataset: Dataset, plan: CalibrationPlan, observers: Mapping[str, TensorObserver], total: int
) -> Statistics:
    tensors: dict[str, Histogram] = {n: o.histogram() for n, o in observers.items() if not o.is_empty}
    tensors.update({alias: tensors[name] for alias, name in plan.aliases.items() if name in tensors})
    masked = {n for n, o in observers.items() if o.has_masks}
    masked |= {alias for alias, name in plan.aliases.items() if name in masked}
    return Statistics(tensors, total, graph.digest, dataset.digest, tuple(sorted(masked)))


def _observed(
    session: ort.InferenceSession,
    outputs: list[str],
    plan: CalibrationPlan,
    batch: Batch,
    cancel: CancelToken,
) -> dict[str, NDArray[Any]]:
    """Valid samples of every observed tensor."""
    values: dict[str, NDArray[Any]] = {
        name: array
        for name, array in batch.feed.items()
        if name in plan.observed and array.dtype == np.float32
    }
    found = run(session, batch.feed, outputs, cancel=cancel)
    if outputs:  # without names the runtime gives every output
        values.update(zip(outputs, found, strict=True))
    held = batch.held
    if batch.count < held:
        values = {n: a[: batch.count] if a.ndim and len(a) == held else a for n, a in values.items()}
    return values


def _batch_size(values: Mapping[str, NDArray[Any]], probe: Batch, threads: int) -> int:
    per_sample = sum(a.nbytes for a in values.values()) / max(probe.count, 1)
    return int(np.clip(BATCH_BYTES_PER_THREAD * threads // max(per_sample, 1), 1, LARGEST_BATCH))


def _stride(array: NDArray[Any], held: int, total: int) -> int:
    """Every how many elements to count: enough, and in step with no dimension of the tensor."""
    planned = array.size / held * total
    wanted = min(math.ceil(planned / COUNTED_ELEMENTS), LARGEST_STRIDE)
    for prime in _PRIMES:
        if prime >= wanted and (prime == 1 or all(d % prime for d in array.shape if d > 1)):
            return prime
    return wanted


def _with_observed_outputs(
    graph: Graph, plan: CalibrationPlan, threads: int, provider: str, cancel: CancelToken
) -> tuple[CutGraph, ort.InferenceSession]:
    """A fully optimized session that gives out the observed tensors as well, and what holds its weights."""
    given = {v.name for v in (*graph.proto.graph.input, *graph.proto.graph.output)}
    outputs = [v.name for v in graph.proto.graph.output] + [n for n in plan.observed if n not in given]
    whole = CutGraph(graph, outputs, threads=threads, provider=provider, cancel=cancel)
    return whole, whole.session(0, whole.end, whole.input_types, outputs)


def _float_outputs(session: ort.InferenceSession, plan: CalibrationPlan) -> list[str]:
    """Observed tensors the run gives out; the runtime knows types that shape inference could not tell."""
    inputs = {i.name for i in session.get_inputs()}
    types = {o.name: o.type for o in session.get_outputs()}
    return [n for n in plan.observed if n not in inputs and types.get(n) == "tensor(float)"]


def _warn_of_missing_classes(dataset: Dataset, total: int, reporter: Reporter) -> None:
    labels = dataset.labels
    if labels is None or labels.dtype.kind != "i" or total == len(labels):
        return
    used, present = len(np.unique(labels[:total])), len(np.unique(labels))
    if used < present and used < total / 4:
        reporter.message(
            f"The first {total} samples hold only {used} of {present} classes: shuffle the data, or ranges "
            "will not fit the other classes",
            Severity.WARNING,
        )
