"""Two to four bits from 512 images without labels: `python -m tests.benchmarks.low_bits [ROW ...]`.

Every row builds a file with steps of recovery and judges that file alone, in plain ONNX Runtime, on the
10,000 test images. Costs are processor seconds over those of one FP32 run of ONNX Runtime over the 512
images, timed before and after: first those of the steps, then of everything from the opened model to the
checked file. Speed is timed side by side with the INT8 file of the same network, a factor above 1 being
faster. `--list` names the rows, `--target` builds for other hardware, `--again` builds each a second time
and compares bytes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.events import NULL_REPORTER, CancelToken
from quantstudio.core.folders import CACHE_VARIABLE
from quantstudio.core.precision import (
    STATIC_INT8,
    ActivationPrecision,
    Granularity,
    LayerScheme,
    Precision,
    WeightFormat,
    scheme_of,
)
from quantstudio.core.preset_recipes import preset_recipe
from quantstudio.core.recipe import CalibrationSettings, LayerRule, Recipe
from quantstudio.core.statistics import Statistics
from quantstudio.core.steps import Step
from quantstudio.core.target import DEFAULT_TARGET
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.evaluation.latency import LatencyBudget, interleaved_latency
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import open_session, run
from quantstudio.engine.model.open import open_model
from quantstudio.engine.pipeline.runner import Prepared, StepInputs, observed_after, prepare
from quantstudio.engine.quantization.build import build_variant
from quantstudio.engine.search.measure import Judge
from tests.shared_data import MODELS, TEST, TRAIN, TRANSFORM

SAMPLES = 512
BATCH = 64
STEPS = (Step("gptq"),)


@dataclass(frozen=True)
class Row:
    """One line of the table: what is built, and what it is to reach.

    Attributes:
        net: Network.
        scheme: Scheme of its layers.
        accuracy: Least accuracy, in percent.
        share: Largest part of the FP32 file; 0 for no bound.
        passes: Most FP32 passes the steps may take.
        steps: Steps before quantizing.
        others: Scheme of the first or the last layer, by its place.
    """

    net: str
    scheme: LayerScheme
    accuracy: float
    share: float
    passes: float
    steps: tuple[Step, ...] = STEPS
    others: Mapping[int, LayerScheme] = field(default_factory=dict)


def static(weights: WeightFormat) -> LayerScheme:
    """Weights of a format with INT8 activations."""
    return scheme_of(weights, ActivationPrecision.INT8)


CODEBOOK4, CODEBOOK3, CODEBOOK2, CODEBOOK1 = (
    static(weights)
    for weights in (Precision.CODEBOOK4, Precision.CODEBOOK3, Precision.CODEBOOK2, Precision.CODEBOOK1)
)
PER_TENSOR = replace(static(Precision.INT4), granularity=Granularity.PER_TENSOR)
W4A4 = replace(CODEBOOK4, activations=ActivationPrecision.INT4)
TUNED = (*STEPS, Step("tune"))
ROWS = {
    "resnet-w4a8": Row("resnet", CODEBOOK4, 91.95, 0.15, 100),
    "resnet-w3a8": Row("resnet", CODEBOOK3, 91.9, 0.12, 120),
    "resnet-w2a8": Row("resnet", CODEBOOK2, 91.85, 0.09, 150),
    "resnet-w2a8-tune": Row("resnet", CODEBOOK2, 92.0, 0.09, 400, TUNED),
    "resnet-w1a8": Row("resnet", CODEBOOK1, 90.6, 0.055, 200, others={0: STATIC_INT8, -1: STATIC_INT8}),
    "mobilenet-w4a8": Row("mobilenet", CODEBOOK4, 90.9, 0.36, 150),
    "mobilenet-w3a8": Row("mobilenet", CODEBOOK3, 90.7, 0.33, 200),
    "mobilenet-w2a8": Row("mobilenet", CODEBOOK2, 90.4, 0.28, 200),
    "vit-w4a8": Row("vit", CODEBOOK4, 86.9, 0.25, 300),
    "vit-w3a8": Row("vit", CODEBOOK3, 86.9, 0.22, 300),
    "vit-w2a8": Row("vit", CODEBOOK2, 86.3, 0.18, 300),
    "mobilenet-w4-tensor": Row("mobilenet", PER_TENSOR, 88.0, 0.0, 300),
    "resnet-w4a4": Row("resnet", W4A4, 91.3, 0.0, 500),
    "mobilenet-w4a4": Row("mobilenet", W4A4, 88.0, 0.0, 500),
}


def main() -> None:
    """Print one line a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="all by default")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--target", default=DEFAULT_TARGET.name)
    parser.add_argument("--again", action="store_true", help="build twice and compare bytes")
    parser.add_argument("--no-speed", action="store_true", help="leave out the timing")
    arguments = parser.parse_args()
    names = arguments.rows or list(ROWS)
    if arguments.list:
        Console().print("\n".join(ROWS))
        return
    table = Table(title=f"{SAMPLES} training images, no labels; 10,000 test images; {arguments.target}")
    for column in (
        "row", "FP32", "accuracy", "at least", "file / FP32", "at most", "passes of steps", "at most",
        "passes in all", "x INT8", "x FP32", "bytes again",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for name in names:
        cells = measured(ROWS[name], arguments.target, again=arguments.again, timed=not arguments.no_speed)
        table.add_row(name, *cells)
        Console(width=180).print(f"{name}: {'  '.join(cells)}")
    Console(width=180).print(table)


def recipe_of(row: Row, graph: Graph, target: str) -> Recipe:
    """The row as the recipe that the preset of its scheme stands for: the best form of every layer."""
    layers = [layer for layer in graph.layers if layer.weight_name]
    start = Recipe(calibration=CalibrationSettings(samples=SAMPLES), steps=row.steps, target=target)
    made = preset_recipe(row.scheme, graph.layers, start)
    for place, scheme in row.others.items():
        made = made.with_rule(LayerRule(scheme, names=(layers[place].name,)))
    return made


@dataclass(frozen=True)
class Built:
    """Processor seconds of a build.

    Attributes:
        steps: Of the steps.
        whole: Of everything.
    """

    steps: float
    whole: float


def built(graph: Graph, data: Dataset, recipe: Recipe, path: Path) -> Built:
    """Build a row with an empty cache."""
    kept = os.environ.get(CACHE_VARIABLE)
    with tempfile.TemporaryDirectory() as cache:
        os.environ[CACHE_VARIABLE] = cache
        try:
            inputs = StepInputs(data)
            start = time.process_time()
            observed_after(
                prepare(graph, recipe.bare, inputs), inputs, reporter=NULL_REPORTER, cancel=CancelToken()
            )
            begun = time.process_time()
            prepared = prepare(graph, recipe, inputs)
            done = time.process_time()
            statistics = observed(prepared, inputs)
            build_variant(prepared.graph, statistics, prepared.plan, path)
            return Built(done - begun, time.process_time() - start)
        finally:
            os.environ.pop(CACHE_VARIABLE)
            if kept is not None:
                os.environ[CACHE_VARIABLE] = kept


def observed(prepared: Prepared, inputs: StepInputs) -> Statistics:
    """Statistics of the graph behind the steps."""
    return observed_after(prepared, inputs, reporter=NULL_REPORTER, cancel=CancelToken())


def one_pass(graph: Graph, data: Dataset) -> float:
    """Processor seconds of one FP32 run over the calibration images: the median of five."""
    session = open_session(Path(graph.summary.graph_path), threads=1)
    feeds = [batch.feed for batch in data.batches(BATCH)]
    times = []
    for _ in range(6):
        start = time.process_time()
        for feed in feeds:
            run(session, feed)
        times.append(time.process_time() - start)
    return float(np.median(times[1:]))


def measured(row: Row, target: str, *, again: bool, timed: bool) -> list[str]:
    """The cells of a row."""
    source = MODELS / f"fmnist_{row.net}.onnx"
    graph = open_model(source)
    transform = parse_transform(TRANSFORM)
    data = open_dataset(DataSpec(str(TRAIN), transform, SAMPLES), graph.summary.inputs)
    test = open_dataset(DataSpec(str(TEST), transform), graph.summary.inputs)
    recipe = recipe_of(row, graph, target)
    with tempfile.TemporaryDirectory() as folder:
        path, second, int8 = (Path(folder) / name for name in ("low.onnx", "again.onnx", "int8.onnx"))
        before = one_pass(graph, data)
        cost = built(graph, data, recipe, path)
        seconds = (before + one_pass(graph, data)) / 2
        same = ""
        if again:
            built(graph, data, recipe, second)
            same = "same" if second.read_bytes() == path.read_bytes() else "DIFFERENT"
        judge = Judge(graph, test, samples=0, cancel=CancelToken())
        base, found = (100 * one.metric.value for one in (judge.base, judge.measure_file(path)) if one.metric)
        speed = ["", ""]
        if timed:
            plain = Recipe((LayerRule(STATIC_INT8),), calibration=recipe.calibration, target=target)
            built(graph, data, plain, int8)
            speed = speeds(graph, data, int8, path)
        share = path.stat().st_size / source.stat().st_size
    return [
        f"{base:.2f}", f"{found:.2f}", f"{row.accuracy}", f"{share:.3f}", f"{row.share or ''}",
        f"{cost.steps / seconds:.0f}", f"{row.passes}", f"{cost.whole / seconds:.0f}", *speed, same,
    ]  # fmt: skip


def speeds(graph: Graph, data: Dataset, int8: Path, path: Path) -> list[str]:
    """The file against INT8, and against FP32."""
    paths = [int8, path, Path(graph.summary.graph_path)]
    feed = next(data.batches(1)).feed
    found = interleaved_latency(paths, feed, threads=1, budget=LatencyBudget(6.0, 100, 2000)).speedups
    return [f"{found[1].value:.3f}", f"{found[1].value / found[2].value:.2f}"]


if __name__ == "__main__":
    main()
