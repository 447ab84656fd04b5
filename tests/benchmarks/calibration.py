"""Calibration and quantization in plain FP32 passes: `python -m tests.benchmarks.calibration`.

A pass is one ONNX Runtime run over the same samples, ready in memory, with the same threads and the best
batch size. Rounds are interleaved, so that a machine that drifts drifts for both. Memory is that of a fresh
process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import psutil
from rich.console import Console
from rich.table import Table

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.recipe import uniform_recipe
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import open_session, run
from quantstudio.engine.model.open import open_model
from tests.engine.recipe_builds import build_variant
from tests.shared_data import MODELS, TRAIN, TRANSFORM

BATCHES = (8, 16, 32, 64, 128)
# Issue: at most so many passes for calibration and quantization together.
LIMITS = {512: 10.0, 8192: 3.0}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="fmnist_resnet")
    parser.add_argument("--samples", type=int, nargs="+", default=[512, 8192])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    graph = open_model(MODELS / f"{options.model}.onnx")
    dataset = open_dataset(DataSpec(str(TRAIN), parse_transform(TRANSFORM)), graph.summary.inputs)
    if options.memory_of is not None:
        calibrate(graph, dataset, samples=options.memory_of, threads=options.threads)
        sys.stdout.write(f"{_peak_bytes()}\n")
        return
    console = Console()
    table = Table(title=f"{options.model}, {options.threads} thread(s), medians of {options.rounds} rounds")
    for column in ("samples", "FP32 pass", "calibrate", "quantize", "passes", "limit", "range of passes"):
        table.add_column(column, justify="right")
    for samples in options.samples:
        rounds = options.rounds if samples < 4096 else max(2, options.rounds // 2)
        table.add_row(*_costs(graph, dataset, samples, options.threads, rounds))
    console.print(table)
    few, many = (_memory(options.model, options.threads, n) for n in (256, 8192))
    console.print(
        f"Peak memory: {few / 2**20:.1f} MB for 256 samples, {many / 2**20:.1f} MB for 8,192 "
        f"({(many / few - 1) * 100:+.1f} %, limit +10 %)"
    )


def _costs(graph: Graph, dataset: Dataset, samples: int, threads: int, rounds: int) -> list[str]:
    session = open_session(Path(graph.summary.graph_path), threads=threads)
    trials = {
        size: min(_pass(session, dataset, size, min(samples, 512)) for _ in range(3)) for size in BATCHES
    }
    size = min(trials, key=trials.__getitem__)
    recipe = uniform_recipe("static-int8")
    passes, calibrations, builds = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            passes.append(_pass(session, dataset, size, samples))
            start = time.perf_counter()
            statistics = calibrate(graph, dataset, samples=samples, threads=threads)
            middle = time.perf_counter()
            build_variant(graph, statistics, recipe, Path(folder) / "quantized.onnx")
            builds.append(time.perf_counter() - middle)
            calibrations.append(middle - start)
    ratios = (np.array(calibrations) + np.array(builds)) / np.array(passes)
    limit = LIMITS.get(samples)
    return [
        f"{samples:,}",
        f"{np.median(passes) * 1e3:.0f} ms (batch {size})",
        f"{np.median(calibrations) * 1e3:.0f} ms",
        f"{np.median(builds) * 1e3:.0f} ms",
        f"{np.median(ratios):.2f}",
        "" if limit is None else f"{limit:g}",
        f"{ratios.min():.2f} to {ratios.max():.2f}",
    ]


def _memory(model: str, threads: int, samples: int) -> int:
    command = [sys.executable, "-m", "tests.benchmarks.calibration", "--model", model]
    command += ["--threads", str(threads), "--memory-of", str(samples)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peak_bytes() -> int:
    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):
        return int(info.peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _pass(session: ort.InferenceSession, dataset: Dataset, size: int, samples: int) -> float:
    """Seconds of one plain run over the samples."""
    feeds = [batch.feed for batch in dataset.batches(size, stop=samples)]
    start = time.perf_counter()
    for feed in feeds:
        run(session, feed)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
