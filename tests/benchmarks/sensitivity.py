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

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.results import SensitivityResult
from quantstudio.engine.analysis.sensitivity import exact_sensitivity, fisher_sensitivity
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import open_session, run, worker_threads
from quantstudio.engine.model.open import open_model
from tests.benchmarks.sensitivity_peers import debugger_models, plain_loop, runtime_debugger
from tests.shared_data import MODELS, TRAIN, TRANSFORM

NETS = ("fmnist_resnet", "fmnist_mobilenet", "fmnist_vit")
SAMPLES = 512
PRECISIONS = ("int8", "int4", "int2", "int8-activations")
BOTH = "int8+int8-activations"
DEBUGGER_SAMPLES = 128


@dataclass(frozen=True)
class Cost:
    """FP32 passes something takes: by the clock, and by processor time, which others' load disturbs less."""

    passes: float
    cpu_passes: float


Work = Callable[[], object]


def cost(work: Work, one_pass: Work, rounds: int) -> Cost:
    """Some work timed in turn with a pass before and after it; the median ratio of all rounds."""
    one_pass()
    ratios = []
    for _ in range(rounds):
        before, middle, after = _seconds(one_pass), _seconds(work), _seconds(one_pass)
        ratios.append(2 * middle / (before + after))
    wall, cpu = np.median(ratios, axis=0)
    return Cost(float(wall), float(cpu))


def _seconds(work: Work) -> NDArray[np.float64]:
    """By the clock, and of the processor in all threads of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - wall, time.process_time() - cpu])


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
        "within_factor_2": float(np.mean((ratio >= 0.5) & (ratio <= 2))),
    }


def peers(graph: Graph, dataset: Dataset, exact: SensitivityResult, one_pass: Work) -> None:
    """The same question asked in other ways, one precision each, once."""

    def ranked(found: Mapping[str, float], precision: str) -> float:
        truth = {layer.name: layer.by_precision.get(precision) for layer in exact.layers}
        pairs = [(value, truth[name]) for name, value in found.items() if truth.get(name) is not None]
        return float(spearmanr(*np.array(pairs, dtype=np.float64).T).statistic)

    one_by_one = cost(
        lambda: exact_sensitivity(graph, dataset, samples=SAMPLES, precisions=("int4",)), one_pass, 1
    )
    row("measured one by one (exact)", one_by_one, 1.0, "int4")
    loop: dict[str, float] = {}
    loop_cost = cost(lambda: loop.update(plain_loop(graph, dataset, SAMPLES, "int4")), one_pass, 1)
    row("plain loop, a session per layer", loop_cost, ranked(loop, "int4"), "int4")
    # The debugger keeps every tensor of both models: a quarter of the samples, in passes over as many.
    errors: dict[str, dict[str, float]] = {}
    short_pass = fp32_pass(graph, dataset, DEBUGGER_SAMPLES)
    with debugger_models(graph, dataset, DEBUGGER_SAMPLES) as paths:
        debugging = cost(
            lambda: errors.update(runtime_debugger(graph, dataset, DEBUGGER_SAMPLES, paths)), short_pass, 1
        )
    for label, error in errors.items():
        row(f"ORT qdq_loss_debug, {label} error", debugging, ranked(error, BOTH), BOTH)


def fp32_pass(graph: Graph, dataset: Dataset, samples: int) -> Work:
    """One plain run over so many samples at once."""
    session = open_session(Path(graph.summary.graph_path))
    feed = next(dataset.batches(samples)).feed
    return lambda: run(session, feed)


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
    show(f"{SAMPLES} training images, {worker_threads()} threads; costs in FP32 passes over as many")
    for name in arguments.nets:
        graph = open_model(MODELS / f"{name}.onnx")
        dataset = open_dataset(
            DataSpec(str(TRAIN), parse_transform(TRANSFORM), SAMPLES), graph.summary.inputs
        )
        one_pass = fp32_pass(graph, dataset, SAMPLES)
        spread = "est./truth 10 - 50 - 90 %, in 0.5 - 2"
        show(f"{name:<36} {'clock':>7} {'CPU':>7} {'Spearman':>9} {spread:>38}")
        fisher_sensitivity(graph, dataset, samples=64, precisions=PRECISIONS)
        estimate = cost(
            lambda: fisher_sensitivity(graph, dataset, samples=SAMPLES, precisions=PRECISIONS),  # noqa: B023
            one_pass,
            arguments.rounds,
        )
        row(f"estimate, {len(PRECISIONS)} precisions", estimate)
        if arguments.no_exact:
            continue
        precisions = (*PRECISIONS, BOTH)
        fisher = fisher_sensitivity(graph, dataset, samples=SAMPLES, precisions=precisions)
        exact = exact_sensitivity(graph, dataset, samples=SAMPLES, precisions=precisions)
        for precision in precisions:
            figures = agreement(fisher, exact, precision)
            ratios = " - ".join(f"{figures[f'ratio_p{p}']:.2f}" for p in (10, 50, 90))
            ratios += f"  {figures['within_factor_2']:.2f}"
            row(f"  of which {precision}", None, figures["spearman"], ratios)
        if not arguments.no_peers:
            peers(graph, dataset, exact, one_pass)


def row(label: str, passes: Cost | None, spearman: float | None = None, note: str = "") -> None:
    """One line of the table."""
    wall, cpu = ("", "") if passes is None else (f"{passes.passes:.1f}", f"{passes.cpu_passes:.1f}")
    rank = "" if spearman is None else f"{spearman:.3f}"
    show(f"  {label:<34} {wall:>7} {cpu:>7} {rank:>9} {note:>38}")


if __name__ == "__main__":
    main()
