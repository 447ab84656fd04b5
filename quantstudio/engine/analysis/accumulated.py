"""How much error has come together at each layer's output when every layer up to it is quantized."""

from __future__ import annotations

import numpy as np

from quantstudio.core.affine import sqnr_db
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.engine.analysis.divergence import Array
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.graph.cut import CutGraph
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import run, worker_threads

# Outputs of all layers, of two graphs, for one batch.
_OUTPUT_BYTES = 256 * 2**20
_LARGEST_BATCH = 32


def accumulated_sqnr(
    graph: Graph,
    quantized: Graph,
    dataset: Dataset,
    *,
    samples: int,
    provider: str,
    reporter: Reporter,
    cancel: CancelToken,
) -> dict[str, float]:
    """SQNR in dB of each layer's first output between two graphs, over the same samples.

    Args:
        graph: FP32.
        quantized: The same graph with layers changed; tensors have the same names.
        dataset: Samples.
        samples: How many of them.
        provider: Full name of the execution provider.
        reporter: Told of batches.
        cancel: Ends runs in progress, too.

    Returns:
        By layer; without layers inside the body of an If or Loop, whose outputs cannot be read.

    Raises:
        MeasureError: a graph does not run.
        JobCancelled: the token was set.
    """
    tensors = {layer.name: layer.outputs[0] for layer in graph.layers if layer.outputs and not layer.scope}
    outputs = tuple(dict.fromkeys(tensors.values()))
    if not outputs:
        return {}
    cuts = [CutGraph(g, outputs, threads=worker_threads(), provider=provider) for g in (graph, quantized)]
    sessions = [
        cut.session(0, cut.end, {n: cut.input_types[n] for n in cut.live_at(0)}, outputs) for cut in cuts
    ]
    inputs = cuts[0].live_at(0)
    signal, noise = dict.fromkeys(outputs, 0.0), dict.fromkeys(outputs, 0.0)
    one = next(dataset.batches(1, stop=1)).feed
    found = run(sessions[0], {name: one[name] for name in inputs}, outputs, cancel=cancel)
    size = max(1, min(_LARGEST_BATCH, _OUTPUT_BYTES // max(2 * sum(np.asarray(a).nbytes for a in found), 1)))
    size = dataset.fixed_batch or size
    total = -(-samples // size)
    for done, batch in enumerate(dataset.batches(size, stop=samples), start=1):
        cancel.raise_if_set()
        feed = {name: batch.feed[name] for name in inputs}
        exact, changed = (run(session, feed, outputs, cancel=cancel) for session in sessions)
        for name, a, b in zip(outputs, exact, changed, strict=True):
            signal[name] += _power(a)
            noise[name] += _power(np.asarray(b) - np.asarray(a))
        reporter.progress(done, total, "batches", "Measuring accumulated error")
    return {layer: sqnr_db(signal[name], noise[name]) for layer, name in tensors.items()}


def _power(values: Array) -> float:
    flat = np.asarray(values, dtype=np.float64).ravel()
    return float(flat @ flat)
