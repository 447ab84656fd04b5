"""Sensitivity in several ways, its cost and its ranking: `python -m tests.benchmarks.sensitivity [NET ...]`.

Cost is counted in plain FP32 passes of ONNX Runtime over the same samples with the same threads, timed in
turn with the estimate so that a change in the machine's load meets both.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.results import SensitivityResult
from quantstudio.engine.analysis.sensitivity import exact_sensitivity, fisher_sensitivity
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.model.graph import Graph
from quantstudio.engine.model.open import open_model
from quantstudio.engine.runtime import open_session, run, worker_threads
from tests.benchmarks.sensitivity_peers import plain_loop, runtime_debugger
from tests.shared_data import MODELS, TRAIN, TRANSFORM

NETS = ("fmnist_resnet", "fmnist_mobilenet", "fmnist_vit")
SAMPLES = 512
PRECISIONS = ("int8", "int4", "int2", "int8-activations")
BOTH = "int8+int8-activations"
PASSES_AROUND = 3
DEBUGGER_SAMPLES = 128

T = TypeVar("T")


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


def timed_in_passes(work: Callable[[], T], one_pass: Callable[[], float]) -> tuple[float, T]:
    """What some work costs, in FP32 passes timed before and after it, and what it gave."""
    before = [one_pass() for _ in range(PASSES_AROUND)]
    start = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - start
    after = [one_pass() for _ in range(PASSES_AROUND)]
    return seconds / float(np.median(before + after)), found


def peers(graph: Graph, dataset: Dataset, exact: SensitivityResult, row: Callable[..., None]) -> None:
    """The same question asked in other ways, one precision each."""
    session = open_session(Path(graph.summary.graph_path))
    feed = next(dataset.batches(SAMPLES)).feed
    part = next(dataset.batches(DEBUGGER_SAMPLES)).feed

    def one_pass(data: Mapping[str, NDArray[np.generic]] = feed) -> float:
        start = time.perf_counter()
        run(session, data)
        return time.perf_counter() - start

    def ranked(found: Mapping[str, float], precision: str) -> float:
        truth = {layer.name: layer.by_precision.get(precision) for layer in exact.layers}
        pairs = [(value, truth[name]) for name, value in found.items() if truth.get(name) is not None]
        return float(spearmanr(*np.array(pairs, dtype=np.float64).T).statistic)

    passes, one_by_one = timed_in_passes(
        lambda: exact_sensitivity(graph, dataset, samples=SAMPLES, precisions=("int4",)), one_pass
    )
    row(
        "measured one by one (exact)",
        passes,
        ranked({r.name: r.kl for r in one_by_one.layers}, "int4"),
        "int4",
    )
    passes, (_, loop) = timed_in_passes(lambda: plain_loop(graph, dataset, SAMPLES, "int4"), one_pass)
    row("plain loop, a session a layer", passes, ranked(loop, "int4"), "int4")
    # The debugger keeps every tensor of both models: a quarter of the samples, in passes over as many.
    seconds, errors = runtime_debugger(graph, dataset, DEBUGGER_SAMPLES)
    pass_s = float(np.median([one_pass(part) for _ in range(2 * PASSES_AROUND)]))
    for label, error in errors.items():
        row(f"ORT qdq_loss_debug, {label} error", seconds / pass_s, ranked(error, BOTH), BOTH)


def show(line: str) -> None:
    """Write a line at once, also into a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Print one table a network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=NETS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-exact", action="store_true", help="cost of the estimate only")
    parser.add_argument("--no-peers", action="store_true", help="leave the loop and the debugger out")
    arguments = parser.parse_args()
    show(f"{SAMPLES} training images, {worker_threads()} threads")
    for name in arguments.nets:
        graph = open_model(MODELS / f"{name}.onnx")
        dataset = open_dataset(
            DataSpec(str(TRAIN), parse_transform(TRANSFORM), SAMPLES), graph.summary.inputs
        )
        found = cost(graph, dataset, arguments.rounds)
        show(f"{name}: one FP32 pass takes {found.pass_ms:.0f} ms")
        show(f"  {'':<34} {'passes':>7} {'Spearman':>9} {'est./truth 10 - 50 - 90 %':>26}")
        if arguments.no_exact:
            row(f"estimate, {len(PRECISIONS)} precisions", found.passes)
            continue
        precisions = (*PRECISIONS, BOTH)
        fisher = fisher_sensitivity(graph, dataset, samples=SAMPLES, precisions=precisions)
        exact = exact_sensitivity(graph, dataset, samples=SAMPLES, precisions=precisions)
        row(f"estimate, {len(PRECISIONS)} precisions", found.passes)
        for precision in precisions:
            figures = agreement(fisher, exact, precision)
            ratios = " - ".join(f"{figures[f'ratio_p{p}']:.2f}" for p in (10, 50, 90))
            row(f"  of which {precision}", None, figures["spearman"], ratios)
        if not arguments.no_peers:
            peers(graph, dataset, exact, row)


def row(label: str, passes: float | None, spearman: float | None = None, note: str = "") -> None:
    """One line of the table."""
    cost_text = "" if passes is None else f"{passes:.1f}"
    rank = "" if spearman is None else f"{spearman:.3f}"
    show(f"  {label:<34} {cost_text:>7} {rank:>9} {note:>26}")


if __name__ == "__main__":
    main()
