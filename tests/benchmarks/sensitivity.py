"""Fisher estimate against exact KL, and what it costs: `python -m tests.benchmarks.sensitivity [NET ...]`.

Cost is counted in plain FP32 passes of ONNX Runtime over the same samples with the same threads, timed in
turn with the estimate so that a change in the machine's load meets both.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.results import SensitivityResult
from quantstudio.engine.analysis.sensitivity import exact_sensitivity, fisher_sensitivity
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.model.graph import Graph
from quantstudio.engine.model.open import open_model
from quantstudio.engine.runtime import open_session, run, worker_threads
from tests.shared_data import MODELS, TRAIN, TRANSFORM

NETS = ("fmnist_resnet", "fmnist_mobilenet", "fmnist_vit")
SAMPLES = 512
PRECISIONS = ("int8", "int4", "int2", "int8-activations")


@dataclass(frozen=True)
class Cost:
    """Medians over interleaved rounds, and their ratio round by round."""

    estimate_ms: float
    pass_ms: float
    passes: float


def cost(graph: Graph, dataset: Dataset, rounds: int) -> Cost:
    """Interleaved timing of the whole estimate and of one FP32 pass."""
    session = open_session(Path(graph.summary.graph_path))
    feed = next(dataset.batches(SAMPLES)).feed
    run(session, feed)
    fisher_sensitivity(graph, dataset, samples=64, precisions=PRECISIONS)
    estimates, passes = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        run(session, feed)
        middle = time.perf_counter()
        fisher_sensitivity(graph, dataset, samples=SAMPLES, precisions=PRECISIONS)
        end = time.perf_counter()
        run(session, feed)
        passes.append((middle - start + time.perf_counter() - end) / 2)
        estimates.append(end - middle)
    ratios = [estimate / one for estimate, one in zip(estimates, passes, strict=True)]
    return Cost(1e3 * float(np.median(estimates)), 1e3 * float(np.median(passes)), float(np.median(ratios)))


def agreement(fisher: SensitivityResult, exact: SensitivityResult, precision: str) -> dict[str, float]:
    """Rank correlation and quantiles of estimate / truth over the layers that have this precision."""
    truth = {layer.name: layer.by_precision.get(precision) for layer in exact.layers}
    pairs = [
        (layer.by_precision[precision], truth[layer.name])
        for layer in fisher.layers
        if precision in layer.by_precision and truth[layer.name] is not None
    ]
    estimate, exact_kl = np.array(pairs, dtype=np.float64).T
    ratio = estimate / np.maximum(exact_kl, 1e-12)
    low, median, high = np.quantile(ratio, [0.1, 0.5, 0.9])
    return {
        "layers": len(pairs),
        "spearman": float(spearmanr(estimate, exact_kl).statistic),
        "ratio_p10": float(low),
        "ratio_p50": float(median),
        "ratio_p90": float(high),
    }


def show(line: str) -> None:
    """Write a line at once, also into a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Print one block a network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=NETS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-exact", action="store_true", help="cost only")
    arguments = parser.parse_args()
    show(f"{SAMPLES} training images, {worker_threads()} threads, precisions {', '.join(PRECISIONS)}")
    for name in arguments.nets:
        graph = open_model(MODELS / f"{name}.onnx")
        dataset = open_dataset(
            DataSpec(str(TRAIN), parse_transform(TRANSFORM), SAMPLES), graph.summary.inputs
        )
        found = cost(graph, dataset, arguments.rounds)
        show(
            f"{name}: {found.passes:.1f} FP32 passes "
            f"({found.estimate_ms:.0f} ms against {found.pass_ms:.0f} ms)"
        )
        if arguments.no_exact:
            continue
        fisher = fisher_sensitivity(graph, dataset, samples=SAMPLES, precisions=PRECISIONS)
        exact = exact_sensitivity(graph, dataset, samples=SAMPLES, precisions=PRECISIONS)
        for precision in PRECISIONS:
            figures = agreement(fisher, exact, precision)
            show(f"  {precision:<17} {json.dumps({k: round(v, 3) for k, v in figures.items()})}")


if __name__ == "__main__":
    main()
