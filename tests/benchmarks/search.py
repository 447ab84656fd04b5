"""Mixed-precision search in plain FP32 passes: `python -m tests.benchmarks.search [ROW ...]`.

A pass is one ONNX Runtime run over 512 samples, its processor time taken before and after every search, so
that what other programs do to the caches meets both. The cost is processor time, too, of everything from the
opened model to the written file: calibration, sensitivity, every plan recovered, built and measured, the
front, in a cache of its own. Latency is timed apart. Accuracy is on 10,000 test images that the search never
saw. `--seed N` draws other training images.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.events import CancelToken
from quantstudio.core.folders import CACHE_VARIABLE
from quantstudio.core.precision import STATIC_INT8
from quantstudio.core.recipe import uniform_recipe
from quantstudio.core.search_results import Recover, SearchBudget, SearchResult
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.evaluation.latency import LatencyBudget, interleaved_latency
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import open_session, run
from quantstudio.engine.model.open import open_model
from quantstudio.engine.search.loop import search
from quantstudio.engine.search.measure import Judge
from quantstudio.engine.search.request import SearchRequest, Tried
from quantstudio.engine.search.workbench import Workbench
from tests.engine.recipe_builds import build_variant
from tests.shared_data import MODELS, TEST, TRAIN, TRANSFORM

SAMPLES = 512
BATCH = 64


@dataclass(frozen=True)
class Goal:
    """What a network is searched for, and what must come out.

    Attributes:
        net: Network.
        budget: Bounds.
        passes: Most FP32 passes the search may take.
        points: Most points lost on the test images, against FP32.
        share: Largest part of the FP32 file; 0 for no bound.
        recover: Whether plans are recovered.
    """

    net: str
    budget: SearchBudget
    passes: float
    points: float
    share: float = 0.0
    recover: Recover = Recover.AUTO


SMALL = SearchBudget(max_drop=0.3, max_class_drop=1.0)
GOALS = {
    "resnet-smallest": Goal("fmnist_resnet", SMALL, 400, 0.3, 0.08),
    "mobilenet-smallest": Goal("fmnist_mobilenet", SMALL, 600, 0.3),
    "vit-smallest": Goal("fmnist_vit", SMALL, 600, 0.3),
    "resnet-default": Goal("fmnist_resnet", SearchBudget(), 400, 0.5),
    "mobilenet-default": Goal("fmnist_mobilenet", SearchBudget(), 600, 0.5),
    "vit-default": Goal("fmnist_vit", SearchBudget(), 600, 0.5),
    "mobilenet-5-bits": Goal("fmnist_mobilenet", SearchBudget(average_bits=5.0), 250, 0.6, 0, Recover.NONE),
    "resnet-4-bits": Goal("fmnist_resnet", SearchBudget(average_bits=4.0), 100, 0.2, 0, Recover.NONE),
    "vit-5-bits": Goal("fmnist_vit", SearchBudget(average_bits=5.0), 250, 0.6, 0, Recover.NONE),
}


def main() -> None:
    """Print one row a search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"all by default: {', '.join(GOALS)}")
    parser.add_argument("--seed", type=int, default=0, help="0 for the training images in their order")
    parser.add_argument("--no-speed", action="store_true", help="leave out the timing")
    arguments = parser.parse_args()
    table = Table(title=f"{SAMPLES} training images to fit, others to judge, 10,000 test images")
    for column in (
        "row", "passes", "most", "plans", "FP32", "INT8", "found", "lost", "most", "worst class", "file",
        "INT8 file", "most", "x FP32", "INT8 x FP32",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for name in arguments.rows or GOALS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ[CACHE_VARIABLE] = folder
            cells, notes = row(GOALS[name], Path(folder), arguments.seed, times=not arguments.no_speed)
        table.add_row(name, *cells)
        print(f"{name}: {' '.join(notes)}", flush=True)
    Console(width=200).print(table)


def row(goal: Goal, folder: Path, seed: int, *, times: bool) -> tuple[list[str], tuple[str, ...]]:
    """One search: its figures, and what it says of itself."""
    graph = open_model(MODELS / f"{goal.net}.onnx")
    transform = parse_transform(TRANSFORM)
    data = open_dataset(DataSpec(str(drawn(folder, seed)), transform), graph.summary.inputs)
    test = open_dataset(DataSpec(str(TEST), transform), graph.summary.inputs)
    out, int8, fp32 = folder / "found.onnx", folder / "int8.onnx", Path(graph.summary.graph_path)
    passes, result = cost(graph, data, out, goal)
    statistics = calibrate(graph, data, samples=SAMPLES)
    build_variant(graph, statistics, uniform_recipe(STATIC_INT8), int8)
    speeds = ["", ""]
    if times:
        feed = next(data.batches(1)).feed
        found = interleaved_latency([fp32, out, int8], feed, budget=LatencyBudget(4.0, 50, 300)).speedups
        speeds = [f"{one.value:.2f}" for one in found[1:]]
    judge = Judge(graph, test, samples=0, cancel=CancelToken())
    eight, own = judge.measure_file(int8), judge.measure_file(out)
    shares = [one.metric.value for one in (judge.base, eight, own) if one.metric]
    worst = own.worst
    assert worst is not None
    return [
        f"{passes:.0f}", f"{goal.passes:.0f}", str(result.builds), *(f"{100 * s:.2f} %" for s in shares),
        f"{100 * (shares[0] - shares[2]):+.2f}", f"{goal.points}", f"{worst.name}: {worst.drop.value:+.2f}",
        f"{out.stat().st_size / fp32.stat().st_size:.3f}", f"{eight_bits(result) / fp32.stat().st_size:.3f}",
        f"{goal.share}" if goal.share else "", *speeds,
    ], result.notes  # fmt: skip


def drawn(folder: Path, seed: int) -> Path:
    """The training images, in another order for another seed: what is fitted to and what judges differs."""
    if not seed:
        return TRAIN
    with np.load(TRAIN) as stored:
        order = np.random.default_rng(seed).permutation(len(stored["labels"]))
        np.savez(folder / "train.npz", **{name: stored[name][order] for name in stored.files})
    return folder / "train.npz"


def eight_bits(result: SearchResult) -> int:
    """Bytes of the file with INT8 everywhere."""
    found = next(point for point in result.tried if point.name == "INT8 everywhere")
    assert found.size_bytes is not None
    return found.size_bytes


def cost(graph: Graph, data: Dataset, out: Path, goal: Goal) -> tuple[float, SearchResult]:
    """Processor time of a search over that of a pass, and what it found."""
    session = open_session(Path(graph.summary.graph_path))
    feeds = [batch.feed for batch in data.batches(BATCH, stop=SAMPLES)]

    def one_pass() -> float:
        start = time.process_time()
        for feed in feeds:
            run(session, feed)
        return time.process_time() - start

    one_pass()
    before = [one_pass() for _ in range(3)]
    request = SearchRequest(goal.budget, samples=SAMPLES, recover=goal.recover, time_chosen=False)
    timed: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workbench, "time", without(Workbench.time, timed))
        start = time.process_time()
        result = search(graph, data, out, request)
        seconds = time.process_time() - start - sum(timed)
    return seconds / float(np.median([*before, *(one_pass() for _ in range(3))])), result


def without(
    call: Callable[[Workbench, Sequence[Tried]], None], timed: list[float]
) -> Callable[[Workbench, Sequence[Tried]], None]:
    """The same, its processor time noted: timing latency is no part of the cost."""

    def noted(bench: Workbench, plans: Sequence[Tried]) -> None:
        start = time.process_time()
        call(bench, plans)
        timed.append(time.process_time() - start)

    return noted


if __name__ == "__main__":
    main()
