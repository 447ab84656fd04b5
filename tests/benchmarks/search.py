"""Mixed-precision search in plain FP32 passes: `python -m tests.benchmarks.search [NET ...]`.

A pass is one ONNX Runtime run over the same samples with the same threads, timed before and after every
search, so that a change in the machine's load meets both. The cost holds everything from the opened model to
the written file: calibration, sensitivity, every plan built and measured, the front. Latency is timed apart.
Accuracy is on test images that the search never saw.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.events import CancelToken
from quantstudio.core.precision import STATIC_INT8
from quantstudio.core.recipe import uniform_recipe
from quantstudio.core.search_results import SearchBudget, SearchResult
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.evaluation.latency import LatencyBudget, interleaved_latency
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import open_session, run, worker_threads
from quantstudio.engine.model.open import open_model
from quantstudio.engine.search.loop import search
from quantstudio.engine.search.measure import Judge
from quantstudio.engine.search.request import SearchRequest
from tests.engine.recipe_builds import build_variant
from tests.shared_data import MODELS, TEST, TRAIN, TRANSFORM

SAMPLES = 512
BATCH = 64


@dataclass(frozen=True)
class Goal:
    """What a network is searched for, and what must come out.

    Attributes:
        average_bits: Bound on the bits, or None.
        share_of_int8: Bound on the file as part of INT8's, or None.
        passes: Most FP32 passes the search may take.
        points: Most points lost against `against`.
        against: "int8" or "fp32".
    """

    average_bits: float | None
    share_of_int8: float | None
    passes: float
    points: float
    against: str


GOALS = {
    "fmnist_mobilenet": Goal(5.0, None, 250, 0.6, "int8"),
    "fmnist_resnet": Goal(None, 0.5, 100, 0.2, "fp32"),
    "fmnist_vit": Goal(5.0, None, 250, 0.6, "int8"),
}


def main() -> None:
    """Print one row a network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=tuple(GOALS))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    table = Table(title=f"{SAMPLES} training images, 10,000 test images, {worker_threads()} thread(s)")
    for column in (
        "network", "asked", "passes", "limit", "plans", "FP32", "INT8", "found", "points lost", "limit",
        "bits", "file", "INT8 file", "x FP32", "INT8 x FP32",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for name in arguments.nets:
        table.add_row(name, *row(name, GOALS[name], arguments.rounds))
    Console(width=200).print(table)


def row(name: str, goal: Goal, rounds: int) -> list[str]:
    """One network."""
    graph = open_model(MODELS / f"{name}.onnx")
    transform = parse_transform(TRANSFORM)
    data = open_dataset(DataSpec(str(TRAIN), transform, SAMPLES), graph.summary.inputs)
    test = open_dataset(DataSpec(str(TEST), transform), graph.summary.inputs)
    with tempfile.TemporaryDirectory() as folder:
        out, int8 = Path(folder) / "found.onnx", Path(folder) / "int8.onnx"
        budget = bound(graph, data, out, goal)
        passes, result = cost(graph, data, out, budget, rounds)
        build_variant(graph, calibrate(graph, data, samples=SAMPLES), uniform_recipe(STATIC_INT8), int8)
        fp32 = Path(graph.summary.graph_path)
        speed = interleaved_latency(
            [fp32, out, int8], next(data.batches(1)).feed, budget=LatencyBudget(4.0, 50, 300)
        ).speedups
        judge = Judge(graph, test, samples=0, cancel=CancelToken())
        shares = [
            m.metric.value
            for m in (judge.base, judge.measure_file(int8), judge.measure_file(out))
            if m.metric
        ]
    lost = 100 * (shares[1 if goal.against == "int8" else 0] - shares[2])
    measured, eight = result.chosen.measured, eight_bits(result)
    assert measured is not None
    asked = f"{goal.average_bits} bits" if goal.average_bits else f"{goal.share_of_int8} of INT8"
    return [
        asked, f"{passes:.0f}", f"{goal.passes:.0f}", str(result.builds),
        *(f"{100 * s:.2f} %" for s in shares),
        f"{lost:+.2f} to {goal.against}", f"{goal.points}", f"{measured.average_bits:.2f}",
        f"{measured.size_bytes:,}", f"{eight:,}", f"{speed[1].value:.2f}", f"{speed[2].value:.2f}",
    ]  # fmt: skip


def bound(graph: Graph, data: Dataset, out: Path, goal: Goal) -> SearchBudget:
    """The goal as a budget; half of INT8's bytes needs to know those first."""
    if goal.share_of_int8 is None:
        return SearchBudget(average_bits=goal.average_bits)
    request = SearchRequest(SearchBudget(average_bits=8), samples=16, time_chosen=False)
    eight = eight_bits(search(graph, data, out, request))
    return SearchBudget(max_size_bytes=int(goal.share_of_int8 * eight))


def eight_bits(result: SearchResult) -> int:
    """Bytes of the file with INT8 everywhere."""
    found = next(point for point in result.tried if point.name == "INT8 everywhere")
    assert found.size_bytes is not None
    return found.size_bytes


def cost(
    graph: Graph, data: Dataset, out: Path, budget: SearchBudget, rounds: int
) -> tuple[float, SearchResult]:
    """Median of search time over pass time, round by round, and the last search."""
    session = open_session(Path(graph.summary.graph_path))
    feeds = [batch.feed for batch in data.batches(BATCH)]

    def one_pass() -> float:
        start = time.perf_counter()
        for feed in feeds:
            run(session, feed)
        return time.perf_counter() - start

    one_pass()
    request = SearchRequest(budget, samples=SAMPLES, time_chosen=False)
    ratios = []
    for _ in range(rounds):
        before = [one_pass() for _ in range(3)]
        start = time.perf_counter()
        result = search(graph, data, out, request)
        seconds = time.perf_counter() - start - result.timing_seconds
        ratios.append(seconds / float(np.median([*before, *(one_pass() for _ in range(3))])))
    return float(np.median(ratios)), result


if __name__ == "__main__":
    main()
